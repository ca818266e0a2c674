"""Bluesky, by the AT Protocol: records in the account's repository, on its own server (PDS).

Source: the lexicons com.atproto.repo.*, com.atproto.server.refreshSession, app.bsky.feed.post,
app.bsky.feed.getPosts, app.bsky.richtext.facet, app.bsky.embed.*; https://docs.bsky.app/docs/tutorials/video,
…/docs/advanced-guides/rate-limits; the reference server (`@atproto/pds` 0.5.35) for what they
leave open.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

import httpx
from pydantic import Field

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    Problem,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Exact,
    Flow,
    Grant,
    Keep,
    Limits,
    MetricsFlow,
    MetricsQuery,
    Options,
    Platform,
    Published,
    Reading,
    RefreshFlow,
    Request,
    Step,
    Unread,
    answered_at,
    fields_of,
)
from shared.platforms.graphemes import graphemes

POSTS, GATES = "app.bsky.feed.post", "app.bsky.feed.threadgate"
TEXT_BYTES = 3000
IMAGE_BYTES = 2_000_000  # an upload may be larger; the record that shows it may not
VIDEO_BYTES = 50_000_000  # what a server of one's own takes unless told otherwise
ACCESS_LASTS = timedelta(minutes=120)
BLOBS_LAST = timedelta(minutes=5)  # "deleted if it is not referenced within (eg, minutes)"
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours
TOKEN_REFUSED = frozenset({"ExpiredToken", "InvalidToken", "AuthFactorTokenRequired"})  # by a 400

METRICS = {  # ours and theirs
    "likes": "likeCount",
    "shares": "repostCount",
    "comments": "replyCount",
    "quotes": "quoteCount",
    "saves": "bookmarkCount",
}

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
TID_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"

LINK = re.compile(r"(?<![A-Za-z0-9_@/.])https?://[^\s<>\"/?#][^\s<>\"。、！？「」『』（）【】]*")
AFTER_LINK = ".,;:!?'…"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
MENTION = re.compile(rf"(?<![^\s(])@((?:{_LABEL}\.)+[a-zA-Z](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)")
TAG = re.compile(r"(?<!\S)[#＃](?!\ufe0f)([^\s#＃\u00ad\u2060\u200a-\u200d\u20e2]+)")
TAG_CHARS, TAG_BYTES = 64, 640


class Card(Options):
    """A link card. Bluesky reads nothing from the page: what is not given here is not shown."""

    uri: str = Field(pattern=r"^https?://")
    title: str = Field(min_length=1, max_length=300)
    description: str = Field("", max_length=1000)


class BlueskyOptions(Options):
    """`replies`: who may reply, where not everyone; nobody, if it is empty."""

    langs: tuple[str, ...] = Field((), max_length=3)
    labels: tuple[Literal["porn", "sexual", "nudity", "graphic-media"], ...] = ()
    card: Card | None = None
    replies: tuple[Literal["mentioned", "followers", "following"], ...] | None = None


RULES = {"mentioned": "mentionRule", "followers": "followerRule", "following": "followingRule"}


class Bluesky(Platform):
    """`platform_user_id` is the account's DID, `server` the host of its PDS, as its DID document
    says.

    The record and its key are on record before they are written, so an unanswered call is settled
    by repeating it: the same record under the same key is written once. `createRecord` answers a
    repeat with a 500 and is not used.
    """

    name = "bluesky"
    label = "Bluesky"
    api_url = "https://{server}"
    guarantee = Exact(
        rests_on="the record's key, made and kept before it is written: the same record under the "
        "same key is written once",
        risk="none known; a record that its owner deletes in between comes back",
    )
    limits = Limits(
        text_chars=300,
        media_items=4,
        media_types={
            "image/jpeg": IMAGE_BYTES,
            "image/png": IMAGE_BYTES,
            "image/webp": IMAGE_BYTES,
            "video/mp4": VIDEO_BYTES,
        },
        text_unit="graphemes, at most 3000 bytes",
    )
    options = BlueskyOptions
    link_card = "card"
    lacks: ClassVar[Mapping[str, str]] = {
        "first comment": "the second part of a `thread` is one",
    }
    built_to = "its published lexicons"
    threads = True
    opening = frozenset({"card", "replies"})
    refreshes = True
    metrics_batch = 25

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        key, record = yield from self._prepare(delivery, token)
        # `swapRecord: null` creates and never edits: 400 InvalidSwap where another record stands.
        create = self._put(delivery, token, POSTS, key, record)
        reply = yield Call(create, "create post", commits=True)
        if reply.status_code == 400:  # let pass by `classify`
            return (yield from self._standing(delivery, token, key, record))
        uri = reply.json()["uri"]
        options = BlueskyOptions.model_validate(delivery.options)
        if options.replies is not None:
            # A failure leaves the outcome unknown: then the post is written again, which does
            # nothing, and this is made up for.
            gate = self._put(delivery, token, GATES, key, _gate(uri, record, options.replies))
            yield Call(gate, "limit replies")
        return Published(uri, _permalink(delivery, key), _instant(record["createdAt"]))

    def _prepare(
        self, delivery: Delivery, token: str
    ) -> Generator[Step, Any, tuple[str, dict[str, Any]]]:
        """The record and its key, kept: made once, unless nothing was sent and it has grown old."""
        began_at = delivery.attempted_at
        assert began_at is not None  # every attempt has begun
        state = dict(delivery.state)
        if delivery.unsettled_since is None and _grown_old(state, began_at):
            state = {}
        if "record" not in state:
            above = yield from self._above(delivery, token)
            at = _instant(state.get("at")) or _after(above, began_at)
            blobs = yield from self._upload(delivery, token, dict(state.get("blobs", {})), at)
            facets = yield from self._facets(delivery)
            record = _record(delivery, blobs, facets, at) | _reply(above)
            state = {"at": _iso(at), "key": tid(at, delivery.key), "record": record}
            yield Keep(state)
        return state["key"], state["record"]

    def _above(self, delivery: Delivery, token: str) -> Generator[Step, Any, dict[str, Any] | None]:
        """What this post replies to, as the server holds it."""
        if delivery.reply_to is None:
            return None
        repo, collection, key = delivery.reply_to.removeprefix("at://").split("/")
        params = {"repo": repo, "collection": collection, "rkey": key}
        url = self._xrpc(delivery.server, "com.atproto.repo.getRecord")
        reply = yield Call(Request("GET", url, _auth(token), params=params), "find post")
        if reply.status_code == 400:  # let pass by `classify`
            raise PermanentError("The post that this one replies to is gone", code="parent_gone")
        above: dict[str, Any] = reply.json()
        return above

    def _upload(
        self, delivery: Delivery, token: str, blobs: dict[str, Any], at: datetime
    ) -> Generator[Step, Any, dict[str, Any]]:
        for item in delivery.media:
            if item.id not in blobs:
                headers = _auth(token) | {"Content-Type": item.content_type}
                url = self._xrpc(delivery.server, "com.atproto.repo.uploadBlob")
                reply = yield Call(Request("POST", url, headers, media=item), "upload")
                blobs[item.id] = reply.json()["blob"]
                yield Keep({"at": _iso(at), "blobs": dict(blobs)})
        return blobs

    def _facets(self, delivery: Delivery) -> Generator[Step, Any, list[dict[str, Any]]]:
        """What in the text is alive. A mention whose handle leads to no account stays text."""
        dids: dict[str, str | None] = {}
        facets = []
        for span in spans(delivery.text):
            feature = {"$type": f"app.bsky.richtext.facet#{span.kind}", **span.feature}
            if span.kind == "mention":
                handle = span.feature["did"].lower()
                if handle not in dids:
                    url = self._xrpc(delivery.server, "com.atproto.identity.resolveHandle")
                    request = Request("GET", url, params={"handle": handle})
                    reply = yield Call(request, "resolve handle", optional=True)
                    dids[handle] = fields_of(reply).get("did") if reply is not None else None
                did = dids[handle]
                if did is None:
                    continue
                feature["did"] = did
            index = {"byteStart": span.start, "byteEnd": span.end}
            facets.append({"index": index, "features": [feature]})
        return facets

    def _put(
        self, delivery: Delivery, token: str, collection: str, key: str, record: dict[str, Any]
    ) -> Request:
        body = {
            "repo": delivery.platform_user_id,
            "collection": collection,
            "rkey": key,
            "record": record,
            "swapRecord": None,
        }
        url = self._xrpc(delivery.server, "com.atproto.repo.putRecord")
        return Request("POST", url, _auth(token), json=body)

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        state = delivery.state
        if delivery.unsettled_since is None or "record" not in state:
            raise OutcomeUnknownError("Nothing of this delivery is unsettled", code="not_unsettled")
        return (yield from self._standing(delivery, token, state["key"], state["record"]))

    def _standing(
        self, delivery: Delivery, token: str, key: str, record: Mapping[str, Any]
    ) -> Flow:
        """The post that stands under our key, if it is ours."""
        params = {"repo": delivery.platform_user_id, "collection": POSTS, "rkey": key}
        url = self._xrpc(delivery.server, "com.atproto.repo.getRecord")
        reply = yield Call(Request("GET", url, _auth(token), params=params), "find post")
        if reply.status_code == 400:  # let pass by `classify`
            raise OutcomeUnknownError("No record stands under this key", code="not_found")
        found = reply.json()
        theirs, made_at = found["value"], _instant(record["createdAt"])
        same = all(theirs.get(name) == record[name] for name in ("text", "createdAt"))
        since = delivery.unsettled_since
        if not same:
            raise OutcomeUnknownError("Another record stands under this key", code="key_taken")
        if since is not None and made_at is not None and made_at < since - CLOCKS_APART:
            made_at = None  # when the record was made, which may be long before it was sent
        return Published(found["uri"], _permalink(delivery, key), made_at, found=True)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        """The account's server hands the question on to the one that counts. What is gone is simply
        not among the answers."""
        uris = urlencode([("uris", uri) for uri in query.remote_ids])
        url = f"{self._xrpc(query.server, 'app.bsky.feed.getPosts')}?{uris}"
        reply = yield Call(Request("GET", url, _auth(token)), READ_METRICS)
        told = {post["uri"]: post for post in reply.json()["posts"]}
        for uri in query.remote_ids:
            if uri in told:
                numbers = {ours: told[uri].get(theirs) for ours, theirs in METRICS.items()}
                yield Reading(uri, numbers, answered_at(reply))
            else:
                yield Unread(uri, "not_found")

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        if tokens.refresh_token is None:
            raise AuthExpiredError("There is no refresh token", code="no_refresh_token")
        url = self._xrpc(tokens.server, "com.atproto.server.refreshSession")
        reply = yield Call(Request("POST", url, _auth(tokens.refresh_token)), "refresh")
        body = reply.json()
        # The refresh token just used lives on for two hours: an answer that is lost costs nothing.
        return Grant(body["accessJwt"], body["refreshJwt"], ACCESS_LASTS)

    def _xrpc(self, server: str | None, method: str) -> str:
        return f"{self.host(server)}/xrpc/{method}"

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            return None
        error = reply.json()["error"]
        if (call.name, error) in (("create post", "InvalidSwap"), ("find post", "RecordNotFound")):
            return None if status == 400 else super().classify(call, reply)
        if error in TOKEN_REFUSED:  # an access token that has ended is a 400
            return AuthExpiredError(self.said(call, reply), code=error, status=status)
        return super().classify(call, reply)

    def message(self, reply: httpx.Response) -> str:
        body = fields_of(reply)
        return str(body.get("message") or body.get("error") or super().message(reply))

    def code(self, reply: httpx.Response) -> str | None:
        error = fields_of(reply).get("error")
        return str(error) if error else None

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """`RateLimit-Reset`, in Unix seconds."""
        reset = reply.headers.get("RateLimit-Reset", "")
        if reset.isdigit() and len(reset) < 12:
            return datetime.fromtimestamp(int(reset), UTC)
        return super().reset_at(reply)

    # limits

    def text_length(self, text: str) -> int:
        return graphemes(text)

    def _check_text(self, draft: Draft) -> list[Problem]:
        size = len(draft.text.encode())
        if size <= TEXT_BYTES:
            return super()._check_text(draft)
        sentence = f"The text has {size} bytes; Bluesky takes at most {TEXT_BYTES}."
        return [Problem("content", "text_too_long", sentence)]

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        if draft.media and draft.options.get("card"):
            sentence = "A Bluesky post shows either a card or media, not both."
            problems.append(Problem("options.card", "media_mix", sentence))
        return problems


# --- the record ---------------------------------------------------------------------------------


def tid(at: datetime, key: str) -> str:
    """A record key: the microsecond, and ten bits that tell two deliveries of it apart."""
    microseconds = (at - UNIX) // timedelta(microseconds=1)
    salt = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) & 0x3FF
    number = ((microseconds << 10) | salt) & ((1 << 63) - 1)
    return "".join(TID_DIGITS[(number >> shift) & 31] for shift in range(60, -5, -5))


def _record(
    delivery: Delivery,
    blobs: Mapping[str, Any],
    facets: list[dict[str, Any]],
    at: datetime,
) -> dict[str, Any]:
    options = BlueskyOptions.model_validate(delivery.options)
    record: dict[str, Any] = {"$type": POSTS, "text": delivery.text, "createdAt": _iso(at)}
    if facets:
        record["facets"] = facets
    embed = _embed(delivery.media, blobs, options.card)
    if embed:
        record["embed"] = embed
    if options.langs:
        record["langs"] = list(options.langs)
    if options.labels:
        values = [{"val": label} for label in options.labels]
        record["labels"] = {"$type": "com.atproto.label.defs#selfLabels", "values": values}
    return record


def _reply(above: Mapping[str, Any] | None) -> dict[str, Any]:
    """A reply names what it replies to and what began the thread, which that one names too."""
    if above is None:
        return {}
    parent = {"uri": above["uri"], "cid": above["cid"]}
    root = above["value"].get("reply", {}).get("root", parent)
    return {"reply": {"root": root, "parent": parent}}


def _after(above: Mapping[str, Any] | None, at: datetime) -> datetime:
    """`at`, or just after what is replied to: threads are shown, and keys made, by this time."""
    made_at = _instant(above["value"].get("createdAt")) if above else None
    return max(at, made_at + timedelta(milliseconds=1)) if made_at else at


def _embed(
    media: tuple[MediaItem, ...], blobs: Mapping[str, Any], card: Card | None
) -> dict[str, Any] | None:
    if media and media[0].is_video:
        video = {"$type": "app.bsky.embed.video", "video": blobs[media[0].id]}
        if media[0].alt_text:
            video["alt"] = media[0].alt_text
        return video | _shape(media[0])
    if media:
        images = [
            {"image": blobs[item.id], "alt": item.alt_text or "", **_shape(item)} for item in media
        ]
        return {"$type": "app.bsky.embed.images", "images": images}
    if card:
        return {"$type": "app.bsky.embed.external", "external": card.model_dump()}
    return None


def _shape(item: MediaItem) -> dict[str, Any]:
    if not item.width or not item.height:
        return {}
    return {"aspectRatio": {"width": item.width, "height": item.height}}


def _gate(uri: str, record: Mapping[str, Any], replies: tuple[str, ...]) -> dict[str, Any]:
    rules = [{"$type": f"{GATES}#{RULES[who]}"} for who in replies]
    return {"$type": GATES, "post": uri, "allow": rules, "createdAt": record["createdAt"]}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the text that is alive: from byte to byte of its UTF-8."""

    start: int
    end: int
    kind: Literal["link", "mention", "tag"]
    feature: Mapping[str, str]  # of a mention the handle, still to be resolved


def spans(text: str) -> list[Span]:
    """Links, mentions and tags, in their order."""
    alive, reached = [], 0
    for start, end, kind, name, value in sorted([*_links(text), *_mentions(text), *_tags(text)]):
        if start >= reached:
            first, last = len(text[:start].encode()), len(text[:end].encode())
            alive.append(Span(first, last, kind, {name: value}))
            reached = end
    return alive


_Found = Iterator[tuple[int, int, Literal["link", "mention", "tag"], str, str]]


def _links(text: str) -> _Found:
    for found in LINK.finditer(text):
        uri = found[0].rstrip(AFTER_LINK)
        while uri.endswith(")") and uri.count(")") > uri.count("("):
            uri = uri[:-1].rstrip(AFTER_LINK)
        yield found.start(), found.start() + len(uri), "link", "uri", uri


def _mentions(text: str) -> _Found:
    for found in MENTION.finditer(text):
        yield found.start(), found.end(), "mention", "did", found[1]


def _tags(text: str) -> _Found:
    for found in TAG.finditer(text):
        tag = found[1]
        while tag and unicodedata.category(tag[-1]).startswith("P"):
            tag = tag[:-1]
        fits = len(tag) <= TAG_CHARS and len(tag.encode()) <= TAG_BYTES
        if fits and any(not letter.isdigit() for letter in tag):
            yield found.start(), found.start(1) + len(tag), "tag", "tag", tag


# --- small words --------------------------------------------------------------------------------


def _grown_old(state: Mapping[str, Any], now: datetime) -> bool:
    """Its blobs may be gone, and a post that says it is older stands lower in every feed."""
    at = _instant(state.get("at"))
    return at is not None and now - at > BLOBS_LAST


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _permalink(delivery: Delivery, key: str) -> str:
    name = (delivery.handle or "").lstrip("@") or delivery.platform_user_id
    return f"https://bsky.app/profile/{name}/post/{key}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant(timestamp: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(timestamp))
    except ValueError:
        return None
