"""Slack's Web API, as far as we use it.

What it is strict about: who may write where, the shape of metadata and blocks, files that were
uploaded whole. It says no with HTTP 200, breaks a long text into several messages, takes <…> and
*…* for markup, gives 🎉 back as :tada:, and shows shared files late.
"""

from __future__ import annotations

import html
import re
import secrets
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.sandbox.platforms.dialect import Dialect, Route, check_fields, content_type_of
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

SPLIT_AT = 4000
ALT_TEXT_CHARS = 1000
EVENT_TYPE = re.compile(r"[a-z0-9_]{1,255}")
MARKED = re.compile(r"<([@#!][^<>|]+|https?://[^<>|]+|mailto:[^<>|]+)(?:\|([^<>]*))?>")
STYLED = re.compile(r"(?<!\w)([*_~])(\S(?:[^\n]*?\S)?)\1(?!\w)")
MESSAGE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "metadata": dict,
    **dict.fromkeys(("channel", "text", "thread_ts"), str),
    **dict.fromkeys(("mrkdwn", "reply_broadcast", "unfurl_links", "unfurl_media"), bool),
}
SHARE_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("channel_id", "initial_comment", "thread_ts"), str),
    **dict.fromkeys(("files", "blocks"), list),
}
HISTORY_PARAMS = {"channel", "oldest", "latest", "include_all_metadata", "limit", "cursor"}


class SlackDialect(Dialect):
    name = "slack"
    user_id = "C{:09d}"
    access_life = timedelta(hours=12)  # with token rotation

    def clear(self) -> None:
        super().clear()
        self.page_most = 999
        self._last_ts = 0
        self._uploads: dict[str, dict[str, Any]] = {}  # by file id
        self._late: dict[str, int] = {}  # how often a file will still not say where it is

    def make_routes(self) -> list[Route]:
        cls = SlackDialect
        return [
            Route("POST /chat.postMessage", "create post", cls.post_message),
            Route("POST /files.getUploadURLExternal", "begin upload", cls.begin_upload),
            Route("POST /upload/v1/{file}", "upload", cls.upload),
            Route("POST /files.completeUploadExternal", "create post", cls.share),
            Route("GET /files.info", "read file", cls.read_file),
            Route("GET /chat.getPermalink", "read permalink", cls.permalink),
            Route("GET /conversations.history", "find post", cls.history),
            Route("GET /reactions.get", "read metrics", cls.reactions),
            Route("POST /oauth.v2.access", "refresh", cls.refresh),
        ]

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        error = "internal_error" if status >= 500 else "unknown_method"
        return Answer(status, {"ok": False, "error": error} | more, _headers())

    def no(self, error: str, *sentences: str) -> Refused:
        said = {"response_metadata": {"messages": list(sentences)}} if sentences else {}
        return Refused(Answer(200, {"ok": False, "error": error} | said, _headers()))

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        headers = _headers() | {"Retry-After": str(seconds)}
        return Answer(429, {"ok": False, "error": "ratelimited"}, headers)

    def without_id(self, answer: Answer) -> Answer:
        return Answer(answer.status, {"ok": True}, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        ended = token is not None and not token.revoked
        error = "token_expired" if ended else "token_revoked"
        return Answer(200, {"ok": False, "error": error}, _headers())

    def secret_of(self, received: Received) -> str:
        """An upload says nothing of the kind: whoever began it makes it."""
        begun = self._uploads.get(received.parts.get("file", ""))
        return begun["token"] if begun else super().secret_of(received)

    def _okay(self, **body: Any) -> Answer:
        return Answer(200, {"ok": True} | body, _headers())

    def _body(self, received: Received, names: dict[str, Any], required: str) -> dict[str, Any]:
        try:
            if received.content_type != "application/json":
                raise self.no("invalid_post_type")
            body = received.json()
        except ValueError:
            raise self.no("invalid_form_data") from None
        wrong = check_fields(body, names, (required,))
        if wrong:
            raise self.no("invalid_arg_name", f"[ERROR] {wrong}")
        found: dict[str, Any] = body
        return found

    def _channel(self, token: Token, channel: str) -> str:
        if channel not in token.user_ids:
            raise self.no("channel_not_found")
        return channel

    # messages

    def post_message(self, received: Received) -> Answer:
        token = self.authorize(received)
        body = self._body(received, MESSAGE_FIELDS, "channel")
        channel = self._channel(token, body["channel"])
        self._check_metadata(body.get("metadata"))
        self._check_parent(channel, body)
        text = body.get("text", "")
        if not text.strip():
            raise self.no("no_text")
        pieces = [text[at : at + SPLIT_AT] for at in range(0, len(text), SPLIT_AT)]
        marked = body.get("mrkdwn", True)
        posts = [
            self._post(received, channel, seen(piece, marked=marked), body) for piece in pieces
        ]
        ts = _ts_of(posts[0])
        return self._okay(channel=channel, ts=ts, message=self._shown(posts[0]))

    def _check_metadata(self, metadata: dict[str, Any] | None) -> None:
        if metadata is None:
            return
        if check_fields(metadata, {"event_type": str, "event_payload": dict}, ("event_type",)):
            raise self.no("invalid_metadata_format")
        if not EVENT_TYPE.fullmatch(metadata["event_type"]):
            raise self.no("invalid_metadata_schema")

    def _check_parent(self, channel: str, body: dict[str, Any]) -> None:
        parent = body.get("thread_ts")
        if parent is not None and f"{channel}:{parent}" not in {post.id for post in self.posts}:
            raise self.no("cannot_reply_to_message")

    def _post(
        self,
        received: Received,
        channel: str,
        text: str,
        body: dict[str, Any],
        media: tuple[Media, ...] = (),
    ) -> Post:
        post = Post(
            platform=self.name,
            id=f"{channel}:{self._next_ts()}",
            account=channel,
            text=text,
            at=received.at,
            media=media,
            headers=received.headers,
            fields=body,
        )
        self.posts.append(post)
        return post

    def _next_ts(self) -> str:
        self._last_ts = max(self._last_ts + 1, int(self.clock.now().timestamp() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    # files

    def begin_upload(self, received: Received) -> Answer:
        self.authorize(received)
        form = received.form()
        if received.content_type != "application/x-www-form-urlencoded":
            raise self.no("invalid_post_type")
        if set(form) - {"filename", "length", "alt_txt"}:
            raise self.no("invalid_arg_name")
        if not form.get("filename") or not form.get("length", "").isdigit():
            raise self.no("missing_argument")
        if len(form.get("alt_txt", "")) > ALT_TEXT_CHARS:
            raise self.no("alt_txt_too_large")
        file_id = f"F{secrets.token_hex(5).upper()}"
        about = {"length": int(form["length"]), "alt": form.get("alt_txt")}
        self._uploads[file_id] = about | {"token": received.token}
        url = f"{self.base_url()}/slack/upload/v1/{file_id}"
        return self._okay(upload_url=url, file_id=file_id)

    def upload(self, received: Received) -> Answer:
        """Told apart by its address alone: no token."""
        about = self._uploads.get(received.parts["file"])
        if about is None or received.content.size_bytes != about["length"]:
            return Answer(400, b"Bad Request")
        content_type = content_type_of(received.content.head) or "application/octet-stream"
        held = self.hold_media(received.parts["file"], received.content, content_type)
        about["media"] = replace(held, alt_text=about["alt"])
        return Answer(200, f"OK - {about['length']}".encode())

    def share(self, received: Received) -> Answer:
        token = self.authorize(received)
        body = self._body(received, SHARE_FIELDS, "files")
        channel = self._channel(token, body.get("channel_id", ""))
        self._check_parent(channel, body)
        ids = [file.get("id") for file in body["files"] if not check_fields(file, {"id": str})]
        held = [self._uploads.get(file_id, {}) for file_id in ids]
        if len(ids) != len(body["files"]) or not all("media" in about for about in held):
            raise self.no("file_not_found")
        if "initial_comment" in body:
            text = seen(body["initial_comment"], marked=True)
        else:
            text = self._read_blocks(body.get("blocks", []))
        media = tuple(about["media"] for about in held)
        post = self._post(received, channel, text, body, media)
        for file_id, about in zip(ids, held, strict=True):
            about["shared"] = post
            self._late[file_id] = received.polls
        return self._okay(files=[{"id": file_id, "title": "file"} for file_id in ids])

    def _read_blocks(self, blocks: list[Any]) -> str:
        """What rich text shows: no markup in it."""
        parts: list[str] = []
        for block in blocks:
            sections = block.get("elements", [])
            kinds = {section.get("type") for section in sections}
            if block.get("type") != "rich_text" or kinds != {"rich_text_section"}:
                raise self.no("invalid_blocks", "[ERROR] unsupported type")
            for element in (one for section in sections for one in section["elements"]):
                name = {"text": "text", "link": "url"}.get(element.get("type"), "")
                if set(element) != {"type", name} or not element[name]:
                    raise self.no("invalid_blocks", "[ERROR] must provide a string")
                parts.append(element[name])
        return "".join(parts)

    def read_file(self, received: Received) -> Answer:
        self.authorize(received)
        file_id = received.params.get("file", "")
        about = self._uploads.get(file_id)
        if about is None or "media" not in about:
            raise self.no("file_not_found")
        shares: dict[str, Any] = {}
        post = about.get("shared")
        if self._late.get(file_id, 0) > 0:
            self._late[file_id] -= 1
        elif post in self.posts:
            shares = {"public": {post.account: [{"ts": _ts_of(post), "reply_users": []}]}}
        return self._okay(file={"id": file_id, "shares": shares})

    # reading

    def permalink(self, received: Received) -> Answer:
        token, params = self.authorize(received), received.params
        channel = self._channel(token, params.get("channel", ""))
        post = self._find(channel, params.get("message_ts", ""))
        place = f"{channel}/p{_ts_of(post).replace('.', '')}"
        return self._okay(channel=channel, permalink=f"https://acme.slack.com/archives/{place}")

    def history(self, received: Received) -> Answer:
        """Newest first, a page at a time; replies are not among them."""
        token, params = self.authorize(received), received.params
        channel = self._channel(token, params.get("channel", ""))
        if set(params) - HISTORY_PARAMS:
            raise self.no("invalid_arg_name")
        oldest, latest = float(params.get("oldest", "0")), float(params.get("latest", "inf"))
        found = [
            self._shown(post)
            for post in reversed(self.posts)
            if post.account == channel
            and oldest < float(_ts_of(post)) < latest
            and ("thread_ts" not in post.fields or post.fields.get("reply_broadcast"))
        ]
        if params.get("include_all_metadata") != "true":
            found = [{n: v for n, v in one.items() if n != "metadata"} for one in found]
        size = min(int(params.get("limit", "100")), self.page_most)
        start = int(params.get("cursor", "0"))
        after = start + size
        rest = {"next_cursor": str(after) if after < len(found) else ""}
        more = after < len(found)
        return self._okay(messages=found[start:after], has_more=more, response_metadata=rest)

    def reactions(self, received: Received) -> Answer:
        token, params = self.authorize(received), received.params
        channel = self._channel(token, params.get("channel", ""))
        post = self._find(channel, params.get("timestamp", ""))
        message, figures = self._shown(post), self.figures.get(post.id, {})
        if figures.get("reactions"):
            heart = {"name": "heart", "count": figures["reactions"], "users": []}
            message["reactions"] = [heart]
        if figures.get("reply_count") is not None:
            message["reply_count"] = figures["reply_count"]
        return self._okay(type="message", channel=channel, message=message)

    def _find(self, channel: str, ts: str) -> Post:
        for post in self.posts:
            if post.id == f"{channel}:{ts}":
                return post
        raise self.no("message_not_found")

    def _shown(self, post: Post) -> dict[str, Any]:
        text = html.escape(post.text, quote=False).replace("🎉", ":tada:")
        shown = {"type": "message", "bot_id": "B1", "ts": _ts_of(post), "text": text}
        return shown | {
            name: post.fields[name] for name in ("metadata", "thread_ts") if name in post.fields
        }

    # tokens

    def refresh(self, received: Received) -> Answer:
        form = received.form()
        pair = b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if received.headers.get("authorization") != f"Basic {pair}":
            raise self.no("bad_client_secret")
        if form.get("grant_type") != "refresh_token" or set(form) != {
            "grant_type",
            "refresh_token",
        }:
            raise self.no("invalid_grant_type")
        granted = self.exchange(form["refresh_token"], rotate=True)
        if granted is None:
            raise self.no("invalid_refresh_token")
        about = {"token_type": "bot", "scope": "chat:write", "app_id": "A1", "bot_user_id": "U1"}
        return self._okay(**about, **granted)


def seen(text: str, *, marked: bool) -> str:
    """What a reader sees: what stands in <…> is never shown as it is written."""
    linked = MARKED.sub(lambda found: found[2] or found[1], text)
    shown = re.sub(r"<[^>]*>?", "", linked)
    return html.unescape(STYLED.sub(r"\2", shown) if marked else shown)


def _ts_of(post: Post) -> str:
    return post.id.rpartition(":")[2]


def _headers() -> dict[str, str]:
    return {"x-slack-req-id": secrets.token_hex(16)}
