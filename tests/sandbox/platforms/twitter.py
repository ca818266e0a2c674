"""X's API v2, as far as we use it.

What it is strict about: unknown fields, the weighted length, media of another account or older
than a day, copies of a recent post, refresh tokens that were used before.
"""

from __future__ import annotations

import base64
import html
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import (
    Dialect,
    Pieces,
    Route,
    check_fields,
    content_type_of,
    multipart,
)
from tests.sandbox.platforms.values import Answer, Content, Media, Post, Received, Refused, Token

FIRST_SNOWFLAKE = datetime.fromtimestamp(1288834974.657, UTC)
TEXT_WEIGHT = 280
ALONE = ("image/gif", "video/mp4")
IMAGE_BYTES = 5 * 1024 * 1024
MEDIA_LIFE = timedelta(hours=24)
PROBLEMS = "https://api.x.com/2/problems"
POST_FIELDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "media": dict,
    "reply": dict,
    "reply_settings": str,
    "made_with_ai": bool,
    "paid_partnership": bool,
}


class TwitterDialect(Dialect):
    name = "twitter"
    access_life = timedelta(hours=2)

    def clear(self) -> None:
        super().clear()
        self.fields_name = "tweet.fields"  # "post.fields" from version 2.167 of the API
        self._owners: dict[str, tuple[str, datetime]] = {}  # media id to account, end
        self._begun: dict[str, dict[str, Any]] = {}  # what was said of a media id at first
        self._chunks: dict[str, Pieces] = {}
        self._polls: dict[str, int] = {}  # how often a GIF or video will still be in progress

    def make_routes(self) -> list[Route]:
        cls = TwitterDialect
        return [
            Route("POST /2/tweets", "create post", cls.create_post),
            Route("GET /2/tweets", "read metrics", metrics.of_x),
            Route("GET /2/users/{id}/tweets", "find post", cls.find_posts),
            Route("POST /2/media/upload", "upload", cls.upload),
            Route("GET /2/media/upload", "read media", cls.read_media),
            Route("POST /2/media/upload/initialize", "begin upload", cls.begin_upload),
            Route("POST /2/media/upload/{id}/append", "upload", cls.append),
            Route("POST /2/media/upload/{id}/finalize", "end upload", cls.finalize),
            Route("POST /2/media/metadata", "describe media", cls.describe),
            Route("POST /2/oauth2/token", "refresh", cls.refresh),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        titles = {400: "Invalid Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
        title = titles.get(status, "Error")
        problem = {"title": title, "detail": message, "type": "about:blank", "status": status}
        headers = {
            "Content-Type": "application/problem+json",
            "x-transaction-id": secrets.token_hex(8),
        }
        return Answer(status, problem | more, headers)

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        reset = str(int(self.clock.now().timestamp()) + seconds)
        kind = "x-rate-limit"
        if daily:
            kind = "x-app-limit-24hour" if scope == "platform" else "x-user-limit-24hour"
        refused = self.failure(429, "Too Many Requests", title="Too Many Requests")
        limits = {f"{kind}-limit": "100", f"{kind}-remaining": "0", f"{kind}-reset": reset}
        return Answer(429, refused.body, {**refused.headers, **limits})

    def without_id(self, answer: Answer) -> Answer:
        data = {name: value for name, value in answer.body["data"].items() if name != "id"}
        return Answer(answer.status, {"data": data}, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        return self.failure(401, "Unauthorized")

    def invalid_parameter(self, name: str, message: str) -> Refused:
        return self._invalid(message, {name: [""]})

    def _invalid(self, message: str, parameters: dict[str, list[str]] | None = None) -> Refused:
        errors = [{"parameters": parameters or {}, "message": message}]
        detail = "One or more parameters to your request was invalid."
        more = {"errors": errors, "type": f"{PROBLEMS}/invalid-request"}
        return Refused(self.failure(400, detail, **more))

    # calls

    def _account(self, received: Received) -> tuple[Token, str]:
        token = self.authorize(received)
        return token, next(iter(token.user_ids))

    def _object(self, received: Received, names: dict[str, Any], *required: str) -> dict[str, Any]:
        try:
            body = received.json() if received.content_type == "application/json" else None
        except ValueError:
            body = None
        wrong = check_fields(body, names, required)
        if wrong or body is None:
            raise self._invalid(wrong or "the body is not JSON")
        return dict(body)

    def _parts(self, received: Received) -> tuple[dict[str, str], bytes]:
        """The fields of a multipart body, and its `media`."""
        try:
            form, files = multipart(received)
        except ValueError as error:
            raise self._invalid(str(error)) from None
        if set(files) != {"media"}:
            raise self._invalid("media is required")
        return form, files["media"].body

    def create_post(self, received: Received) -> Answer:
        _, account = self._account(received)
        body = self._object(received, POST_FIELDS)
        text = body.get("text", "")
        media = self._attached(account, body.get("media"))
        self._check_reply(body.get("reply"))
        settings = ("following", "mentionedUsers", "subscribers", "verified")
        if body.get("reply_settings", settings[0]) not in settings:
            raise self._invalid("$.reply_settings: does not have a value in the enumeration")
        if not text and not media:
            raise self._invalid("Your Tweet text is missing. The `text` field is required.")
        if weight(text) > TEXT_WEIGHT:
            message = "Your Tweet text is too long. For more information on how we count, see docs."
            raise Refused(self.failure(403, message))
        if self.duplicate_of(account, text, media) is not None:
            message = "You are not allowed to create a Tweet with duplicate content."
            raise Refused(self.failure(403, message))
        post = Post(
            platform=self.name,
            id=str(self.number(FIRST_SNOWFLAKE)),
            account=account,
            text=text,
            at=received.at,
            media=media,
            headers=received.headers,
            fields=body,
        )
        self.posts.append(post)
        data = {"id": post.id, "text": _shown(post), "edit_history_tweet_ids": [post.id]}
        return Answer(201, {"data": data}, {"x-transaction-id": secrets.token_hex(8)})

    def _check_reply(self, reply: dict[str, Any] | None) -> None:
        if reply is None:
            return
        names: dict[str, Any] = {"in_reply_to_tweet_id": str, "exclude_reply_user_ids": list}
        wrong = check_fields(reply, names, ("in_reply_to_tweet_id",))
        if wrong or not re.fullmatch(r"[0-9]{1,19}", reply["in_reply_to_tweet_id"]):
            raise self._invalid(wrong or "$.reply.in_reply_to_tweet_id: does not match the pattern")
        if all(post.id != reply["in_reply_to_tweet_id"] for post in self.posts):
            message = "You attempted to reply to a Tweet that is deleted or not visible to you."
            raise Refused(self.failure(403, message))

    def _attached(self, account: str, media: dict[str, Any] | None) -> tuple[Media, ...]:
        if media is None:
            return ()
        wrong = check_fields(media, {"media_ids": list, "tagged_user_ids": list}, ("media_ids",))
        if wrong or not 1 <= len(media["media_ids"]) <= 4:
            raise self._invalid(wrong or "$.media.media_ids: takes 1 to 4 items")
        held = []
        for media_id in media["media_ids"]:
            owner, ends_at = self._owners.get(media_id, ("", FIRST_SNOWFLAKE))
            if owner != account or self.clock.now() >= ends_at or media_id not in self.media:
                raise Refused(self.failure(400, "Your media IDs are invalid."))
            held.append(self.media[media_id])
        if len(held) > 1 and any(item.content_type in ALONE for item in held):
            raise Refused(self.failure(400, "You may attach up to 4 photos, or 1 animated GIF."))
        return tuple(held)

    def find_posts(self, received: Received) -> Answer:
        token, account = self._account(received)
        params = received.params
        known = {"max_results", "start_time", "end_time", "exclude", "since_id", "until_id"}
        unknown = sorted(set(params) - known - {self.fields_name})
        if unknown:
            message = f"The query parameter [{unknown[0]}] is not one of [{sorted(known)}]"
            raise self.invalid_parameter(unknown[0], message)
        fields = params.get(self.fields_name, "")
        if fields not in ("", "conversation_id"):
            raise self._invalid(f"{self.fields_name}: {fields} is not played here")
        most = int(params.get("max_results", "10"))
        start = params.get("start_time", "2010-11-06T00:00:00Z")
        if not 5 <= most <= 100 or not re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", start):
            raise self._invalid("max_results or start_time is not valid")
        if received.parts["id"] not in token.user_ids:
            return Answer(200, {"meta": {"result_count": 0}})
        since = datetime.fromisoformat(start)
        own = [p for p in reversed(self.posts) if p.account == account and p.at >= since][:most]
        if not own:
            return Answer(200, {"meta": {"result_count": 0}})
        data = [
            {"id": p.id, "text": _shown(p), "edit_history_tweet_ids": [p.id]}
            | ({"conversation_id": self._conversation(p)} if fields else {})
            for p in own
        ]
        meta = {"result_count": len(own), "newest_id": own[0].id, "oldest_id": own[-1].id}
        return Answer(200, {"data": data, "meta": meta})

    def _conversation(self, post: Post) -> str:
        """The id of the post that began it."""
        above = post.fields.get("reply", {}).get("in_reply_to_tweet_id")
        parent = next((one for one in self.posts if one.id == above), None)
        return self._conversation(parent) if parent else above or post.id

    # media

    def upload(self, received: Received) -> Answer:
        _, account = self._account(received)
        form, body = self._parts(received)
        if form != {"media_category": "tweet_image"}:
            raise self._invalid(f"$.media_category: cannot take {form}")
        content_type = content_type_of(body)
        if content_type not in ("image/jpeg", "image/png", "image/webp"):
            raise Refused(self.failure(400, "media type unrecognized."))
        if len(body) > IMAGE_BYTES:
            raise Refused(self.failure(413, "The image is too large."))
        media_id = str(self.number(FIRST_SNOWFLAKE))
        return self._taken(account, media_id, Content.of([body]), content_type, 0)

    def begin_upload(self, received: Received) -> Answer:
        _, account = self._account(received)
        names = {"media_category": str, "media_type": str, "total_bytes": int, "shared": bool}
        body = self._object(received, names)
        kinds = {("tweet_gif", "image/gif"), ("tweet_video", "video/mp4")}
        if (body.get("media_category"), body.get("media_type")) not in kinds:
            raise self._invalid("$.media_type: only GIFs and videos come in chunks")
        media_id = str(self.number(FIRST_SNOWFLAKE))
        life = int(MEDIA_LIFE.total_seconds())
        self._owners[media_id] = (account, self.clock.now() + MEDIA_LIFE)
        self._chunks[media_id], self._begun[media_id] = Pieces(IMAGE_BYTES), body
        data = {"id": media_id, "media_key": f"16_{media_id}", "expires_after_secs": life}
        return Answer(200, {"data": data})

    def append(self, received: Received) -> Answer:
        media_id = self._own(received)
        form, body = self._parts(received)
        index = form.get("segment_index", "")
        if set(form) != {"segment_index"} or not index.isdigit() or len(body) > IMAGE_BYTES:
            raise self._invalid("$.segment_index: a number, with a chunk of at most 5 MB")
        self._chunks[media_id].put(int(index), body)
        expires_at = int(self._owners[media_id][1].timestamp())
        return Answer(200, {"data": {"expires_at": expires_at}})

    def finalize(self, received: Received) -> Answer:
        media_id = self._own(received)
        chunks, begun = self._chunks[media_id], self._begun[media_id]
        content, indexes = chunks.content(), sorted(chunks.lengths)
        whole = begun.get("total_bytes", content.size_bytes) == content.size_bytes
        if indexes != list(range(len(indexes))) or not whole:
            raise Refused(self.failure(400, "Segments do not add up to provided total file size."))
        if content_type_of(content.head) != begun["media_type"]:
            raise Refused(self.failure(400, "media type unrecognized."))
        account = self._owners[media_id][0]
        return self._taken(account, media_id, content, begun["media_type"], received.polls)

    def _own(self, received: Received) -> str:
        _, account = self._account(received)
        media_id = received.parts["id"]
        if self._owners.get(media_id, ("", None))[0] != account or media_id not in self._chunks:
            raise Refused(self.failure(400, "The media id is not yours."))
        return media_id

    def _taken(
        self, account: str, media_id: str, content: Content, content_type: str, polls: int
    ) -> Answer:
        self._owners[media_id] = (account, self.clock.now() + MEDIA_LIFE)
        held = self.hold_media(media_id, content, content_type)
        self._polls[media_id] = polls
        return Answer(200, {"data": self._status(held)})

    def _status(self, held: Media) -> dict[str, Any]:
        life = int((self._owners[held.id][1] - self.clock.now()).total_seconds())
        data: dict[str, Any] = {
            "id": held.id,
            "media_key": f"3_{held.id}",
            "size": held.size_bytes,
            "expires_after_secs": life,
        }
        if not held.content_type.startswith("image/") or held.content_type == "image/gif":
            working = self._polls[held.id] > 0
            data["processing_info"] = (
                {"state": "in_progress", "check_after_secs": 1, "progress_percent": 8}
                if working
                else {"state": "succeeded", "progress_percent": 100}
            )
        return data

    def read_media(self, received: Received) -> Answer:
        _, account = self._account(received)
        params = received.params
        held = self.media.get(params.get("media_id", ""))
        if params.get("command") != "STATUS" or held is None or self._owners[held.id][0] != account:
            raise Refused(self.failure(400, "Invalid media id."))
        self._polls[held.id] = max(0, self._polls[held.id] - 1)
        return Answer(200, {"data": self._status(held)})

    def describe(self, received: Received) -> Answer:
        _, account = self._account(received)
        body = self._object(received, {"id": str, "metadata": dict}, "id")
        held = self.media.get(body["id"])
        text = body.get("metadata", {}).get("alt_text", {}).get("text", "")
        if held is None or self._owners[held.id][0] != account or len(text) > 1000:
            raise self._invalid("$.id: no such media, or $.metadata.alt_text.text is too long")
        self.media[held.id] = Media(
            id=held.id,
            content_type=held.content_type,
            size_bytes=held.size_bytes,
            sha256=held.sha256,
            alt_text=text,
        )
        associated = {"alt_text": {"text": text}}
        return Answer(200, {"data": {"id": held.id, "associated_metadata": associated}})

    def refresh(self, received: Received) -> Answer:
        form = received.form()
        pair = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if received.headers.get("authorization") != f"Basic {pair}":
            description = "Missing valid authorization header"
            body = {"error": "unauthorized_client", "error_description": description}
            return Answer(401, body)
        granted = None
        if set(form) == {"grant_type", "refresh_token"}:
            granted = self.exchange(form["refresh_token"], rotate=True)
        if granted is None or form["grant_type"] != "refresh_token":
            description = "Value passed for the token was invalid."
            return Answer(400, {"error": "invalid_request", "error_description": description})
        return Answer(200, granted | {"token_type": "bearer", "scope": "tweet.write media.write"})


def weight(text: str) -> int:
    """As X weighs it; a text that cannot be too long is not weighed."""
    if 2 * len(text) + 23 * text.count(".") <= TEXT_WEIGHT:
        return 0
    from twitter_text import parse_tweet  # half a second, once

    return int(parse_tweet(text).weightedLength)


def _shown(post: Post) -> str:
    """X's way: links shortened, the media's link appended, three characters escaped."""
    text = re.sub(r"https?://[^\s)]+", "https://t.co/Ab3dE6gH1j", post.text)
    if post.media:
        text = f"{text} https://t.co/Zz9yX8wV7u".strip()
    return html.escape(text, quote=False)
