"""Who calls: OIDC tokens verified by us as well as by the platform's IAM, and the webhook secret.

Cloud Run's IAM check verifies a token and hands it on with its signature replaced. Behind it
(`OIDC_SIGNATURES=removed`) such a token's claims are still checked here: audience, issuer, e-mail
and age; the signature is then the platform's word. Any other token is verified in full.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from google.auth import exceptions as auth_exceptions
from google.auth.transport import requests as auth_requests
from google.oauth2 import id_token

from shared.domain.failures import UnavailableError

ISSUERS = ("https://accounts.google.com", "accounts.google.com")
REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
SKEW_SECONDS = 10
KEYS_SECONDS = 3600  # Google's keys rotate over days
REFETCH_SECONDS = 30  # for a key that is not known: at most this often
WRONG_SECRET = "X-Webhook-Secret is missing or wrong."


class UnauthenticatedError(Exception):
    """401: no proof of who calls, or one that does not hold."""


class ForbiddenError(Exception):
    """403: known, and not admitted here."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`role` is tasks, scheduler, backend, or any (the secret alone was asked for)."""

    role: str
    email: str


class _Answer:
    status = 200

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Keys(auth_requests.Request):
    """Fetches the issuer's keys once an hour: google-auth fetches them at every verification."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._lock = Lock()
        self._answers: dict[str, tuple[float, bytes]] = {}

    def __call__(self, url: str, method: str = "GET", *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            fetched_at, data = self._answers.get(url, (0.0, b""))
            if not data or self._monotonic() - fetched_at > KEYS_SECONDS:
                answer = super().__call__(url, method, timeout=5)
                if answer.status != 200:
                    raise auth_exceptions.TransportError(f"keys answered {answer.status}")
                data = answer.data
                self._answers[url] = (self._monotonic(), data)
            return _Answer(data)

    def forget(self, url: str) -> bool:
        """Fetch again next time, unless that was just done."""
        with self._lock:
            fetched_at, data = self._answers.get(url, (0.0, b""))
            if not data or self._monotonic() - fetched_at < REFETCH_SECONDS:
                return False
            del self._answers[url]
            return True


class Callers:
    """Verifies the callers of one function."""

    def __init__(
        self,
        *,
        mode: str,
        signatures: str,
        certs_url: str,
        audience: str,
        roles: Mapping[str, str],
        secrets: tuple[str, ...],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mode = mode
        self._signatures = signatures
        self._certs_url = certs_url
        self._audiences = [audience, audience + "/"]
        self._roles = roles
        self._secrets = secrets
        self._keys = _Keys(monotonic)

    def verify(self, authorization: str | None, secret: str | None) -> Caller:
        """Raises `UnauthenticatedError`, `ForbiddenError`, or `UnavailableError` without keys.

        Scheduler alone proves itself by its token only: a header of a job would have to stand in
        Terraform's state, where no secret may be.
        """
        known = not self._secrets or self._knows(secret)
        if not known and (secret is not None or self._mode == "secret"):
            raise UnauthenticatedError(WRONG_SECRET)
        if self._mode == "secret":
            return Caller("any", "")
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("An OIDC token is needed: Authorization: Bearer <token>.")
        claims = self._claims(token.strip())
        email = str(claims.get("email"))
        if not known and self._roles.get(email) != "scheduler":
            raise UnauthenticatedError(WRONG_SECRET)
        if claims.get("email_verified") is not True or email not in self._roles:
            raise ForbiddenError("This account is not admitted here.")
        return Caller(self._roles[email], email)

    def _knows(self, secret: str | None) -> bool:
        given = (secret or "").encode()
        return any(hmac.compare_digest(given, known.encode()) for known in self._secrets)

    def _claims(self, token: str) -> Mapping[str, Any]:
        if self._signatures == "removed" and token.rpartition(".")[2] == REMOVED:
            return self._unsigned_claims(token)
        try:
            return self._verified_claims(token)
        except auth_exceptions.TransportError as error:
            message = "The keys that tokens are verified with cannot be fetched. Try again."
            raise UnavailableError(message, code="keys_unavailable") from error
        except (ValueError, auth_exceptions.GoogleAuthError) as error:
            raise UnauthenticatedError("The token is not valid for this function.") from error

    def _verified_claims(self, token: str) -> Mapping[str, Any]:
        try:
            claims = self._verify_once(token)
        except ValueError as error:
            unknown_key = "Certificate for key id" in str(error)
            if not unknown_key or not self._keys.forget(self._certs_url):
                raise
            claims = self._verify_once(token)
        if claims.get("iss") not in ISSUERS:
            raise ValueError("wrong issuer")
        return claims

    def _verify_once(self, token: str) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = id_token.verify_token(
            token,
            self._keys,
            audience=self._audiences,
            certs_url=self._certs_url,
            clock_skew_in_seconds=SKEW_SECONDS,
        )
        return claims

    def _unsigned_claims(self, token: str) -> Mapping[str, Any]:
        try:
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            now = time.time()
            fresh = claims["iat"] <= now + SKEW_SECONDS and claims["exp"] >= now - SKEW_SECONDS
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UnauthenticatedError("The token cannot be read.") from error
        if claims.get("iss") not in ISSUERS or claims.get("aud") not in self._audiences:
            raise UnauthenticatedError("The token is not valid for this function.")
        if not fresh:
            raise UnauthenticatedError("The token has expired or is not valid yet.")
        return dict(claims)
