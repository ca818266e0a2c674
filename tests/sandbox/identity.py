"""An issuer of OIDC tokens like Google's, with keys of its own.

Cloud Tasks and Cloud Scheduler sign in with a service account's identity token. Google publishes
the keys at https://www.googleapis.com/oauth2/v1/certs as {key id: PEM certificate}; this issuer
publishes its own the same way, so `google.oauth2.id_token.verify_token(..., certs_url=)` reads it.
"""

import hashlib
import http.server
import json
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from tests.sandbox.clock import real_now

GOOGLE = "https://accounts.google.com"

# What Cloud Run puts in place of a signature that it has checked itself.
# https://cloud.google.com/run/docs/troubleshooting#signature-removed
SIGNATURE_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"


@dataclass(frozen=True)
class Key:
    id: str
    signer: crypt.RSASigner
    certificate_pem: str


class Issuer:
    """Signs identity tokens and serves the certificates that prove them, on loopback HTTP.

    Tokens are dated in real time, not on the sandbox's clock: the verifier looks at its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys = [make_key()]
        self._stranger: Key | None = None
        self._fetches = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.certs_down = False  # while true, the key server answers 503

    def start(self) -> "Issuer":
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _answering(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="sandbox-issuer", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> "Issuer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def certs_url(self) -> str:
        if self._server is None:
            raise RuntimeError("the issuer is not started")
        return f"http://127.0.0.1:{self._server.server_port}/oauth2/v1/certs"

    @property
    def fetches(self) -> int:
        """How often the certificates were asked for."""
        with self._lock:
            return self._fetches

    def rotate(self) -> str:
        """Sign with a new key from now on; the old ones stay published. Returns the key's id."""
        key = make_key()
        with self._lock:
            self._keys.append(key)
        return key.id

    def reset(self) -> None:
        """Sign with the first key again, which everybody knows who has ever asked."""
        with self._lock:
            del self._keys[1:]

    def certificates(self) -> dict[str, str]:
        """Every published certificate by key id, as the key server answers it."""
        with self._lock:
            return {key.id: key.certificate_pem for key in self._keys}

    def token(
        self,
        email: str,
        audience: str,
        *,
        expires_in: timedelta = timedelta(hours=1),
        issued_at: datetime | None = None,
        issuer: str = GOOGLE,
        email_verified: bool = True,
        forged: bool = False,
        **claims: Any,
    ) -> str:
        """An RS256 identity token of the service account `email` for `audience`.

        Wrong ones on purpose: a negative `expires_in`, an `issued_at` in the future, another
        `issuer`, and `forged`, which signs with a key nobody published under a published id.
        `claims` replace or add; a claim given as None is left out.
        """
        issued = issued_at or real_now()
        account = account_id(email)
        payload = {
            "iss": issuer,
            "aud": audience,
            "azp": account,
            "sub": account,
            "email": email,
            "email_verified": email_verified,
            "iat": int(issued.timestamp()),
            "exp": int((issued + expires_in).timestamp()),
        } | claims
        kept = {name: value for name, value in payload.items() if value is not None}
        key = self._current()
        signer = self._stranger_key().signer if forged else key.signer
        return jwt.encode(signer, kept, key_id=key.id).decode()

    def _current(self) -> Key:
        with self._lock:
            return self._keys[-1]

    def _stranger_key(self) -> Key:
        with self._lock:
            if self._stranger is None:
                self._stranger = make_key()
            return self._stranger

    def _count_fetch(self) -> None:
        with self._lock:
            self._fetches += 1


def remove_signature(token: str) -> str:
    """The token as a Cloud Run service sees it when IAM has checked it before."""
    header, payload, _ = token.split(".")
    return f"{header}.{payload}.{SIGNATURE_REMOVED}"


def account_id(email: str) -> str:
    """A service account's unique id: 21 digits, the same for the same address."""
    digest = hashlib.sha256(email.encode()).hexdigest()
    return "1" + str(int(digest, 16))[:20]


def make_key() -> Key:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    key_id = uuid.uuid4().hex
    return Key(key_id, crypt.RSASigner.from_string(pem, key_id), _self_signed(private))


def _self_signed(private: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox.issuer.local")])
    now = real_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _answering(issuer: Issuer) -> type[http.server.BaseHTTPRequestHandler]:
    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/oauth2/v1/certs":
                self._send(404, b"")
                return
            issuer._count_fetch()
            if issuer.certs_down:
                self._send(503, b"")
                return
            self._send(200, json.dumps(issuer.certificates()).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            if status == 200:
                self.send_header("Cache-Control", "public, max-age=3600")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Answering
