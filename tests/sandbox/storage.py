"""Cloud Storage in memory: as much of its JSON API as the real client library needs.

A large object may lie in a file (`put_file`), and is then never held whole.

A client finds it through `STORAGE_EMULATOR_HOST=http://127.0.0.1:port`. There are buckets, uploads
(media, multipart, resumable), downloads with ranges, listings, generations and their preconditions,
compose, and plain `GET /bucket/object` by V4 signed URL. Of an object the live generation alone is
kept; there is no versioning, no ACL, no copy, and a request is never asked who sends it.

Sources: https://cloud.google.com/storage/docs/json_api/v1 and
https://cloud.google.com/storage/docs/authentication/signatures
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.parser import BytesHeaderParser
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

import google_crc32c
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.sandbox.functions import Armed, Faults
from tests.sandbox.listener import Handler, Listener

BLOCK_BYTES = 1024 * 1024  # held at a time of an object in a file
CHUNK_BYTES = 256 * 1024  # every part of a resumable upload but the last is a multiple of it
PAGE_ITEMS = 1000
SIGNED_FOR_AT_MOST = timedelta(days=7)
SIGNED_EARLY = timedelta(minutes=15)  # how far ahead of ours the signer's clock may be
KEPT_FIELDS = (
    "contentType",
    "contentEncoding",
    "contentDisposition",
    "contentLanguage",
    "cacheControl",
    "metadata",
    "customTime",
)
REASONS = {
    400: "invalid",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    411: "required",
    412: "conditionNotMet",
    416: "requestedRangeNotSatisfiable",
}


class StorageError(Exception):
    """What the service would refuse: an HTTP status and its message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass
class StorageCall:
    """One request; an act of `faults` may set `cut_after`, the bytes of the answer that leave."""

    method: str
    path: str  # still quoted, without the query
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut_after: int | None = None

    @property
    def base(self) -> str:
        return f"http://{self.headers.get('Host', '')}"


class Data(Protocol):
    """An object's bytes, wherever they lie."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> bytes: ...


class InFile:
    """Those of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._span = range(path.stat().st_size)

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, span: slice, /) -> bytes:
        wanted = self._span[span]
        with self._path.open("rb") as file:
            file.seek(wanted.start)
            return file.read(len(wanted))


def blocks(data: Data) -> Iterator[bytes]:
    for begin in range(0, len(data), BLOCK_BYTES):
        yield data[begin : begin + BLOCK_BYTES]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Data = b""


@dataclass(frozen=True)
class StoredObject:
    """One live object and what is kept beside it."""

    bucket: str
    name: str
    data: Data = field(repr=False)
    generation: int
    created_at: datetime
    updated_at: datetime
    fields: Mapping[str, Any]
    metageneration: int = 1
    components: int | None = None

    @cached_property
    def crc32c(self) -> str:
        check = google_crc32c.Checksum()
        for block in blocks(self.data):
            check.update(block)
        return base64.b64encode(check.digest()).decode()

    @cached_property
    def md5(self) -> str | None:
        """None for a composed object, as with the service."""
        if self.components is not None:
            return None
        digest = hashlib.md5(usedforsecurity=False)
        for block in blocks(self.data):
            digest.update(block)
        return base64.b64encode(digest.digest()).decode()

    @property
    def content_type(self) -> str:
        return str(self.fields.get("contentType") or "application/octet-stream")

    @property
    def hashes(self) -> str:
        return f"crc32c={self.crc32c}" + (f",md5={self.md5}" if self.md5 else "")

    def resource(self, base: str) -> dict[str, Any]:
        """The object as the JSON API gives it."""
        path = f"/b/{self.bucket}/o/{quote(self.name, safe='')}"
        media = f"{base}/download/storage/v1{path}?generation={self.generation}&alt=media"
        made = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{base}/storage/v1{path}",
            "mediaLink": media,
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "crc32c": self.crc32c,
            "etag": f"{self.generation}/{self.metageneration}",
            "timeCreated": _rfc3339(self.created_at),
            "updated": _rfc3339(self.updated_at),
        }
        made |= {"md5Hash": self.md5} if self.md5 else {}
        made |= {"componentCount": self.components} if self.components is not None else {}
        return made | {key: value for key, value in self.fields.items() if value is not None}


@dataclass
class _Upload:
    """A resumable upload under way, and the object it became."""

    bucket: str
    fields: Mapping[str, Any]
    query: Mapping[str, str]
    data: bytearray = field(default_factory=bytearray)
    done: StoredObject | None = None


class Shelves:
    """The buckets and their objects; every verb is atomic and checks its preconditions."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        # Generations are microseconds since 1970 with the service: large, and only growing.
        self._generations = itertools.count(int(now().timestamp() * 1_000_000))

    def make(self, bucket: str) -> None:
        with self._lock:
            if bucket in self._buckets:
                raise StorageError(
                    409, "Your previous request to create the named bucket succeeded"
                )
            self._buckets[bucket] = {}

    def drop(self, bucket: str) -> None:
        with self._lock:
            if self.inside(bucket):
                raise StorageError(409, "The bucket you tried to delete is not empty.")
            del self._buckets[bucket]

    def inside(self, bucket: str) -> dict[str, StoredObject]:
        with self._lock:
            if bucket not in self._buckets:
                raise StorageError(404, "The specified bucket does not exist.", "NoSuchBucket")
            return self._buckets[bucket]

    def get(self, bucket: str, name: str, query: Mapping[str, str]) -> StoredObject:
        with self._lock:
            found = self.inside(bucket).get(name)
            wanted = query.get("generation")
            if found is None or wanted not in (None, str(found.generation)):
                raise StorageError(404, f"No such object: {bucket}/{name}", "NoSuchKey")
            _check_preconditions(found, query)
            return found

    def put(
        self,
        bucket: str,
        fields: Mapping[str, Any],
        data: Data,
        query: Mapping[str, str],
        *,
        components: int | None = None,
    ) -> StoredObject:
        with self._lock:
            self.check(bucket, fields["name"], query)
            now = self._now()
            kept = {key: fields[key] for key in KEPT_FIELDS if fields.get(key) is not None}
            stored = StoredObject(
                bucket,
                fields["name"],
                data,
                next(self._generations),
                now,
                now,
                kept,
                components=components,
            )
            _check_hashes(stored, fields.get("crc32c"), fields.get("md5Hash"))
            self.inside(bucket)[stored.name] = stored
            return stored

    def check(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Raise unless the preconditions hold now."""
        _check_preconditions(self.inside(bucket).get(name), query)

    def patch(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        with self._lock:
            found = self.get(bucket, name, query)
            kept = dict(found.fields) | {k: fields[k] for k in KEPT_FIELDS if k in fields}
            changed = replace(
                found,
                fields=kept,
                metageneration=found.metageneration + 1,
                updated_at=self._now(),
            )
            self.inside(bucket)[name] = changed
            return changed

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        with self._lock:
            self.get(bucket, name, query)
            del self.inside(bucket)[name]


class StorageServer(Listener):
    """Cloud Storage on a port of this machine; `url` is STORAGE_EMULATOR_HOST.

    With `accounts` (service account keys, as `service_account_key` makes them) a signed URL must
    be signed by one of them; without, its signature is only looked for. Its dates are held against
    `now`, real time unless told otherwise, because the library signs with real time.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        accounts: Iterable[Mapping[str, str]] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(port)
        self.faults: Faults[StorageCall] = Faults()
        self.shelves = Shelves(now)
        self._keys = {account["client_email"]: _public_key(account) for account in accounts}
        self._now = now
        self._uploads: dict[str, _Upload] = {}

    def handler(self) -> type[Handler]:
        return type("StorageHandler", (_StorageHandler,), {"storage": self})

    @property
    def env(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.url}

    # --- What tests say directly --------------------------------------------------------------

    def make_bucket(self, name: str) -> None:
        self.shelves.make(name)

    def put(self, bucket: str, name: str, data: bytes, content_type: str) -> StoredObject:
        fields = {"name": name, "contentType": content_type}
        return self.shelves.put(bucket, fields, data, {})

    def put_file(self, bucket: str, name: str, path: Path, content_type: str) -> StoredObject:
        """An object that lies in a file, which may be sparse and has to stay as it is."""
        fields = {"name": name, "contentType": content_type}
        return self.shelves.put(bucket, fields, InFile(path), {})

    def read(self, bucket: str, name: str) -> bytes:
        return self.shelves.get(bucket, name, {}).data[:]

    def fail(
        self, status: int, path: str = "", *, method: str | None = None, times: int | None = 1
    ) -> Armed[StorageCall]:
        """Answer `status` to the next requests whose path holds `path`."""

        def refuse(call: StorageCall) -> None:
            raise StorageError(status, f"sandbox: {status} was asked for")

        return self.faults.arm(refuse, when=_matcher(path, method), times=times)

    def slow(
        self,
        by: timedelta,
        path: str = "",
        *,
        method: str | None = None,
        times: int | None = None,
    ) -> Armed[StorageCall]:
        """Answer `by` later, in real time."""
        return self.faults.arm(
            lambda call: time.sleep(by.total_seconds()), when=_matcher(path, method), times=times
        )

    def cut(
        self, after_bytes: int, path: str = "", *, method: str | None = None, times: int | None = 1
    ) -> Armed[StorageCall]:
        """Do what was asked and close the connection after that much of the answer's body."""

        def cut(call: StorageCall) -> None:
            call.cut_after = after_bytes

        return self.faults.arm(cut, when=_matcher(path, method), times=times)

    # --- Answering ----------------------------------------------------------------------------

    def answer(self, call: StorageCall) -> Reply:
        try:
            self.faults.strike(call)
            for method, pattern, act in ROUTES:
                match = re.fullmatch(pattern, call.path)
                if match and call.method in method.split("|"):
                    return act(self, call, **{k: unquote(v) for k, v in match.groupdict().items()})
            raise StorageError(404, f"The sandbox has no {call.method} {call.path}")
        except StorageError as error:
            return _xml_error(error) if _is_plain(call.path) else _json_error(error)

    def _make_bucket(self, call: StorageCall) -> Reply:
        name = json.loads(call.body)["name"]
        self.shelves.make(name)
        return self._get_bucket(call, name)

    def _get_bucket(self, call: StorageCall, bucket: str) -> Reply:
        self.shelves.inside(bucket)
        return _json(
            {
                "kind": "storage#bucket",
                "id": bucket,
                "name": bucket,
                "location": "US",
                "storageClass": "STANDARD",
                "metageneration": "1",
                "selfLink": f"{call.base}/storage/v1/b/{bucket}",
            }
        )

    def _drop_bucket(self, call: StorageCall, bucket: str) -> Reply:
        self.shelves.drop(bucket)
        return Reply(204)

    def _list(self, call: StorageCall, bucket: str) -> Reply:
        listed = _listing(self.shelves.inside(bucket), call.query)
        items = [stored.resource(call.base) for stored in listed.items]
        page: dict[str, Any] = {"kind": "storage#objects", "items": items}
        page |= {"prefixes": listed.prefixes} if listed.prefixes else {}
        page |= {"nextPageToken": listed.token} if listed.token else {}
        return _json(page)

    def _get(self, call: StorageCall, bucket: str, name: str) -> Reply:
        stored = self.shelves.get(bucket, name, call.query)
        if call.query.get("alt") == "media":
            return _media(stored, call.headers.get("Range"))
        return _json(stored.resource(call.base))

    def _patch(self, call: StorageCall, bucket: str, name: str) -> Reply:
        fields = json.loads(call.body or b"{}")
        return _json(self.shelves.patch(bucket, name, fields, call.query).resource(call.base))

    def _delete(self, call: StorageCall, bucket: str, name: str) -> Reply:
        self.shelves.delete(bucket, name, call.query)
        return Reply(204)

    def _compose(self, call: StorageCall, bucket: str, name: str) -> Reply:
        asked = json.loads(call.body)
        sources = [
            self.shelves.get(bucket, one["name"], one.get("objectPreconditions", {}))
            for one in asked["sourceObjects"]
        ]
        fields = asked.get("destination", {}) | {"name": name}
        data = b"".join(source.data[:] for source in sources)
        components = sum(source.components or 1 for source in sources)
        stored = self.shelves.put(bucket, fields, data, call.query, components=components)
        return _json(stored.resource(call.base))

    def _upload(self, call: StorageCall, bucket: str) -> Reply:
        kind = call.query.get("uploadType")
        if kind == "resumable":
            return self._begin_upload(call, bucket)
        if kind == "multipart":
            fields, data = _multipart(call)
        else:
            fields, data = {"contentType": call.headers.get("Content-Type")}, call.body
        fields = _named(fields, call.query)
        return _json(self.shelves.put(bucket, fields, data, call.query).resource(call.base))

    def _begin_upload(self, call: StorageCall, bucket: str) -> Reply:
        fields = _named(json.loads(call.body or b"{}"), call.query)
        if "contentType" not in fields:
            fields |= {"contentType": call.headers.get("X-Upload-Content-Type")}
        self.shelves.check(bucket, fields["name"], call.query)
        session = uuid.uuid4().hex
        self._uploads[session] = _Upload(bucket, fields, call.query)
        place = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={session}"
        return Reply(200, {"Location": call.base + place, "X-GUploader-UploadID": session})

    def _continue_upload(self, call: StorageCall, bucket: str) -> Reply:
        upload = self._uploads.get(call.query.get("upload_id", ""))
        if upload is None:
            raise StorageError(404, "No such upload.")
        if upload.done is None and not self._finished(upload, call):
            reached = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            return Reply(308, reached)
        assert upload.done is not None
        return _json(upload.done.resource(call.base))

    def _finished(self, upload: _Upload, call: StorageCall) -> bool:
        """Take one part; whether it was the last, which makes the object."""
        first, total = _content_range(call)
        if first is not None and first <= len(upload.data):
            if total is None and len(call.body) % CHUNK_BYTES:
                raise StorageError(400, f"A part must be a multiple of {CHUNK_BYTES} bytes.")
            upload.data[first:] = call.body
        if total is None or len(upload.data) != total:
            return False
        fields = dict(upload.fields) | _told_hashes(call.headers.get("X-Goog-Hash", ""))
        upload.done = self.shelves.put(upload.bucket, fields, bytes(upload.data), upload.query)
        return True

    def _plain(self, call: StorageCall, bucket: str, name: str) -> Reply:
        self._check_signature(call)
        if call.method == "PUT":
            fields = {"name": name, "contentType": call.headers.get("Content-Type")}
            self.shelves.put(bucket, fields, call.body, {})
            return Reply(200)
        stored = self.shelves.get(bucket, name, {})
        return _media(stored, call.headers.get("Range"))

    def _check_signature(self, call: StorageCall) -> None:
        query = {key.lower(): value for key, value in call.query.items()}
        if missing := [name for name in SIGNED_WITH if name not in query]:
            raise StorageError(403, f"Access denied: no {', '.join(missing)}.", "AccessDenied")
        _check_dates(query, self._now())
        if self._keys:
            key = self._keys.get(query["x-goog-credential"].partition("/")[0])
            _check_signed_by(key, call, query)


Route = tuple[str, str, Callable[..., Reply]]
BUCKET = r"/storage/v1/b/(?P<bucket>[^/]+)"
OBJECT = BUCKET + r"/o/(?P<name>[^/]+)"
UPLOAD = r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o"
ROUTES: tuple[Route, ...] = (
    ("POST", r"/storage/v1/b", StorageServer._make_bucket),
    ("GET", BUCKET, StorageServer._get_bucket),
    ("DELETE", BUCKET, StorageServer._drop_bucket),
    ("GET", BUCKET + "/o", StorageServer._list),
    ("GET", r"(?:/download)?" + OBJECT, StorageServer._get),
    ("PATCH|PUT", OBJECT, StorageServer._patch),
    ("DELETE", OBJECT, StorageServer._delete),
    ("POST", OBJECT + "/compose", StorageServer._compose),
    ("POST", UPLOAD, StorageServer._upload),
    ("PUT", UPLOAD, StorageServer._continue_upload),
    ("GET|HEAD|PUT", r"/(?P<bucket>[^/]+)/(?P<name>.+)", StorageServer._plain),
)
API = ("/storage/v1/", "/upload/", "/download/", "/resumable/")


def service_account_key(email: str, token_uri: str, *, project: str = "sandbox") -> dict[str, str]:
    """A throw-away service account key, as `gcloud iam service-accounts keys create` writes it.

    Written to a file and named in GOOGLE_APPLICATION_CREDENTIALS, it signs URLs with the real
    library. Making one takes about 0.1 s.
    """
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": project,
        "private_key_id": uuid.uuid4().hex,
        "private_key": pem.decode(),
        "client_email": email,
        "client_id": str(uuid.uuid4().int)[:21],
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }


# --- Signed URLs ------------------------------------------------------------------------------

SIGNED_WITH = (
    "x-goog-algorithm",
    "x-goog-credential",
    "x-goog-date",
    "x-goog-expires",
    "x-goog-signedheaders",
    "x-goog-signature",
)


def _public_key(account: Mapping[str, str]) -> rsa.RSAPublicKey:
    private = serialization.load_pem_private_key(account["private_key"].encode(), password=None)
    public = private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return public


def _check_dates(query: Mapping[str, str], now: datetime) -> None:
    try:
        signed_at = datetime.strptime(query["x-goog-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lasts = timedelta(seconds=int(query["x-goog-expires"]))
    except ValueError as error:
        raise StorageError(400, f"Invalid signed URL: {error}", "InvalidArgument") from error
    if not timedelta(0) < lasts <= SIGNED_FOR_AT_MOST:
        raise StorageError(400, "X-Goog-Expires is above 604800.", "AuthenticationRequired")
    if not signed_at - SIGNED_EARLY <= now <= signed_at + lasts:
        raise StorageError(400, "The provided token has expired.", "ExpiredToken")


def _check_signed_by(
    key: rsa.RSAPublicKey | None, call: StorageCall, query: Mapping[str, str]
) -> None:
    refused = StorageError(403, "Access denied.", "SignatureDoesNotMatch")
    if key is None:
        raise refused
    signed = _string_to_sign(call, query).encode()
    try:
        signature = bytes.fromhex(query["x-goog-signature"])
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature) as error:
        raise refused from error


def _string_to_sign(call: StorageCall, query: Mapping[str, str]) -> str:
    parts = [
        f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, value in call.query.items()
        if name.lower() != "x-goog-signature"
    ]
    sent = {name.lower(): value.strip() for name, value in call.headers.items()}
    names = query["x-goog-signedheaders"].split(";")
    canonical = [call.method, call.path, "&".join(sorted(parts))]
    canonical += [f"{name}:{sent.get(name, '')}" for name in names]
    canonical += ["", ";".join(names), sent.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD")]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    scope = query["x-goog-credential"].partition("/")[2]
    return "\n".join([query["x-goog-algorithm"], query["x-goog-date"], scope, digest])


# --- Parts of requests and answers ------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    items: list[StoredObject]
    prefixes: list[str]
    token: str | None


def _listing(objects: Mapping[str, StoredObject], query: Mapping[str, str]) -> _Listed:
    """One page in the order of names; a page token is the last name (or prefix) given."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
    most = min(int(query.get("maxResults", PAGE_ITEMS)), PAGE_ITEMS)
    entries: dict[str, StoredObject | None] = {}
    for name in sorted(objects):
        if not name.startswith(prefix) or not _within(name, query):
            continue
        head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        entries[prefix + head + found if found else name] = None if found else objects[name]
    names = [name for name in entries if name > after]
    page = names[:most]
    token = base64.urlsafe_b64encode(page[-1].encode()).decode() if len(names) > most else None
    items = [stored for name in page if (stored := entries[name]) is not None]
    return _Listed(items, [name for name in page if entries[name] is None], token)


def _within(name: str, query: Mapping[str, str]) -> bool:
    end = query.get("endOffset")
    return name >= query.get("startOffset", "") and (not end or name < end)


def _check_preconditions(found: StoredObject | None, query: Mapping[str, str]) -> None:
    """`ifGenerationMatch=0` means that there must be no object."""
    generation = found.generation if found else 0
    metageneration = found.metageneration if found else 0
    for asked, seen in (("Generation", generation), ("Metageneration", metageneration)):
        wanted, unwanted = query.get(f"if{asked}Match"), query.get(f"if{asked}NotMatch")
        if (wanted is not None and int(wanted) != seen) or unwanted == str(seen):
            raise StorageError(
                412, "At least one of the pre-conditions you specified did not hold."
            )


def _check_hashes(stored: StoredObject, crc32c: str | None, md5: str | None) -> None:
    if crc32c not in (None, stored.crc32c) or md5 not in (None, stored.md5):
        raise StorageError(400, "Provided hash does not match the calculated hash.")


def _told_hashes(header: str) -> dict[str, str]:
    """`X-Goog-Hash: crc32c=...,md5=...` as the fields of an object."""
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    told = [part.strip().partition("=") for part in header.split(",") if "=" in part]
    return {names[name]: value for name, _, value in told if name in names}


def _named(fields: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    name = query.get("name") or fields.get("name")
    if not name:
        raise StorageError(400, "Required parameter: name")
    return dict(fields) | {"name": name}


def _multipart(call: StorageCall) -> tuple[dict[str, Any], bytes]:
    """The two parts of `multipart/related`: the object's fields as JSON, and its bytes."""
    boundary = re.search(r'boundary="?([^";]+)', call.headers.get("Content-Type", ""))
    parts = call.body.split(b"--" + boundary.group(1).encode()) if boundary else []
    if len(parts) != 4:
        raise StorageError(400, "Malformed multipart body.")
    told, media = (part.removeprefix(b"\r\n").removesuffix(b"\r\n") for part in parts[1:3])
    fields: dict[str, Any] = json.loads(told.partition(b"\r\n\r\n")[2])
    head, _, data = media.partition(b"\r\n\r\n")
    sent_as = BytesHeaderParser().parsebytes(head).get("Content-Type")
    return {"contentType": sent_as} | fields, data


def _content_range(call: StorageCall) -> tuple[int | None, int | None]:
    """The first byte of this part (None: no bytes) and the total (None: not known yet)."""
    told = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", call.headers.get("Content-Range", "bytes */*")
    )
    if told is None:
        raise StorageError(400, "Failed to parse Content-Range header.")
    if "Content-Range" not in call.headers:
        return 0, len(call.body)
    first, total = told.groups()
    return (int(first) if first else None), (None if total == "*" else int(total))


def _media(stored: StoredObject, asked: str | None) -> Reply:
    """The object's bytes, or the range asked for."""
    headers = {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.generation}"',
        "Accept-Ranges": "bytes",
        "X-Goog-Hash": stored.hashes,
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Metageneration": str(stored.metageneration),
        "X-Goog-Stored-Content-Length": str(len(stored.data)),
        "X-Goog-Stored-Content-Encoding": "identity",
    }
    size = len(stored.data)
    told = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if told is None or told.groups() == ("", ""):
        return Reply(200, headers, stored.data)
    first, last = told.groups()
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if begin > end:
        raise StorageError(416, "The requested range cannot be satisfied.", "InvalidRange")
    headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
    return Reply(206, headers, stored.data[begin : end + 1])


def _json(value: Mapping[str, Any]) -> Reply:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    return Reply(200, headers, json.dumps(value).encode())


def _json_error(error: StorageError) -> Reply:
    reason = REASONS.get(error.status, "backendError")
    told = {"message": error.message, "domain": "global", "reason": reason}
    body = {"error": {"code": error.status, "message": error.message, "errors": [told]}}
    return replace(_json(body), status=error.status)


def _xml_error(error: StorageError) -> Reply:
    """As the XML API answers, which is what a plain URL reaches."""
    code, message = escape(error.code or "InternalError"), escape(error.message)
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
    body += f"<Message>{message}</Message></Error>"
    return Reply(error.status, {"Content-Type": "application/xml; charset=UTF-8"}, body.encode())


def _is_plain(path: str) -> bool:
    return not path.startswith(API)


def _matcher(path: str, method: str | None) -> Callable[[StorageCall], bool]:
    return lambda call: path in unquote(call.path) and method in (None, call.method)


def _rfc3339(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _StorageHandler(Handler):
    storage: StorageServer

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = dict(parse_qsl(query, keep_blank_values=True))
        call = StorageCall(self.command, path, asked, self.headers, body)
        reply = self.storage.answer(call)
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            left = len(reply.body) if call.cut_after is None else call.cut_after
            for block in blocks(reply.body):
                self.wfile.write(block[: max(left, 0)])
                left -= len(block)
        if call.cut_after is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve
