"""Media as they are read: from a bucket, and from servers that are not to be trusted.

Those servers speak TLS on this machine: what reads them is told to believe their certificate and to
connect to loopback, which are the two things that it lets itself be told.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import SEEK_END
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.domain.addresses import is_public
from shared.domain.failures import PermanentError, PlatformError, TransientError
from shared.domain.media import MediaItem
from shared.storage.media import MediaStorage
from shared.storage.web import Web
from tests.sandbox.storage import StorageServer

BUCKET = "media"
FILM = b"".join(b"%07d," % number for number in range(1_000_000))  # 8 MB, no two bytes in doubt
OTHER = FILM[::-1]


def soon() -> float:
    return time.monotonic() + 20


def media(uri: str) -> MediaItem:
    return MediaItem(id="film", uri=uri, content_type="video/mp4")


# --- a server somewhere ---------------------------------------------------------------------------


class Somewhere(ThreadingHTTPServer):
    """Serves `data`; what it lacks and how it misbehaves is said by its fields."""

    daemon_threads = True
    block_on_close = False
    data = FILM
    headers: dict[str, str] = {}  # noqa: RUF012 - each test gives its own
    ranges = True
    length = True
    status = 0  # to answer instead
    drips = False
    claims: int | None = None  # a size that is not its own

    def __init__(self) -> None:
        self.asked: list[str | None] = []  # the Range of each request
        self.sent = 0  # bytes of bodies
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def item(self) -> MediaItem:
        return media(f"https://127.0.0.1:{self.server_address[1]}/film.mp4?take=1")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hangs up has what it wants."""


class _Handler(BaseHTTPRequestHandler):
    server: Somewhere
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status:
            self.send_response(server.status)
            self.send_header("Location", "https://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, size = server.data, server.claims or len(server.data)
        if asked and server.ranges:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            data = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if server.length:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        for at in range(0, len(data), 1 if server.drips else 65536):
            block = data[at : at + (1 if server.drips else 65536)]
            self.wfile.write(block)
            server.sent += len(block)
            if server.drips:
                time.sleep(0.02)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, signed by itself; its key is in the same file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somewhere")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path_factory.mktemp("tls") / "somewhere.pem"
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
    return file


@pytest.fixture
def somewhere(certificate: Path) -> Iterator[Somewhere]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = Somewhere()
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def storage(certificate: Path) -> MediaStorage:
    believed = ssl.create_default_context(cafile=str(certificate))
    web = Web(admits=lambda address: address.is_loopback, tls=believed)
    return MediaStorage(bucket=BUCKET, web=web)


# --- from anywhere --------------------------------------------------------------------------------


def test_a_look_costs_one_byte(somewhere: Somewhere, storage: MediaStorage) -> None:
    somewhere.headers = {"ETag": '"one"'}

    found = storage.look(somewhere.item, ends_at=soon())

    assert (found.size_bytes, found.version) == (len(FILM), '"one"')
    assert somewhere.asked == ["bytes=0-0"]
    assert somewhere.sent == 1


def test_a_piece_is_all_that_is_asked_for(somewhere: Somewhere, storage: MediaStorage) -> None:
    found = storage.look(somewhere.item, ends_at=soon())

    with storage.open(found, (1000, 4096), ends_at=soon()) as piece:
        read = piece.read()

    assert read == FILM[1000:5096]
    assert somewhere.asked == ["bytes=0-0", "bytes=1000-5095"]


def test_a_whole_file_is_a_stream_that_knows_its_length(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    with storage.open(somewhere.item, ends_at=soon()) as stream:
        length = stream.seek(0, SEEK_END)
        before = somewhere.sent
        stream.seek(0)
        read = stream.read()

    assert (length, before) == (len(FILM), 1)
    assert read == FILM
    assert somewhere.asked == ["bytes=0-0", None]


def test_a_stream_that_is_read_again_begins_anew(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    with storage.open(somewhere.item, ends_at=soon()) as stream:
        first = stream.read(100)
        stream.seek(0)
        again = stream.read(200)

    assert first == FILM[:100]
    assert FILM.startswith(again)
    assert len(again) > 0


@pytest.mark.parametrize(
    "tells", [{"ETag": '"{}"'}, {"Last-Modified": "Sun, 0{} Nov 2026"}], ids=str
)
@pytest.mark.parametrize("span", [None, (0, 4096)])
def test_a_file_of_another_version_is_not_read(
    somewhere: Somewhere, storage: MediaStorage, tells: dict[str, str], span: Any
) -> None:
    somewhere.headers = {name: value.format(1) for name, value in tells.items()}
    found = storage.look(somewhere.item, ends_at=soon())
    somewhere.data = OTHER
    somewhere.headers = {name: value.format(2) for name, value in tells.items()}

    with pytest.raises(PermanentError, match="media_changed"):
        storage.open(found, span, ends_at=soon()).read()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("data", [FILM[:-1], FILM + b"."], ids=["shorter", "longer"])
def test_a_file_of_another_length_is_not_sent_as_the_one_that_was_found(
    somewhere: Somewhere, storage: MediaStorage, data: bytes, length: bool
) -> None:
    found = storage.look(somewhere.item, ends_at=soon())
    somewhere.data, somewhere.length = data, length

    with pytest.raises(PermanentError, match="media_changed"):
        storage.open(found, ends_at=soon()).read()


def test_a_server_without_ranges_gives_the_whole(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    somewhere.ranges = False

    found = storage.look(somewhere.item, ends_at=soon())
    with storage.open(found, ends_at=soon()) as stream:
        read = stream.read()

    assert found.size_bytes == len(FILM)
    assert read == FILM


def test_a_server_without_ranges_gives_no_pieces(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    somewhere.ranges = False
    found = storage.look(somewhere.item, ends_at=soon())

    with pytest.raises(PermanentError, match="gives no pieces"):
        storage.open(found, (0, 4096), ends_at=soon())


def test_a_file_whose_server_does_not_tell_its_size_is_counted(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    somewhere.ranges = somewhere.length = False

    with storage.open(somewhere.item, ends_at=soon()) as stream:
        length, _ = stream.seek(0, SEEK_END), stream.seek(0)
        read = stream.read()

    assert (length, read) == (len(FILM), FILM)


def test_what_never_ends_is_not_counted_for_ever(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    somewhere.ranges = somewhere.length = False
    somewhere.data = bytes(101 * 1024 * 1024)

    with pytest.raises(PermanentError, match="media_too_large"):
        storage.look(somewhere.item, ends_at=soon())


def test_what_no_platform_takes_is_refused_at_the_first_look(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    somewhere.claims = 1024**3 + 1

    with pytest.raises(PermanentError, match="media_too_large"):
        storage.look(somewhere.item, ends_at=soon())

    assert somewhere.sent == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(302, PermanentError), (404, PermanentError), (503, TransientError)]
)
def test_another_answer_is_a_failure_and_no_redirect_is_followed(
    somewhere: Somewhere, storage: MediaStorage, status: int, kind: type[PlatformError]
) -> None:
    somewhere.status = status

    with pytest.raises(kind, match="media_unavailable") as caught:
        storage.look(somewhere.item, ends_at=soon())

    assert caught.value.status == status


def test_a_compressed_file_is_refused(somewhere: Somewhere, storage: MediaStorage) -> None:
    somewhere.headers = {"Content-Encoding": "gzip"}

    with pytest.raises(PermanentError, match="compressed"):
        storage.look(somewhere.item, ends_at=soon())


def test_a_server_that_drips_is_read_for_as_long_as_the_request_lasts(
    somewhere: Somewhere, storage: MediaStorage
) -> None:
    found = storage.look(somewhere.item, ends_at=soon())
    somewhere.drips, began = True, time.monotonic()

    with pytest.raises(TimeoutError):
        storage.open(found, (0, 4096), ends_at=began + 0.3)

    assert time.monotonic() - began < 1.0


def test_a_stranger_with_a_certificate_of_his_own_is_not_believed(somewhere: Somewhere) -> None:
    storage = MediaStorage(bucket=BUCKET, web=Web(admits=lambda address: address.is_loopback))

    with pytest.raises(TransientError, match="media_unavailable"):
        storage.look(somewhere.item, ends_at=soon())

    assert somewhere.asked == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"]
)
def test_what_is_not_public_is_not_connected_to(host: str) -> None:
    storage = MediaStorage(bucket=BUCKET)

    with pytest.raises(PermanentError, match="media_not_public"):
        storage.look(media(f"https://{host}/film.mp4"), ends_at=soon())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::", True),
        ("100.64.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("fd00::1", False),
        ("fe80::1", False),
    ],
)
def test_a_public_address_is_one_that_anybody_reaches(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize("uri", ["http://a.example/film.mp4", "https://", "file:///film.mp4", "x"])
def test_only_https_addresses_are_read(uri: str) -> None:
    with pytest.raises(PermanentError, match="media_address"):
        MediaStorage(bucket=BUCKET).look(media(uri), ends_at=soon())


# --- from the bucket ------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    with StorageServer() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "sandbox")
        server.make_bucket(BUCKET)
        server.put(BUCKET, "film.mp4", FILM, "video/mp4")
        yield server


IN_BUCKET = media(f"gs://{BUCKET}/film.mp4")


def test_an_object_is_read_block_by_block(bucket: StorageServer) -> None:
    requests = bucket.faults.arm(lambda _: None, when=lambda c: "/o/" in c.path, times=None)

    with MediaStorage(bucket=BUCKET).open(IN_BUCKET, ends_at=soon()) as stream:
        length, _ = stream.seek(0, SEEK_END), stream.seek(0)
        read = stream.read()

    assert (length, read) == (len(FILM), FILM)
    assert requests.hits == 3  # a look, and 4 MB at a time


def test_an_object_that_is_overwritten_while_it_is_read_is_not_read_on(
    bucket: StorageServer,
) -> None:
    stream = MediaStorage(bucket=BUCKET).open(IN_BUCKET, ends_at=soon())
    begun = stream.read(100)
    bucket.put(BUCKET, "film.mp4", OTHER, "video/mp4")

    with pytest.raises(PermanentError, match="media_changed"):
        stream.read()

    assert begun == FILM[:100]


def test_an_object_is_not_waited_for_past_the_request(bucket: StorageServer) -> None:
    bucket.slow(timedelta(seconds=2), "film.mp4")
    storage, began = MediaStorage(bucket=BUCKET), time.monotonic()

    with pytest.raises(TimeoutError):
        storage.look(IN_BUCKET, ends_at=began + 0.3)

    assert time.monotonic() - began < 1.5


def test_what_is_not_there_and_what_lies_elsewhere_is_told_apart(bucket: StorageServer) -> None:
    storage = MediaStorage(bucket=BUCKET)

    with pytest.raises(PermanentError, match="media_missing"):
        storage.look(media(f"gs://{BUCKET}/none.mp4"), ends_at=soon())
    with pytest.raises(PermanentError, match="media_foreign_bucket"):
        storage.look(media("gs://elsewhere/film.mp4"), ends_at=soon())
