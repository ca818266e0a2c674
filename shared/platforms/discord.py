"""Discord: messages in one channel, by a bot or by the channel's webhook.

Source: https://discord.com/developers/docs/resources/message#create-message,
…/resources/webhook#execute-webhook, …/reference#uploading-files, …/topics/rate-limits,
…/topics/opcodes-and-status-codes.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
from pydantic import Field

from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Guarantee,
    Limits,
    MetricsFlow,
    MetricsQuery,
    NoGuarantee,
    Options,
    Platform,
    Published,
    Reading,
    Request,
    Step,
    Unread,
    Windowed,
    answered_at,
    fields_of,
)

MEGABYTE = 1024 * 1024
FILE_BYTES = 10 * MEGABYTE
REQUEST_BYTES = 25 * MEGABYTE
ALT_TEXT_CHARS = 1024
NONCE_CHARS = 25
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours
FIRST_SNOWFLAKE = datetime(2015, 1, 1, tzinfo=UTC)

# Without this form of it, Cloudflare stands between: {"message": "internal network error", 40333}.
USER_AGENT = "DiscordBot (TendSocialJobs, 1)"
SUPPRESS_EMBEDS, SUPPRESS_NOTIFICATIONS = 1 << 2, 1 << 12
WEBHOOK = "webhook:"
WEBHOOKS_GUARANTEE = NoGuarantee(
    rests_on="a person: a webhook takes no nonce and cannot read what it wrote",
    risk="no second message without a person's order",
)

TOKEN_REFUSED = frozenset({50014, 50027})  # a bot's; a webhook's
UNKNOWN_MESSAGE = 10008
THROTTLED = frozenset({20016, 20028, 20029})  # slow mode; what a channel, a guild may write
PASSING = frozenset({40006, 40333})  # switched off on their side; blocked before it


class DiscordOptions(Options):
    """The last four are for webhooks only; `thread_name` opens a thread in a forum channel."""

    suppress_embeds: bool = False
    silent: bool = False
    username: str | None = Field(None, min_length=1, max_length=80)
    avatar_url: str | None = Field(None, pattern=r"^https://", max_length=2048)
    thread_id: str | None = Field(None, pattern=r"^[1-9]\d*$")
    thread_name: str | None = Field(None, min_length=1, max_length=100)


FOR_WEBHOOKS = ("username", "avatar_url", "thread_id", "thread_name")


class Discord(Platform):
    """`platform_user_id` is the channel's id, with a bot's token; or `webhook:` and the webhook's
    id, with the webhook's token. `server` is the id of the guild, for the permalink.
    """

    name = "discord"
    label = "Discord"
    api_url = "https://discord.com/api/v10"
    # A bot's nonce is remembered for "a few minutes".
    guarantee = Windowed(
        earliest=timedelta(seconds=60),
        latest=timedelta(seconds=120),
        rests_on="the channel's messages, looked through first; then the nonce, which is "
        'remembered for "a few minutes"',
        risk="a second message where the first one is not to be seen after 60 s and its nonce is "
        "forgotten before 120 s",
    )
    account_kinds: ClassVar[Mapping[str, str]] = {
        "bot": "41771983423143937",
        "webhook": f"{WEBHOOK}2233",
    }
    limits = Limits(
        text_chars=2000,
        media_items=10,
        media_types={
            "image/jpeg": FILE_BYTES,
            "image/png": FILE_BYTES,
            "image/gif": FILE_BYTES,
            "image/webp": FILE_BYTES,
            "video/mp4": FILE_BYTES,
            "video/quicktime": FILE_BYTES,
            "video/webm": FILE_BYTES,
        },
        mixed_media=True,
        video_items=10,
    )
    options = DiscordOptions
    lacks: ClassVar[Mapping[str, str]] = {
        "link card": "Discord makes its own of a link in the text",
        "thread": "a channel is one conversation; its threads are channels of their own "
        "(`threadId`, `threadName`)",
        "first comment": "messages are answered by messages",
        "token refresh": "neither a bot's token nor a webhook's has an end",
    }
    built_to = "its published OpenAPI description"
    metrics_batch = 25  # one call each

    def guarantee_for(self, platform_user_id: str) -> Guarantee:
        """A webhook takes no nonce, and cannot read what it wrote."""
        return WEBHOOKS_GUARANTEE if _is_webhook(platform_user_id) else self.guarantee

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        options = DiscordOptions.model_validate(delivery.options)
        message = _message(delivery, options)
        params, part = None, "/messages"
        if _is_webhook(delivery.platform_user_id):
            # Without `wait` the answer is 204 with no id, whether or not the message was kept.
            params, part = {"wait": "true"}, ""
            if options.thread_id:
                params["thread_id"] = options.thread_id
            message |= options.model_dump(
                include={"username", "avatar_url", "thread_name"}, exclude_none=True
            )
        else:
            message |= {"nonce": _nonce(delivery.key), "enforce_nonce": True}
        create = self._request("POST", delivery.platform_user_id, token, part, params)
        reply = yield Call(_with_body(create, delivery, message), "create post", commits=True)
        sent = reply.json()
        link = yield from self._permalink(delivery, token, sent)
        return Published(sent["id"], link, _made_at(sent["id"]))

    def _permalink(
        self, delivery: Delivery, token: str, sent: Mapping[str, Any]
    ) -> Generator[Step, Any, str | None]:
        """A message does not name its guild; the channel, or the webhook, does."""
        message_id, channel, guild = sent["id"], sent.get("channel_id"), delivery.server
        if guild is None:
            read = self._request("GET", delivery.platform_user_id, token)
            reply = yield Call(read, "read channel", optional=True)
            guild = fields_of(reply).get("guild_id") if reply is not None else None
        if guild is None or channel is None:
            return None
        return f"https://discord.com/channels/{guild}/{channel}/{message_id}"

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if _is_webhook(delivery.platform_user_id) or delivery.unsettled_since is None:
            raise OutcomeUnknownError("A webhook cannot read messages", code="not_readable")
        since = delivery.unsettled_since - CLOCKS_APART
        me = Request("GET", f"{self.app.api_url}/users/@me", _bot(token))
        author = (yield Call(me, "who am I")).json()["id"]
        params = {"limit": "100", "after": str(_snowflake(since))}
        read = self._request("GET", delivery.platform_user_id, token, "/messages", params)
        reply = yield Call(read, "find post")
        found = [
            post
            for post in reply.json()
            if post["author"]["id"] == author
            and (made_at := _made_at(post["id"])) is not None
            and made_at >= since
            and post["content"] == delivery.text.strip()
            and len(post["attachments"]) == len(delivery.media)
        ]
        if len(found) != 1:
            message = f"{len(found)} messages of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        link = yield from self._permalink(delivery, token, found[0])
        return Published(found[0]["id"], link, _made_at(found[0]["id"]), found=True)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        """Reactions are all that a message tells; without any, it does not speak of them."""

        def ask(message_id: str) -> Request:
            account = query.platform_user_id
            return self._request("GET", account, token, f"/messages/{message_id}")

        def read(message_id: str, reply: httpx.Response) -> Reading | Unread:
            if reply.status_code == 404:  # let pass by `classify`
                return Unread(message_id, "not_found", self.message(reply))
            likes = sum(reaction["count"] for reaction in reply.json().get("reactions", []))
            return Reading(message_id, {"likes": likes}, answered_at(reply))

        return self.metrics_one_by_one(query.remote_ids, ask, read)

    def _request(
        self,
        method: str,
        account: str,
        token: str,
        part: str = "",
        params: Mapping[str, str] | None = None,
    ) -> Request:
        """To the channel, or to the webhook: that one's token is a part of its address."""
        if not _is_webhook(account):
            url = f"{self.app.api_url}/channels/{account}{part}"
            return Request(method, url, _bot(token), params)
        url = f"{self.app.api_url}/webhooks/{account.removeprefix(WEBHOOK)}/{token}{part}"
        return Request(method, url, {"User-Agent": USER_AGENT}, params, secrets=(token,))

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            return None
        body: Mapping[str, Any] = reply.json()
        number, _ = body.get("code", 0), body["message"]  # a page of a proxy has no such words
        if call.name == READ_METRICS and number == UNKNOWN_MESSAGE:
            return None
        about: dict[str, Any] = {"code": self.code(reply) or f"http_{status}", "status": status}
        message = self.said(call, reply)
        if number in TOKEN_REFUSED:
            return AuthExpiredError(message, **about)
        if status == 429 or number in THROTTLED:
            # Of a global limit, the bot's other channels have no more left than this one.
            scope: Any = "platform" if body.get("global") else "account"
            about["code"] = self.code(reply) or "throttled"
            return ThrottledError(message, until=self.reset_at(reply), scope=scope, **about)
        if number in PASSING:
            return TransientError(message, **about)
        return super().classify(call, reply)

    def message(self, reply: httpx.Response) -> str:
        body = fields_of(reply)
        sentence = body.get("message") or super().message(reply)
        return " ".join([str(sentence), *_details(body.get("errors"))])

    def code(self, reply: httpx.Response) -> str | None:
        number = fields_of(reply).get("code")
        return f"discord_{number}" if number else None

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """In seconds, with fractions: {"retry_after": 64.57, "global": false}"""
        waits = (fields_of(reply).get("retry_after"), reply.headers.get("X-RateLimit-Reset-After"))
        for wait in waits:
            try:
                return timedelta(seconds=float(wait))  # type: ignore[arg-type]
            except (TypeError, ValueError, OverflowError):
                continue
        return super().reset_at(reply)

    # limits

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        whole = sum(item.size_bytes or 0 for item in draft.media)
        if whole > REQUEST_BYTES:
            sentence = f"The media have {whole} bytes; Discord takes at most {REQUEST_BYTES}."
            problems.append(Problem("media", "media_too_large", sentence))
        for index, item in enumerate(draft.media):
            if len(item.alt_text or "") > ALT_TEXT_CHARS:
                sentence = f"Discord takes an alt text of at most {ALT_TEXT_CHARS} characters."
                problems.append(Problem(f"media[{index}]", "alt_text_too_long", sentence))
        return problems

    def _check_options(self, draft: Draft) -> list[Problem]:
        problems = super()._check_options(draft)
        account = draft.platform_user_id
        if problems or account is None or _is_webhook(account):
            return problems
        given = DiscordOptions.model_validate(draft.options)
        for name in FOR_WEBHOOKS:
            if getattr(given, name) is not None:
                alias = DiscordOptions.model_fields[name].alias or name
                sentence = f"{alias} is for webhooks; this account is a bot's channel."
                problems.append(Problem(f"options.{alias}", "option_invalid", sentence))
        return problems


def _is_webhook(platform_user_id: str) -> bool:
    return platform_user_id.startswith(WEBHOOK)


def _bot(token: str) -> dict[str, str]:
    return {"Authorization": f"Bot {token}", "User-Agent": USER_AGENT}


def _message(delivery: Delivery, options: DiscordOptions) -> dict[str, Any]:
    # Nobody is notified by what merely reads like a mention.
    message: dict[str, Any] = {"allowed_mentions": {"parse": []}}
    if delivery.text:
        message["content"] = delivery.text
    flags = options.suppress_embeds * SUPPRESS_EMBEDS | options.silent * SUPPRESS_NOTIFICATIONS
    if flags:
        message["flags"] = flags
    if delivery.media:
        message["attachments"] = [
            {"id": str(index)} | ({"description": item.alt_text} if item.alt_text else {})
            for index, item in enumerate(delivery.media)
        ]
    return message


def _with_body(request: Request, delivery: Delivery, message: dict[str, Any]) -> Request:
    """The message as JSON; beside its files, as one field of the form."""
    if not delivery.media:
        return replace(request, json=message)
    form = {"payload_json": json.dumps(message, ensure_ascii=False)}
    files = {f"files[{index}]": item for index, item in enumerate(delivery.media)}
    return replace(request, form=form, files=files)


def _nonce(key: str) -> str:
    return key.replace("-", "")[:NONCE_CHARS]


def _details(errors: Any) -> Iterator[str]:
    """What is wrong with which field: {"content": {"_errors": [{"code": …, "message": …}]}}"""
    if not isinstance(errors, dict):
        return
    for name, inner in errors.items():
        if name == "_errors":
            yield from (str(error["message"]) for error in inner if "message" in error)
        else:
            yield from (f"{name}: {detail}" for detail in _details(inner))


def _made_at(message_id: str) -> datetime | None:
    """The upper bits of a message's number are the milliseconds at which it was made."""
    milliseconds = int(message_id) >> 22 if message_id.isdigit() else 0
    if not 0 < milliseconds < 1 << 42:
        return None
    return FIRST_SNOWFLAKE + timedelta(milliseconds=milliseconds)


def _snowflake(at: datetime) -> int:
    """The smallest number of a message made then."""
    return int((at - FIRST_SNOWFLAKE) / timedelta(milliseconds=1)) << 22
