"""Discord's messages and webhooks, as far as we use them.

What it is strict about: who asks, a user agent that names a bot, text as it counts it, files that
no attachment names. A bot's nonce is remembered for a few minutes; a webhook has none, and answers
nothing unless it is told to `wait`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import (
    Dialect,
    Part,
    Route,
    check_fields,
    content_type_of,
    multipart,
)
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
GUILD, HOOKED_CHANNEL = "290926798626357999", "41771983423143937"
CONTENT_CHARS = 2000
FILE_BYTES = 10 * 1024 * 1024
NONCE_LIFE = timedelta(minutes=3)
MESSAGE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "content": str,
    "allowed_mentions": dict,
    "attachments": list,
    "flags": int,
}
BOT_FIELDS = MESSAGE_FIELDS | {"nonce": str, "enforce_nonce": bool}
WEBHOOK_FIELDS = MESSAGE_FIELDS | {"username": str, "avatar_url": str, "thread_name": str}


class DiscordDialect(Dialect):
    name = "discord"
    user_id = "41771983423{:06d}"
    access_life = timedelta(days=3650)  # until it is revoked

    def clear(self) -> None:
        super().clear()
        self._nonces: dict[tuple[str, str], tuple[datetime, Post]] = {}

    def make_routes(self) -> list[Route]:
        cls = DiscordDialect
        return [
            Route("POST /channels/{channel}/messages", "create post", cls.create_message),
            Route("GET /channels/{channel}/messages", "find post", cls.find_messages),
            Route("GET /channels/{channel}", "read channel", cls.read_channel),
            Route("GET /channels/{channel}/messages/{id}", "read metrics", metrics.of_discord),
            Route("GET /webhooks/{hook}/{token}/messages/{id}", "read metrics", metrics.of_discord),
            Route("GET /users/@me", "who am I", cls.read_me),
            Route("POST /webhooks/{hook}/{token}", "create post", cls.execute),
            Route("GET /webhooks/{hook}/{token}", "read channel", cls.read_webhook),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        return Answer(status, {"message": message, "code": 0} | more)

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        everywhere = scope == "platform"
        headers = {
            "Retry-After": str(seconds),
            "X-RateLimit-Reset-After": f"{seconds}.25",
            "X-RateLimit-Scope": "global" if everywhere else "user",
        }
        body = {"retry_after": seconds + 0.25, "global": everywhere}
        refused = self.failure(429, "You are being rate limited.", **body)
        return Answer(429, refused.body, headers)

    def without_id(self, answer: Answer) -> Answer:
        body = {name: value for name, value in answer.body.items() if name != "id"}
        return Answer(answer.status, body, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        return self.failure(401, "401: Unauthorized")

    def _invalid(self, field: str, sentence: str) -> Refused:
        errors = {field: {"_errors": [{"code": "BASE_TYPE", "message": sentence}]}}
        return Refused(self.failure(400, "Invalid Form Body", code=50035, errors=errors))

    # who asks

    def bot(self, received: Received) -> str:
        self._known_agent(received)
        kind, _, access = received.headers.get("authorization", "").partition(" ")
        token = self.tokens.get(access)
        if kind != "Bot" or token is None or token.revoked:
            raise Refused(self.token_refused(token))
        channel = received.parts.get("channel")
        if channel is not None and channel not in token.user_ids:
            raise Refused(self.failure(403, "Missing Access", code=50001))
        return _number_of(access)

    def hook(self, received: Received) -> str:
        self._known_agent(received)
        hook, token = received.parts["hook"], self.tokens.get(received.parts["token"])
        if token is None or token.revoked:
            raise Refused(self.failure(401, "Invalid Webhook Token", code=50027))
        if f"webhook:{hook}" not in token.user_ids:
            raise Refused(self.failure(404, "Unknown Webhook", code=10015))
        return hook

    def _known_agent(self, received: Received) -> None:
        if not received.headers.get("user-agent", "").startswith("DiscordBot ("):
            raise Refused(self.failure(403, "internal network error", code=40333))

    # messages

    def create_message(self, received: Received) -> Answer:
        bot = self.bot(received)
        body, media = self._read(received, BOT_FIELDS)
        nonce = body.get("nonce", "")
        if len(nonce) > 25:
            raise self._invalid("nonce", "Must be 25 or fewer in length.")
        at, first = self._nonces.get((bot, nonce), (EPOCH, None))
        if body.get("enforce_nonce") and first is not None and received.at - at < NONCE_LIFE:
            return Answer(200, self.shown(first))
        post = self._post(received, bot, received.parts["channel"], body, media)
        if nonce:
            self._nonces[bot, nonce] = (received.at, post)
        return Answer(200, self.shown(post))

    def execute(self, received: Received) -> Answer:
        hook = self.hook(received)
        body, media = self._read(received, WEBHOOK_FIELDS)
        params = received.params
        if set(params) - {"wait", "thread_id"}:
            raise self._invalid("query", f"Unknown parameters in {sorted(params)}")
        channel = params.get("thread_id", HOOKED_CHANNEL)
        if "thread_name" in body:
            channel = str(self.number(EPOCH))
        post = self._post(received, f"webhook:{hook}", channel, body, media)
        return Answer(200, self.shown(post)) if params.get("wait") == "true" else Answer(204)

    def _post(
        self,
        received: Received,
        author: str,
        channel: str,
        body: dict[str, Any],
        media: tuple[Media, ...],
    ) -> Post:
        post = Post(
            platform=self.name,
            id=str(self.number(EPOCH)),
            account=channel,
            text=body.get("content", "").strip(),
            at=received.at,
            media=media,
            headers=received.headers,
            fields=body | {"author": author},
        )
        self.posts.append(post)
        return post

    def _read(
        self, received: Received, names: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[Media, ...]]:
        try:
            files: dict[str, Part] = {}
            if received.content_type == "multipart/form-data":
                form, files = multipart(received)
                body = json.loads(form["payload_json"])
            else:
                body = received.json()
        except (ValueError, KeyError):
            message = "The request body contains invalid JSON."
            raise Refused(self.failure(400, message, code=50109)) from None
        wrong = check_fields(body, names)
        if wrong:
            raise self._invalid("body", wrong)
        if not body.get("content", "").strip() and not files:
            raise Refused(self.failure(400, "Cannot send an empty message", code=50006))
        if len(body.get("content", "")) > CONTENT_CHARS:
            raise self._invalid("content", "Must be 2000 or fewer in length.")
        return body, self._attached(body.get("attachments", []), files)

    def _attached(
        self, attachments: list[dict[str, Any]], files: dict[str, Part]
    ) -> tuple[Media, ...]:
        if {f"files[{one['id']}]" for one in attachments} != set(files) or len(files) > 10:
            raise self._invalid("attachments", "Must be the files of the request, at most 10.")
        held = []
        for attachment in attachments:
            part = files[f"files[{attachment['id']}]"]
            if len(part.body) > FILE_BYTES:
                raise Refused(self.failure(413, "Request entity too large", code=40005))
            content_type = content_type_of(part.body) or part.content_type
            media = self.hold_media(str(self.number(EPOCH)), part.content, content_type)
            named = replace(
                media,
                url=f"https://cdn.example/{media.id}/{part.filename}",
                alt_text=attachment.get("description"),
            )
            held.append(named)
        return tuple(held)

    # reading

    def find_messages(self, received: Received) -> Answer:
        self.bot(received)
        params = received.params
        if set(params) - {"after", "limit"} or not 1 <= int(params.get("limit", "50")) <= 100:
            raise self._invalid("query", f"Unknown parameters or too many: {params}")
        after, channel = int(params.get("after", "0")), received.parts["channel"]
        later = [post for post in self.posts if post.account == channel and int(post.id) > after]
        nearest = later[: int(params.get("limit", "50"))]
        return Answer(200, [self.shown(post) for post in reversed(nearest)])

    def read_channel(self, received: Received) -> Answer:
        self.bot(received)
        about = {"type": 0, "flags": 0, "name": "bread", "position": 1}
        return Answer(200, {"id": received.parts["channel"], "guild_id": GUILD, **about})

    def read_webhook(self, received: Received) -> Answer:
        hook = self.hook(received)
        about = {"type": 1, "name": "Bread", "avatar": None, "application_id": None}
        place = {"channel_id": HOOKED_CHANNEL, "guild_id": GUILD}
        return Answer(200, {"id": hook, "token": received.parts["token"], **place, **about})

    def read_me(self, received: Received) -> Answer:
        bot = self.bot(received)
        return Answer(200, _user(bot) | {"mfa_enabled": False, "locale": "en-US", "bot": True})

    def shown(self, post: Post) -> dict[str, Any]:
        author = post.fields["author"].removeprefix("webhook:")
        shown = {
            "id": post.id,
            "type": 0,
            "channel_id": post.account,
            "author": _user(author),
            "content": post.text,
            "timestamp": post.at.astimezone(UTC).isoformat(),
            "edited_timestamp": None,
            "flags": post.fields.get("flags", 0),
            "attachments": [_attachment(item) for item in post.media],
            **{name: [] for name in ("mentions", "mention_roles", "embeds", "components")},
            **dict.fromkeys(("pinned", "mention_everyone", "tts"), False),
        }
        if author != post.fields["author"]:
            shown["webhook_id"] = author
        return shown


def _attachment(item: Media) -> dict[str, Any]:
    url = item.url or ""
    about = {"id": item.id, "size": item.size_bytes, "content_type": item.content_type}
    if item.alt_text:
        about["description"] = item.alt_text
    return about | {"filename": url.rpartition("/")[2], "url": url, "proxy_url": url}


def _user(number: str) -> dict[str, Any]:
    about = {"username": "bread", "discriminator": "0", "public_flags": 0, "flags": 0}
    nothing = dict.fromkeys(("avatar", "global_name", "primary_guild"))
    return {"id": number, **about, **nothing}


def _number_of(token: str) -> str:
    """A bot's number, from its token."""
    return str(int.from_bytes(token.encode()[:7].ljust(7, b".")))
