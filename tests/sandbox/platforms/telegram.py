"""Telegram's Bot API, as far as we use it.

What it is strict about: the bot's token in the path, the chat, text and captions counted in UTF-16
units after its HTML is read, albums whose files are all there. Messages count from 1 in each chat,
and no bot can read one. A group that became a supergroup is refused under its old id.
"""

from __future__ import annotations

import json
import zlib
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from tests.sandbox.platforms.dialect import (
    Dialect,
    Part,
    Route,
    check_fields,
    content_type_of,
    multipart,
)
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

TEXT_UNITS, CAPTION_UNITS = 4096, 1024
PHOTO_BYTES, FILE_BYTES = 10 * 1024 * 1024, 50 * 1024 * 1024
TAGS = {
    *("b", "strong", "i", "em", "u", "ins", "s", "strike", "del"),
    *("a", "span", "tg-spoiler", "code", "pre", "blockquote"),
}
ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
COMMON: dict[str, type | tuple[type, ...]] = {
    "chat_id": (str, int),
    "parse_mode": str,
    "disable_notification": bool,
    "protect_content": bool,
    "message_thread_id": int,
}
TEXT_FIELDS = COMMON | {"text": str, "link_preview_options": dict}
ONE_FIELDS = COMMON | {"caption": str}
VIDEO_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("width", "height", "duration"), int),
    "supports_streaming": bool,
}
ALBUM_FIELDS = {name: kind for name, kind in COMMON.items() if name != "parse_mode"}
ITEM_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("type", "media", "caption", "parse_mode"), str),
    **VIDEO_FIELDS,
}
TAKEN = {
    "photo": ("image/jpeg", "image/png", "image/webp"),
    "video": ("video/mp4",),
    "animation": ("image/gif", "video/mp4"),
}


class TelegramDialect(Dialect):
    name = "telegram"
    user_id = "-100{:010d}"
    access_life = timedelta(days=3650)  # until it is revoked

    def clear(self) -> None:
        super().clear()
        self.moved: dict[str, int] = {}  # groups that have a new id
        self._last: dict[int, int] = {}  # message by chat

    def make_routes(self) -> list[Route]:
        cls = TelegramDialect
        return [
            Route("POST /bot{token}/sendMessage", "create post", cls.send_message),
            Route("POST /bot{token}/sendPhoto", "create post", cls.send_photo),
            Route("POST /bot{token}/sendVideo", "create post", cls.send_video),
            Route("POST /bot{token}/sendAnimation", "create post", cls.send_animation),
            Route("POST /bot{token}/sendMediaGroup", "create post", cls.send_album),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        return Answer(status, {"ok": False, "error_code": status, "description": message} | more)

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        message = f"Too Many Requests: retry after {seconds}"
        return self.failure(429, message, parameters={"retry_after": seconds})

    def without_id(self, answer: Answer) -> Answer:
        return Answer(answer.status, {"ok": True, "result": {}}, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        return self.failure(401, "Unauthorized")

    def _bad(self, sentence: str) -> Refused:
        return Refused(self.failure(400, f"Bad Request: {sentence}"))

    # calls

    def send_message(self, received: Received) -> Answer:
        token = self._token(received)
        try:
            body = received.json() if received.content_type == "application/json" else None
        except ValueError:
            raise self._bad("can't parse JSON object") from None
        chat = self._chat(token, body, TEXT_FIELDS)
        text = self._seen(body.get("text", ""), body.get("parse_mode"))
        if not text:
            raise self._bad("message text is empty")
        if _units(text) > TEXT_UNITS:
            raise self._bad("message is too long")
        preview = body.get("link_preview_options", {})
        if check_fields(preview, {"is_disabled": bool, "url": str}):
            raise self._bad("can't parse link preview options")
        return Answer(200, {"ok": True, "result": self._send(received, chat, text, body, ())[0]})

    def send_photo(self, received: Received) -> Answer:
        return self._send_one(received, "photo")

    def send_video(self, received: Received) -> Answer:
        return self._send_one(received, "video")

    def send_animation(self, received: Received) -> Answer:
        return self._send_one(received, "animation")

    def _send_one(self, received: Received, kind: str) -> Answer:
        token = self._token(received)
        body, files = self._form(received)
        names = ONE_FIELDS | (VIDEO_FIELDS if kind == "video" else {})
        chat = self._chat(token, body, names)
        if set(files) != {kind}:
            raise self._bad(f"there is no {kind} in the request")
        media = (self._held(kind, files[kind]),)
        text = self._caption(body)
        return Answer(200, {"ok": True, "result": self._send(received, chat, text, body, media)[0]})

    def send_album(self, received: Received) -> Answer:
        token = self._token(received)
        body, files = self._form(received)
        chat = self._chat(token, body, ALBUM_FIELDS | {"media": list})
        album = body.get("media", [])
        if not 2 <= len(album) <= 10:
            raise self._bad("wrong number of messages in the album")
        held = []
        for entry in album:
            wrong = check_fields(entry, ITEM_FIELDS, ("type", "media"))
            name = str(entry.get("media", "")).removeprefix("attach://")
            if wrong or entry["type"] not in ("photo", "video") or name not in files:
                raise self._bad(f"can't parse InputMedia: {wrong or 'wrong file identifier'}")
            held.append(self._held(entry["type"], files[name]))
        captions = [caption for entry in album if (caption := self._caption(entry))]
        text = captions[0] if len(captions) == 1 else ""  # several are shown with none
        sent = self._send(received, chat, text, body, tuple(held))
        return Answer(200, {"ok": True, "result": sent})

    # reading a request

    def _token(self, received: Received) -> Token:
        token = self.tokens.get(received.parts["token"])
        if token is None or token.revoked:
            raise Refused(self.token_refused(token))
        return token

    def _form(self, received: Received) -> tuple[dict[str, Any], dict[str, Part]]:
        """The fields as what they stand for, and the files."""
        try:
            form, files = multipart(received)
            as_text = {"chat_id", "caption", "parse_mode"}
            read = {n: v if n in as_text else json.loads(v) for n, v in form.items()}
        except ValueError:
            raise self._bad("can't parse the form") from None
        return read, files

    def _chat(self, token: Token, body: Any, names: dict[str, Any]) -> int:
        wrong = check_fields(body, names, ("chat_id",))
        if wrong:
            raise self._bad(wrong)
        chat = str(body["chat_id"])
        if chat in self.moved:
            to = {"migrate_to_chat_id": self.moved[chat]}
            message = "Bad Request: group chat was upgraded to a supergroup chat"
            raise Refused(self.failure(400, message, parameters=to))
        if chat not in token.user_ids:
            raise self._bad("chat not found")
        return chat_number(chat)

    def _seen(self, text: str, parse_mode: str | None) -> str:
        if parse_mode not in (None, "HTML"):
            raise self._bad("unsupported parse_mode")
        if parse_mode is None:
            return text.strip()
        reader = _Reader()
        reader.feed(text)
        reader.close()
        if reader.wrong or reader.unclosed:
            raise self._bad(f"can't parse entities: {reader.wrong or 'tag left open'}")
        return "".join(reader.seen).strip()

    def _caption(self, body: dict[str, Any]) -> str:
        text = self._seen(body.get("caption", ""), body.get("parse_mode"))
        if _units(text) > CAPTION_UNITS:
            raise self._bad("message caption is too long")
        return text

    def _held(self, kind: str, part: Part) -> Media:
        content_type = content_type_of(part.body)
        if content_type not in TAKEN[kind]:
            raise self._bad("IMAGE_PROCESS_FAILED" if kind == "photo" else "wrong file type")
        if len(part.body) > (PHOTO_BYTES if kind == "photo" else FILE_BYTES):
            raise Refused(self.failure(413, "Request Entity Too Large"))
        return self.hold_media(str(len(self.media)), part.content, content_type)

    # messages

    def _send(
        self,
        received: Received,
        chat: int,
        text: str,
        body: dict[str, Any],
        media: tuple[Media, ...],
    ) -> list[dict[str, Any]]:
        """The messages of one post: an album has one for each of its files."""
        first = self._last.get(chat, 0) + 1
        count = max(1, len(media))
        self._last[chat] = first + count - 1
        self.posts.append(
            Post(
                platform=self.name,
                id=f"{chat}:{first}",
                account=str(body["chat_id"]),
                text=text,
                at=received.at,
                media=media,
                headers=received.headers,
                fields=body,
            )
        )
        place: dict[str, Any] = {"id": chat, "type": "channel", "title": "Bread"}
        if str(body["chat_id"]).startswith("@"):
            place["username"] = str(body["chat_id"]).removeprefix("@")
        at, shown = int(received.at.timestamp()), "caption" if media else "text"
        messages = [{"message_id": first + n, "date": at, "chat": place} for n in range(count)]
        messages[0][shown] = text
        return messages


class _Reader(HTMLParser):
    """Telegram's HTML: a few tags, closed in their order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.seen: list[str] = []
        self.unclosed: list[str] = []
        self.wrong = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.wrong = self.wrong or ("" if tag in TAGS else f'unsupported start tag "{tag}"')
        self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.unclosed or self.unclosed.pop() != tag:
            self.wrong = self.wrong or f'unexpected end tag "{tag}"'

    def handle_data(self, data: str) -> None:
        self.wrong = self.wrong or ("unsupported start tag" if "<" in data else "")
        self.seen.append(data)

    def handle_entityref(self, name: str) -> None:
        self.seen.append(ENTITIES.get(name, f"&{name};"))

    def handle_charref(self, name: str) -> None:
        number = int(name[1:], 16) if name[0] in "xX" else int(name)
        self.seen.append(chr(number))


def chat_number(chat: str) -> int:
    """A chat's number; one that is named has one too."""
    return int(f"-100{zlib.crc32(chat.encode()):010d}") if chat.startswith("@") else int(chat)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
