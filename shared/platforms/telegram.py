"""Telegram: messages in one chat, by a bot.

One call makes the post, its files included: a message, a picture or video with a caption, or an
album. A bot can read none of it back, and there is no key: what got no answer is a person's
business. Pictures have no alternative text here; theirs stays with us.

Source: https://core.telegram.org/bots/api#sendmessage, …#sendphoto, …#sendmediagroup,
…#html-style, …#responseparameters, https://core.telegram.org/bots/faq.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field

from shared.domain.failures import (
    AuthExpiredError,
    PermanentError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    Call,
    Delivery,
    Draft,
    Flow,
    Keep,
    Limits,
    NoGuarantee,
    Options,
    Platform,
    Published,
    Request,
    fields_of,
)

MEGABYTE = 1024 * 1024
ALBUM_BYTES = 100 * MEGABYTE  # a limit of ours: the call that makes the post has 20 s
CAPTION_UNITS = 1024
SIDES = 10_000  # width and height of a picture together
RATIO = 20  # of its longer to its shorter side
GIF = "image/gif"  # an animation, which no album takes
CHANNEL = "-100"  # how the ids of channels and supergroups begin

TAG = re.compile(r"<(?P<closes>/?)(?P<name>[a-z][a-z0-9-]*)(?:\s[^<>]*)?>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
TAGS = frozenset(
    {
        *("b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "a", "span", "tg-spoiler"),
        *("code", "pre", "blockquote", "tg-emoji", "tg-time"),
    }
)


class TelegramOptions(Options):
    """`parse_mode`: the text is Telegram's HTML; else it is shown as it is written.
    `message_thread_id` is a forum's topic."""

    parse_mode: Literal["HTML"] | None = None
    link_preview: bool = True
    disable_notification: bool = False
    protect_content: bool = False
    message_thread_id: int | None = Field(None, gt=0)


class Telegram(Platform):
    """`platform_user_id` is the chat, `@channel` or a number such as -1001234567890, the token the
    bot's, which is a part of every address. A post's id is the chat's number and the message's,
    which counts from 1 in each chat; an album's is that of its first message."""

    name = "telegram"
    label = "Telegram"
    api_url = "https://api.telegram.org"
    guarantee = NoGuarantee(
        rests_on="a person: a bot can read nothing back",
        risk="no second message without a person's order",
    )
    limits = Limits(
        text_chars=4096,  # UTF-16 units; beside files 1024
        text_unit="UTF-16 units, beside files 1024",
        media_items=10,
        media_types={
            "image/jpeg": 10 * MEGABYTE,
            "image/png": 10 * MEGABYTE,
            "image/webp": 10 * MEGABYTE,
            GIF: 50 * MEGABYTE,
            "video/mp4": 50 * MEGABYTE,
        },
        mixed_media=True,
        video_items=10,
    )
    options = TelegramOptions
    alt_text = False
    lacks: ClassVar[Mapping[str, str]] = {
        "link card": "Telegram makes its own of a link in the text; `linkPreview` says whether",
        "alt text": "there is none",
        "thread": "a channel has none; `messageThreadId` is a group's topic",
        "first comment": "comments are messages of the group that belongs to a channel",
        "metrics": "a bot is told nothing",
        "token refresh": "a bot's token has no end",
    }
    built_to = "a description that is made from its reference page"

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        chat = str(delivery.state.get("chat", delivery.platform_user_id))
        reply = yield self._create(chat, delivery, token)
        moved_to = _moved_to(reply)
        if moved_to is not None:  # refused: the group is a supergroup now, under another id
            yield Keep({"chat": moved_to})
            reply = yield self._create(moved_to, delivery, token)
        result = reply.json()["result"]
        first = result[0] if isinstance(result, list) else result
        message_id, shown_in = first["message_id"], first["chat"]
        return Published(
            remote_id=f"{shown_in['id']}:{message_id}",
            remote_url=_permalink(shown_in, message_id),
            published_at=datetime.fromtimestamp(first["date"], UTC),
        )

    def _create(self, chat: str, delivery: Delivery, token: str) -> Call:
        """The one call. Files travel in it, so that nothing of a post is there before the rest."""
        options = TelegramOptions.model_validate(delivery.options)
        message: dict[str, Any] = {"chat_id": chat} | options.model_dump(
            include={"disable_notification", "protect_content", "message_thread_id"},
            exclude_defaults=True,
        )
        styled = {"parse_mode": options.parse_mode} if options.parse_mode else {}
        if not delivery.media:
            message |= {"text": delivery.text, **styled}
            if not options.link_preview:
                message["link_preview_options"] = {"is_disabled": True}
            request = Request("POST", self._url("sendMessage", token), json=message)
            return Call(replace(request, secrets=(token,)), "create post", commits=True)
        caption = {"caption": delivery.text, **styled} if delivery.text else {}
        if len(delivery.media) == 1:
            (item,) = delivery.media
            kind = _kind(item)
            method, files = f"send{kind.title()}", {kind: item}
            message |= _about(item) | caption
        else:
            files = {f"file{index}": item for index, item in enumerate(delivery.media)}
            album = [
                {"type": _kind(item), "media": f"attach://{name}", **_about(item)}
                for name, item in files.items()
            ]
            album[0] |= caption  # more than one, and an album shows none of them
            method, message["media"] = "sendMediaGroup", album
        form = {name: _as_field(value) for name, value in message.items()}
        request = Request("POST", self._url(method, token), form=form, files=files)
        return Call(replace(request, secrets=(token,)), "create post", commits=True)

    def _url(self, method: str, token: str) -> str:
        return f"{self.app.api_url}/bot{token}/{method}"

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        """{"ok": false, "error_code": 400, "description": "Bad Request: chat not found"}"""
        body: Mapping[str, Any] = reply.json()
        if body["ok"] and 200 <= reply.status_code < 300:
            return None
        number, message = int(body["error_code"]), self.said(call, reply)
        about: dict[str, Any] = {"code": f"telegram_{number}", "status": reply.status_code}
        if number == 400 and _moved_to(reply) is not None:
            return None  # the flow sends it there
        if number in (401, 404):  # revoked; no bot's token at all
            return AuthExpiredError(message, **about)
        if number == 429:
            return ThrottledError(message, until=self.reset_at(reply), **about)
        if number >= 500:
            return TransientError(message, **about)
        return PermanentError(message, **about)

    def message(self, reply: httpx.Response) -> str:
        return str(fields_of(reply).get("description") or super().message(reply))

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """In seconds: {"parameters": {"retry_after": 35}}"""
        wait = _parameters(reply).get("retry_after")
        return timedelta(seconds=wait) if isinstance(wait, int) else super().reset_at(reply)

    # limits

    def text_length(self, text: str) -> int:
        """In UTF-16 units: 🎉 is two."""
        return len(text.encode("utf-16-le")) // 2

    def draft_length(self, draft: Draft) -> int:
        """Of what a reader sees; tags do not count."""
        seen = shown(draft.text) if _is_markup(draft) else None
        return self.text_length(draft.text if seen is None else seen)

    def limits_of(self, draft: Draft) -> Limits:
        limits = super().limits_of(draft)
        return replace(limits, text_chars=CAPTION_UNITS) if draft.media else limits

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        if _is_markup(draft) and shown(draft.text) is None:
            sentence = "Telegram cannot read this HTML: a tag is unknown, left open or written <."
            problems.append(Problem("content", "markup_invalid", sentence))
        if len(draft.media) > 1 and any(item.content_type == GIF for item in draft.media):
            sentence = "A GIF stands alone on Telegram; an album takes pictures and videos."
            problems.append(Problem("media", "media_mix", sentence))
        whole = sum(item.size_bytes or 0 for item in draft.media)
        if whole > ALBUM_BYTES:
            sentence = f"The media have {whole} bytes; an album may have {ALBUM_BYTES}."
            problems.append(Problem("media", "media_too_large", sentence))
        for index, item in enumerate(draft.media):
            if _is_odd(item):
                sentence = (
                    f"A picture's sides come to at most {SIDES} on Telegram, "
                    f"and the longer is at most {RATIO} times the shorter."
                )
                problems.append(Problem(f"media[{index}]", "media_too_large", sentence))
        return problems


def shown(markup: str) -> str | None:
    """What a reader sees of Telegram's HTML; None where Telegram cannot read it."""
    unclosed: list[str] = []
    for tag in TAG.finditer(markup):
        name = tag["name"].lower()
        if not tag["closes"] and name in TAGS:
            unclosed.append(name)
        elif not tag["closes"] or not unclosed or unclosed.pop() != name:
            return None
    text = TAG.sub("", markup)
    if unclosed or "<" in text:
        return None
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def _is_markup(draft: Draft) -> bool:
    return bool(draft.options.get("parseMode") or draft.options.get("parse_mode"))


def _is_odd(item: MediaItem) -> bool:
    """A picture of sides that Telegram refuses, as far as they are known."""
    if item.is_video or item.content_type == GIF or not item.width or not item.height:
        return False
    shorter, longer = sorted((item.width, item.height))
    return shorter + longer > SIDES or longer > RATIO * shorter


def _kind(item: MediaItem) -> str:
    if item.is_video:
        return "video"
    return "animation" if item.content_type == GIF else "photo"


def _about(item: MediaItem) -> dict[str, Any]:
    """What a player wants to know of a video before it has it."""
    if not item.is_video:
        return {}
    seconds = item.duration_ms // 1000 if item.duration_ms is not None else None
    known = {"width": item.width, "height": item.height, "duration": seconds}
    return {n: v for n, v in known.items() if v is not None} | {"supports_streaming": True}


def _as_field(value: Any) -> str:
    """A value as a field of a form: JSON, unless it is text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parameters(reply: httpx.Response) -> Mapping[str, Any]:
    parameters = fields_of(reply).get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _moved_to(reply: httpx.Response) -> str | None:
    """{"parameters": {"migrate_to_chat_id": -1001234567890}}"""
    chat = _parameters(reply).get("migrate_to_chat_id")
    return str(chat) if chat is not None else None


def _permalink(chat: Mapping[str, Any], message_id: int) -> str | None:
    """None for a private chat or a small group: only those who are in it can open it."""
    number = str(chat["id"])
    if chat.get("username"):
        return f"https://t.me/{chat['username']}/{message_id}"
    if number.startswith(CHANNEL):
        return f"https://t.me/c/{number.removeprefix(CHANNEL)}/{message_id}"
    return None
