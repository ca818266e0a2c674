from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.oauth2 import service_account

from tests.sandbox.storage import StorageServer, service_account_key

SIGNER = "media-signer@sandbox.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def key() -> dict[str, str]:
    return service_account_key(SIGNER, "http://127.0.0.1:9/token")


@pytest.fixture(scope="module")
def server(key: dict[str, str]) -> Iterator[StorageServer]:
    with StorageServer(accounts=[key]) as started:
        started.make_bucket("media")
        yield started


@pytest.fixture
def client(server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Client]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    made = storage.Client(project="sandbox", credentials=AnonymousCredentials())
    yield made
    made.close()
    server.faults.clear()


@pytest.fixture
def bucket(client: storage.Client, request: pytest.FixtureRequest) -> storage.Bucket:
    return client.create_bucket(f"b-{abs(hash(request.node.name))}")


def signed(
    client: storage.Client, key_file: Path, name: str = "pets/café 1.png", **options: Any
) -> str:
    credentials = service_account.Credentials.from_service_account_file(key_file)
    url: str = (
        client.bucket("media")
        .blob(name)
        .generate_signed_url(
            version="v4",
            expiration=options.pop("expiration", timedelta(minutes=15)),
            method=options.pop("method", "GET"),
            credentials=credentials,
            **options,
        )
    )
    return url


@pytest.fixture
def key_file(key: dict[str, str], tmp_path: Path) -> Path:
    place = tmp_path / "key.json"
    place.write_text(json.dumps(key))
    return place


@pytest.fixture
def picture(server: StorageServer) -> bytes:
    server.put("media", "pets/café 1.png", b"picture", "image/png")
    return b"picture"


def test_a_bucket_is_made_once(client: storage.Client) -> None:
    client.create_bucket("once")

    with pytest.raises(exceptions.Conflict):
        client.create_bucket("once")
    assert client.get_bucket("once").name == "once"
    with pytest.raises(exceptions.NotFound):
        client.get_bucket("never")


@pytest.mark.parametrize("checksum", ["auto", "crc32c", "md5", None])
def test_what_is_uploaded_is_downloaded(bucket: storage.Bucket, checksum: str | None) -> None:
    blob = bucket.blob("a/b ü?.txt")
    blob.metadata = {"owner": "ann"}

    blob.upload_from_string("grüß", content_type="text/plain", checksum=checksum)

    again = bucket.get_blob("a/b ü?.txt")
    assert again.download_as_bytes(checksum=checksum) == "grüß".encode()
    assert again.size == 6
    assert again.content_type == "text/plain"
    assert again.metadata == {"owner": "ann"}
    assert again.time_created.tzinfo is not None


def test_an_object_that_is_not_there_is_none(bucket: storage.Bucket) -> None:
    assert bucket.get_blob("nothing") is None
    assert not bucket.blob("nothing").exists()
    with pytest.raises(exceptions.NotFound):
        bucket.blob("nothing").download_as_bytes()


def test_a_resumable_upload_of_known_size_arrives_in_chunks(bucket: storage.Bucket) -> None:
    data = bytes(range(256)) * 4 * 700  # 700 KiB: two chunks of 256 KiB and a rest
    blob = bucket.blob("big", chunk_size=256 * 1024)

    blob.upload_from_file(io.BytesIO(data), size=len(data))

    assert blob.download_as_bytes() == data


@pytest.mark.parametrize("size", [0, 5, 256 * 1024, 600_000])
def test_a_stream_of_unknown_size_is_written_and_read_back(
    bucket: storage.Bucket, size: int
) -> None:
    data = b"x" * size
    with bucket.blob("stream").open("wb", chunk_size=256 * 1024) as writer:
        writer.write(data)

    with bucket.blob("stream").open("rb", chunk_size=256 * 1024) as reader:
        assert b"".join(iter(lambda: reader.read(100_000), b"")) == data


def test_lines_are_streamed_as_text(bucket: storage.Bucket) -> None:
    with bucket.blob("rows.csv").open("w") as writer:
        writer.writelines(f"row {n}\n" for n in range(10_000))

    with bucket.blob("rows.csv").open("r") as reader:
        assert sum(1 for _ in reader) == 10_000


def test_a_range_is_downloaded(bucket: storage.Bucket) -> None:
    blob = bucket.blob("digits")
    blob.upload_from_string("0123456789")

    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=8) == b"89"
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10)


def test_a_listing_has_prefix_delimiter_and_pages(client: storage.Client, bucket: Any) -> None:
    for name in ("a/1", "a/2", "a/b/3", "c/4"):
        bucket.blob(name).upload_from_string(name)

    pages = [
        [blob.name for blob in page]
        for page in client.list_blobs(bucket, prefix="a/", page_size=2).pages
    ]
    folders = client.list_blobs(bucket, delimiter="/")

    assert pages == [["a/1", "a/2"], ["a/b/3"]]
    assert list(folders) == []
    assert folders.prefixes == {"a/", "c/"}


def test_generation_zero_means_that_it_must_not_exist(bucket: storage.Bucket) -> None:
    blob = bucket.blob("marker")
    blob.upload_from_string("1", if_generation_match=0)

    with pytest.raises(exceptions.PreconditionFailed):
        blob.upload_from_string("2", if_generation_match=0)

    assert blob.download_as_bytes() == b"1"


def test_a_stale_generation_neither_overwrites_nor_deletes(bucket: storage.Bucket) -> None:
    blob = bucket.blob("state")
    blob.upload_from_string("1")
    stale = blob.generation
    blob.upload_from_string("2", if_generation_match=stale)

    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("state").upload_from_string("3", if_generation_match=stale)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("state").delete(if_generation_match=stale)

    assert bucket.blob("state").download_as_bytes() == b"2"
    bucket.blob("state").delete()
    assert not bucket.blob("state").exists()


def test_parts_are_composed(bucket: storage.Bucket) -> None:
    parts = [bucket.blob(f"part-{n}") for n in range(3)]
    for n, part in enumerate(parts):
        part.upload_from_string(f"{n};")

    whole = bucket.blob("whole")
    whole.content_type = "text/csv"
    whole.compose(parts)

    assert whole.download_as_bytes() == b"0;1;2;"
    assert whole.component_count == 3


def test_metadata_is_changed_in_place(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string("1")
    blob.metadata = {"seen": "yes"}

    blob.patch()

    assert bucket.get_blob("x").metadata == {"seen": "yes"}
    assert bucket.get_blob("x").metageneration == 2


def test_a_signed_url_gives_the_object(
    client: storage.Client, key_file: Path, picture: bytes
) -> None:
    answer = httpx.get(signed(client, key_file))

    assert answer.content == picture
    assert answer.headers["Content-Type"] == "image/png"


def test_a_range_of_a_signed_url_is_given(
    client: storage.Client, key_file: Path, picture: bytes
) -> None:
    answer = httpx.get(signed(client, key_file), headers={"Range": "bytes=0-3"})

    assert (answer.status_code, answer.content) == (206, b"pict")


def test_a_signed_put_stores_the_object(
    client: storage.Client, key_file: Path, server: Any
) -> None:
    url = signed(client, key_file, "new.txt", method="PUT", content_type="text/plain")

    answer = httpx.put(url, content=b"new", headers={"Content-Type": "text/plain"})

    assert answer.status_code == 200
    assert server.read("media", "new.txt") == b"new"


def test_a_plain_url_without_a_signature_is_refused(server: StorageServer, picture: bytes) -> None:
    answer = httpx.get(f"{server.url}/media/pets/café 1.png")

    assert answer.status_code == 403
    assert "AccessDenied" in answer.text


@pytest.mark.parametrize(
    "tampered", [("pets", "dogs"), ("X-Goog-Expires=900", "X-Goog-Expires=90000")]
)
def test_a_signed_url_that_was_changed_is_refused(
    client: storage.Client, key_file: Path, picture: bytes, tampered: tuple[str, str]
) -> None:
    answer = httpx.get(signed(client, key_file).replace(*tampered))

    assert answer.status_code == 403
    assert "SignatureDoesNotMatch" in answer.text


def test_a_url_signed_by_a_stranger_is_refused(
    client: storage.Client, tmp_path: Path, picture: bytes
) -> None:
    stranger = tmp_path / "stranger.json"
    stranger.write_text(json.dumps(service_account_key(SIGNER, "http://127.0.0.1:9/token")))

    assert httpx.get(signed(client, stranger)).status_code == 403


def test_a_signed_url_ends(client: storage.Client, key: dict[str, str], key_file: Path) -> None:
    url = signed(client, key_file, expiration=timedelta(seconds=60))
    with StorageServer(now=lambda: datetime.now(UTC) + timedelta(seconds=62)) as later:
        later.make_bucket("media")
        answer = httpx.get(url.replace(client.api_endpoint, later.url))

    assert answer.status_code == 400
    assert "ExpiredToken" in answer.text


def test_the_signed_url_of_an_object_that_is_gone_is_a_404(
    client: storage.Client, key_file: Path
) -> None:
    answer = httpx.get(signed(client, key_file, "gone.png"))

    assert answer.status_code == 404
    assert "NoSuchKey" in answer.text


def test_the_client_retries_a_500_and_gives_up_on_a_404(
    server: StorageServer, bucket: storage.Bucket
) -> None:
    bucket.blob("x").upload_from_string("1")
    fault = server.fail(500, "/o/x", method="GET")

    assert bucket.blob("x").download_as_bytes() == b"1"
    server.fail(404, "/o/x")
    with pytest.raises(exceptions.NotFound):
        bucket.blob("x").download_as_bytes()
    assert fault.hits == 1


def test_an_answer_that_is_cut_off_is_noticed(
    server: StorageServer, client: storage.Client, key_file: Path, picture: bytes
) -> None:
    server.cut(3, "/media/pets")

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(signed(client, key_file))


def test_a_slow_answer_is_late(
    server: StorageServer, client: storage.Client, key_file: Path, picture: bytes
) -> None:
    server.slow(timedelta(seconds=0.3), times=1)
    began = time.monotonic()

    httpx.get(signed(client, key_file))

    assert time.monotonic() - began >= 0.3


def test_bytes_that_do_not_match_their_hash_are_refused(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="

    with pytest.raises((exceptions.BadRequest, DataCorruption)):
        blob.upload_from_string("1", checksum=None)
