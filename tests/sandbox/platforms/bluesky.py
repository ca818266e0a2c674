"""A PDS of the AT Protocol, as far as we use it; every server under its own first segment.

What it is strict about: keys that are no TIDs, records over the lexicon's limits, facets that cut
a letter in two, blobs that were never uploaded or are gone, and that `putRecord` with `swapRecord:
null` creates only. As the reference server, it answers 400 to a token that has ended, and lets a
used refresh token live on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import regex

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import Dialect, Route, check_fields
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

TID = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
GRAPHEMES, BYTES = 300, 3000
IMAGE_BYTES = 2_000_000
BLOB_LIFE = timedelta(minutes=15)
ERRORS = {400: "InvalidRequest", 401: "AuthMissing", 403: "Forbidden", 404: "XRPCNotSupported"}
POST_FIELDS: dict[str, type | tuple[type, ...]] = {
    "$type": str,
    "text": str,
    "createdAt": str,
    "facets": list,
    "embed": dict,
    "langs": list,
    "labels": dict,
    "reply": dict,
}
WRITE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "repo": str,
    "collection": str,
    "rkey": str,
    "record": dict,
    "swapRecord": (str, type(None)),
}


class BlueskyDialect(Dialect):
    name = "bluesky"
    user_id = "did:plc:acme{}"
    access_life = timedelta(minutes=120)

    def clear(self) -> None:
        super().clear()
        self.handles: dict[str, str] = {}  # to DIDs
        self.records: dict[tuple[str, str, str], dict[str, Any]] = {}  # by repo, collection, key
        self._blobs: dict[tuple[str, str], datetime] = {}  # whose, by link: until when

    def make_routes(self) -> list[Route]:
        cls, xrpc = BlueskyDialect, "/{server}/xrpc"
        return [
            Route(f"POST {xrpc}/com.atproto.repo.uploadBlob", "upload", cls.upload),
            Route(f"POST {xrpc}/com.atproto.repo.putRecord", "create post", cls.put_record),
            Route(f"GET {xrpc}/com.atproto.repo.getRecord", "find post", cls.get_record),
            Route(f"GET {xrpc}/app.bsky.feed.getPosts", "read metrics", metrics.of_bluesky),
            Route(f"POST {xrpc}/com.atproto.server.refreshSession", "refresh", cls.refresh),
            Route(f"GET {xrpc}/com.atproto.identity.resolveHandle", "resolve handle", cls.resolve),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        error = ERRORS.get(status, "InternalServerError")
        return Answer(status, {"error": error, "message": message} | more)

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        headers = {
            "RateLimit-Limit": "5000",
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(int(self.clock.now().timestamp()) + seconds),
            "RateLimit-Policy": "5000;w=3600",
            "Retry-After": str(seconds),
        }
        refused = self.failure(429, "Rate Limit Exceeded", error="RateLimitExceeded")
        return Answer(429, refused.body, headers)

    def without_id(self, answer: Answer) -> Answer:
        return Answer(answer.status, {"cid": answer.body["cid"]}, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        if token is not None and not token.revoked:
            return self.failure(400, "Token has expired", error="ExpiredToken")
        return self.failure(400, "Token could not be verified", error="InvalidToken")

    def invalid(self, message: str, error: str = "InvalidRequest") -> Refused:
        return Refused(self.failure(400, message, error=error))

    def records_cid(self, uri: str) -> str:
        repo, collection, key = uri.removeprefix("at://").split("/")
        return cid(json.dumps(self.records[repo, collection, key]).encode())

    # calls

    def account(self, received: Received) -> str:
        if received.token is None:
            raise Refused(self.failure(401, "Authentication Required"))
        return next(iter(self.authorize(received).user_ids))

    def upload(self, received: Received) -> Answer:
        account = self.account(received)
        link = cid_of(bytes.fromhex(received.content.sha256))
        self.hold_media(link, received.content, received.content_type)
        self._blobs[account, link] = received.at + BLOB_LIFE
        blob = {
            "$type": "blob",
            "ref": {"$link": link},
            "mimeType": received.content_type,
            "size": received.content.size_bytes,
        }
        return Answer(200, {"blob": blob})

    def put_record(self, received: Received) -> Answer:
        account = self.account(received)
        try:
            body = received.json()
        except ValueError:
            raise self.invalid("Request body is not JSON") from None
        wrong = check_fields(body, WRITE_FIELDS, ("repo", "collection", "rkey", "record"))
        if wrong:
            raise self.invalid(f"Input/{wrong}")
        if body["repo"] != account:
            raise Refused(self.failure(403, "Could not find account", error="AccountNotFound"))
        if not TID.fullmatch(body["rkey"]):
            raise self.invalid("Invalid TID string")
        place, record = (account, body["collection"], body["rkey"]), body["record"]
        before = self.records.get(place)
        if before != record and before is not None and body.get("swapRecord", "") is None:
            raise self.invalid("Record was at another version", "InvalidSwap")
        media = self._check(account, received, body, record) if before != record else ()
        uri = f"at://{'/'.join(place)}"
        answer = {"uri": uri, "cid": cid(json.dumps(record).encode())}
        if before == record:
            return Answer(200, answer)
        self.records[place] = record
        if body["collection"] == "app.bsky.feed.post":
            self._write(received, account, uri, record, media)
        commit = {"cid": cid(uri.encode()), "rev": body["rkey"]}
        return Answer(200, answer | {"commit": commit, "validationStatus": "valid"})

    def _write(
        self,
        received: Received,
        account: str,
        uri: str,
        record: dict[str, Any],
        media: tuple[Media, ...],
    ) -> None:
        self.posts = [post for post in self.posts if post.id != uri]
        post = Post(
            platform=self.name,
            id=uri,
            account=account,
            text=record["text"],
            at=received.at,
            media=media,
            headers=received.headers,
            fields=record | {"server": received.parts["server"]},
        )
        self.posts.append(post)

    def _check(
        self, account: str, received: Received, body: dict[str, Any], record: dict[str, Any]
    ) -> tuple[Media, ...]:
        if record.get("$type") != body["collection"]:
            raise self.invalid(f"Invalid $type: expected {body['collection']}", "InvalidRecord")
        if body["collection"] == "app.bsky.feed.threadgate":
            if not str(record.get("post", "")).endswith(f"/{body['rkey']}"):
                raise self.invalid("Record/post is not the post of this key", "InvalidRecord")
            return ()
        wrong = check_fields(record, POST_FIELDS, ("text", "createdAt"))
        if wrong:
            raise self.invalid(f"Invalid {body['collection']} record: Record/{wrong}")
        if len(regex.findall(r"\X", record["text"])) > GRAPHEMES:
            raise self.invalid("Record/text must not be longer than 300 graphemes")
        if len(record["text"].encode()) > BYTES:
            raise self.invalid("Record/text must not be longer than 3000 characters")
        if "reply" in record:
            self._check_reply(record["reply"])
        for facet in record.get("facets", []):
            self._check_facet(record["text"].encode(), facet["index"])
        return self._shown(account, received.at, record.get("embed"))

    def _check_reply(self, reply: dict[str, Any]) -> None:
        """Root and parent, each with its uri and cid. A server does not look whether they are
        there; this one does, since no reader would show such a reply."""
        wrong = check_fields(reply, {"root": dict, "parent": dict}, ("root", "parent"))
        for name, ref in reply.items() if not wrong else ():
            wrong = wrong or check_fields(ref, {"uri": str, "cid": str}, ("uri", "cid"))
            if not wrong:
                record = self.records.get(tuple(ref["uri"].removeprefix("at://").split("/")))
                if record is None or self.records_cid(ref["uri"]) != ref["cid"]:
                    wrong = f"{name} is no record of this version"
        if wrong:
            raise self.invalid(f"Invalid app.bsky.feed.post record: Record/reply/{wrong}")

    def _check_facet(self, text: bytes, index: dict[str, int]) -> None:
        try:
            if not text[index["byteStart"] : index["byteEnd"]].decode():
                raise ValueError("an empty slice")
        except ValueError as error:
            raise self.invalid(f"Record/facets do not fit the text: {error}") from None

    def _shown(self, account: str, at: datetime, embed: Any) -> tuple[Media, ...]:
        if embed is None or embed["$type"] == "app.bsky.embed.external":
            return ()
        if embed["$type"] == "app.bsky.embed.video":
            return (self._blob(account, at, embed["video"], embed.get("alt")),)
        images = embed["images"]
        if len(images) > 4:
            raise self.invalid("Record/embed/images must not have more than 4 elements")
        if any(image["image"]["size"] > IMAGE_BYTES for image in images):
            raise self.invalid("This file is too large. It is limited to 2 MB.", "BlobTooLarge")
        return tuple(self._blob(account, at, image["image"], image["alt"]) for image in images)

    def _blob(self, account: str, at: datetime, blob: dict[str, Any], alt: str | None) -> Media:
        link = blob["ref"]["$link"]
        if at >= self._blobs.get((account, link), at):
            raise self.invalid(f"Could not find blob: {link}", "BlobNotFound")
        return replace(self.media[link], alt_text=alt or None)

    def get_record(self, received: Received) -> Answer:
        params = received.params
        place = (params["repo"], params["collection"], params["rkey"])
        record = self.records.get(place)
        uri = f"at://{'/'.join(place)}"
        if record is None:
            raise self.invalid(f"Could not locate record: {uri}", "RecordNotFound")
        return Answer(200, {"uri": uri, "cid": self.records_cid(uri), "value": record})

    def resolve(self, received: Received) -> Answer:
        did = self.handles.get(received.params["handle"])
        if did is None:
            raise self.invalid("Unable to resolve handle", "HandleNotFound")
        return Answer(200, {"did": did})

    def refresh(self, received: Received) -> Answer:
        granted = self.exchange(received.token or "", rotate=False)
        if granted is None or received.body:
            raise Refused(self.failure(400, "Token has been revoked", error="ExpiredToken"))
        access = granted["access_token"]
        newer = f"bluesky-refresh-{secrets.token_hex(8)}"  # the one just used lives on for a while
        self.refresh_tokens[newer] = access
        did = next(iter(self.tokens[access].user_ids))
        session = {"accessJwt": access, "refreshJwt": newer, "handle": "acme.example", "did": did}
        return Answer(200, session | {"active": True})


def cid(body: bytes) -> str:
    return cid_of(hashlib.sha256(body).digest())


def cid_of(digest: bytes) -> str:
    return "bafkrei" + base64.b32encode(digest).decode().rstrip("=").lower()
