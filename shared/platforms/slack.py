"""Slack: messages in one channel, by an app's bot.

A text goes out by chat.postMessage. Files are uploaded first and seen by nobody;
files.completeUploadExternal shares them, with the text, and is then the call that creates the post.
It answers before the message is there, sometimes without there ever being one, so that the files
are asked where they were shared.

Source: https://docs.slack.dev/reference/methods/chat.postMessage, …/files.completeUploadExternal,
…/conversations.history, …/oauth.v2.access, /messaging/formatting-message-text,
/authentication/using-token-rotation, /apis/web-api/rate-limits; on what is shared late:
https://github.com/slackapi/bolt-js/issues/2115, https://github.com/paradigmxyz/centaur/pull/311.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
from pydantic import Field

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import FoundItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Grant,
    Keep,
    Limits,
    Look,
    MetricsFlow,
    MetricsQuery,
    Options,
    Platform,
    Processing,
    Published,
    ReadBack,
    Reading,
    RefreshFlow,
    Request,
    Step,
    TimeIsShort,
    Unread,
    fields_of,
)

MEGABYTE = 1024 * 1024
FILE_BYTES = 1024 * MEGABYTE  # in one body: a request has time for it at 25 MB a second
ALT_TEXT_CHARS = 1000
AT_ONCE = timedelta(seconds=1)  # the next request goes on
UPLOADS_LAST = timedelta(hours=1)  # unshared files are dropped, Slack does not say when
CHECK_SHARES = timedelta(seconds=5)
CHECKS = 12
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours
# A message is born just after our call. Some apps are given 15 messages a minute, the newest first.
LATEST_BIRTH = timedelta(minutes=2)
PAGES = 10
EVENT_TYPE, EVENT_KEY = "tendsocial_post", "key"
LINK = re.compile(r"https?://[^\s<>]+[^\s<>.,:;!?'\")\]}]")

TOKEN_REFUSED = frozenset(
    {
        *("token_revoked", "token_expired", "account_inactive", "invalid_auth", "not_authed"),
        *("app_access_restricted", "invalid_refresh_token"),
    }
)
THROTTLED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
PASSING = frozenset(
    {
        *("service_unavailable", "request_timeout"),
        *("team_added_to_org", "org_login_required"),  # the workspace is being moved
    }
)
REFUSED = frozenset(
    {
        *("access_denied", "accesslimited", "ekm_access_denied", "enterprise_is_restricted"),
        *("missing_scope", "no_permission", "not_allowed_token_type", "two_factor_setup_required"),
        *("as_user_not_supported", "is_bot", "send_on_behalf_not_allowed", "team_not_found"),
        *("channel_not_found", "invalid_channel", "not_in_channel", "is_archived"),
        *("channels_limit_exceeded", "posting_to_channel_denied", "messages_tab_disabled"),
        *("restricted_action", "restricted_action_non_threadable_channel"),
        *("restricted_action_read_only_channel", "restricted_action_thread_locked"),
        *("restricted_action_thread_only_channel", "cannot_reply_to_message"),
        *("no_text", "msg_too_long", "markdown_text_conflict", "too_many_contact_cards"),
        *("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"),
        *("too_many_attachments", "attachment_payload_limit_exceeded", "missing_file_data"),
        *("invalid_metadata_format", "invalid_metadata_schema", "metadata_too_large"),
        *("metadata_must_be_sent_from_app", "file_not_found", "file_type_not_allowed"),
        *("file_uploads_except_images_disabled", "slack_connect_canvas_sharing_blocked"),
        *("slack_connect_file_link_sharing_blocked", "slack_connect_lists_sharing_blocked"),
        *("invalid_arg_name", "invalid_array_arg", "invalid_charset", "invalid_form_data"),
        *("invalid_post_type", "missing_post_type", "missing_argument", "invalid_arguments"),
        *("unknown_method", "method_deprecated", "deprecated_endpoint"),
    }
)
# "It's possible some aspect of the operation succeeded before the error was raised."
BROKEN = frozenset({"fatal_error", "internal_error"})


class SlackOptions(Options):
    """`mrkdwn`: the text is Slack's own markup, links and mentions included; else it is shown as it
    is written. `thread_ts` is the message that is replied to. The last three are for posts without
    files."""

    mrkdwn: bool = False
    thread_ts: str | None = Field(None, pattern=r"^\d{10}\.\d{6}$")
    reply_broadcast: bool | None = None
    unfurl_links: bool | None = None
    unfurl_media: bool | None = None


WITHOUT_FILES = ("reply_broadcast", "unfurl_links", "unfurl_media")


class Slack(Platform):
    """`platform_user_id` is the channel's id, the token an app's bot's. A post's id is that of the
    channel and the message's `ts`, which is its name there and nowhere else."""

    name = "slack"
    label = "Slack"
    api_url = "https://slack.com/api"
    guarantee = ReadBack(
        rests_on="the key that the message carries, or its files' ids, looked for seven times in "
        "half an hour",
        risk="no second message without a person's order; one inside a thread cannot be looked for",
    )
    limits = Limits(
        text_chars=4000,  # 40,000 are taken, but from 4,000 on "broken into multiple messages"
        text_unit="characters, escapes included",
        media_items=10,
        media_types=dict.fromkeys(
            (
                *("image/jpeg", "image/png", "image/gif", "image/webp"),
                *("video/mp4", "video/quicktime", "video/webm"),
            ),
            FILE_BYTES,
        ),
        mixed_media=True,
        video_items=10,
    )
    options = SlackOptions
    lacks: ClassVar[Mapping[str, str]] = {
        "link card": "Slack makes its own of a link in the text; `unfurlLinks` says whether",
        "thread": "`threadTs` replies to a message that is there; a message inside a thread "
        "cannot be looked for",
        "first comment": "messages are answered by messages",
    }
    built_to = "a copy of its reference pages"
    refreshes = True  # where the app has token rotation
    metrics_batch = 20  # one call each, of 50 a minute

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        options = SlackOptions.model_validate(delivery.options)
        if "asked" in delivery.state:
            return (yield from self._shared(delivery.state, delivery, token))
        if delivery.media:
            return (yield from self._share(delivery, options, token))
        message: dict[str, Any] = {
            "channel": delivery.platform_user_id,
            "text": delivery.text if options.mrkdwn else escaped(delivery.text),
            "metadata": {"event_type": EVENT_TYPE, "event_payload": {EVENT_KEY: delivery.key}},
            **options.model_dump(exclude_none=True),
        }
        create = self._post("chat.postMessage", token, message)
        reply = yield Call(create, "create post", commits=True)
        sent = reply.json()
        return (yield from self._published(sent["channel"], sent["ts"], token))

    def _share(self, delivery: Delivery, options: SlackOptions, token: str) -> Flow:
        state = yield from self._upload(delivery, token)
        if isinstance(state, Processing):
            return state
        ids = [state["files"][item.id] for item in delivery.media]
        message: dict[str, Any] = {
            "channel_id": delivery.platform_user_id,
            "files": [{"id": file_id} for file_id in ids],
        }
        if options.thread_ts:
            message["thread_ts"] = options.thread_ts
        if delivery.text and options.mrkdwn:
            message["initial_comment"] = delivery.text
        elif delivery.text:  # a comment is always read as markup, a block is not
            message["blocks"] = [rich_text(delivery.text)]
        complete = self._post("files.completeUploadExternal", token, message)
        reply = yield Call(complete, "create post", commits=True)
        if not {file["id"] for file in reply.json()["files"]} >= set(ids):
            raise OutcomeUnknownError("The answer names other files", code="no_remote_id")
        return (yield from self._shared({**state, "asked": 0}, delivery, token))

    def _upload(
        self, delivery: Delivery, token: str
    ) -> Generator[Step, Any, dict[str, Any] | Processing]:
        """Give each item its file id. What is not shared is seen by nobody."""
        state, sent = _uploads(delivery), False
        for item in delivery.media:
            if item.id in state["files"]:
                continue
            found: FoundItem = yield Look(item)  # one byte off, and the upload is refused
            if sent and (yield TimeIsShort(found.size_bytes)):
                return Processing(state, AT_ONCE)
            form = {"filename": item.file_name, "length": str(found.size_bytes)}
            if item.alt_text:
                form["alt_txt"] = item.alt_text
            url = f"{self.app.api_url}/files.getUploadURLExternal"
            begin = Request("POST", url, _auth(token), form=form)
            upload = (yield Call(begin, "begin upload")).json()
            headers = {"Content-Type": "application/octet-stream"}
            yield Call(Request("POST", upload["upload_url"], headers, media=found), "upload")
            state["files"][item.id] = upload["file_id"]
            yield Keep({**state, "files": dict(state["files"])})
            sent = True
        if sent and (yield TimeIsShort()):
            return Processing(state, AT_ONCE)
        return state

    def _shared(self, state: Mapping[str, Any], delivery: Delivery, token: str) -> Flow:
        """The message that shows the files, once it does. Nothing that fails here unposts it."""
        ts = yield from self._seen_at(state, delivery, token)
        if ts is not None:
            return (yield from self._published(delivery.platform_user_id, ts, token))
        if state["asked"] >= CHECKS:
            message = "Slack took the files and does not show them in the channel"
            raise OutcomeUnknownError(message, code="not_shared")
        return Processing({**state, "asked": state["asked"] + 1}, CHECK_SHARES)

    def _seen_at(
        self, state: Mapping[str, Any], delivery: Delivery, token: str
    ) -> Generator[Step, Any, str | None]:
        """The `ts` of the message that shares our files: nobody else could share them first."""
        url = f"{self.app.api_url}/files.info"
        params = {"file": state["files"][delivery.media[0].id]}
        asked = Request("GET", url, _auth(token), params=params)
        reply = yield Call(asked, "read file", optional=True)
        shares = fields_of(reply).get("file", {}).get("shares", {}) if reply is not None else {}
        found = [
            str(share["ts"])
            for kind in ("public", "private")
            for share in shares.get(kind, {}).get(delivery.platform_user_id, ())
        ]
        return min(found, default=None)

    def _published(self, channel: str, ts: str, token: str, *, found: bool = False) -> Flow:
        url = f"{self.app.api_url}/chat.getPermalink"
        params = {"channel": channel, "message_ts": ts}
        read = Request("GET", url, _auth(token), params=params)
        reply = yield Call(read, "read permalink", optional=True)
        link = fields_of(reply).get("permalink") if reply is not None else None
        return Published(f"{channel}:{ts}", link, _instant(ts), found=found)

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        since = delivery.unsettled_since
        if since is None:
            raise OutcomeUnknownError("Nothing of this delivery is unsettled", code="not_unsettled")
        if delivery.media:
            ts = yield from self._seen_at(delivery.state, delivery, token)
        elif SlackOptions.model_validate(delivery.options).thread_ts:
            raise OutcomeUnknownError("A channel does not list replies", code="not_readable")
        else:
            ts = yield from self._find(delivery, since, token)
        if ts is None:
            raise OutcomeUnknownError("No message of that time is ours", code="not_found")
        return (yield from self._published(delivery.platform_user_id, ts, token, found=True))

    def _find(
        self, delivery: Delivery, since: datetime, token: str
    ) -> Generator[Step, Any, str | None]:
        """By the key that it carries: its text comes back changed, 🎉 as :tada:."""
        params = {
            "channel": delivery.platform_user_id,
            "oldest": f"{(since - CLOCKS_APART).timestamp():.6f}",
            "latest": f"{(since + LATEST_BIRTH).timestamp():.6f}",
            "include_all_metadata": "true",
            "limit": "100",
        }
        found: list[str] = []
        for _ in range(PAGES):
            url = f"{self.app.api_url}/conversations.history"
            reply = yield Call(Request("GET", url, _auth(token), params=params), "find post")
            page = reply.json()
            found += [one["ts"] for one in page["messages"] if _key_of(one) == delivery.key]
            cursor = page.get("response_metadata", {}).get("next_cursor")
            if found or not cursor:
                break
            params = {**params, "cursor": cursor}
        return min(found, default=None)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        def ask(remote_id: str) -> Request:
            channel, _, ts = remote_id.rpartition(":")
            url = f"{self.app.api_url}/reactions.get"
            params = {"channel": channel, "timestamp": ts, "full": "true"}
            return Request("GET", url, _auth(token), params=params)

        return self.metrics_one_by_one(query.remote_ids, ask, _reading)

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        if tokens.refresh_token is None:
            raise AuthExpiredError("There is no refresh token", code="no_refresh_token")
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        pair = f"{self.app.client_id or ''}:{self.app.client_secret or ''}"
        headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        request = Request("POST", f"{self.app.api_url}/oauth.v2.access", headers, form=form)
        body = (yield Call(request, "refresh")).json()
        return Grant(
            access_token=body["access_token"],
            refresh_token=body["refresh_token"],  # the one just used is dead
            expires_in=timedelta(seconds=body["expires_in"]),
        )

    def _post(self, method: str, token: str, body: dict[str, Any]) -> Request:
        headers = {**_auth(token), "Content-Type": "application/json; charset=utf-8"}
        return Request("POST", f"{self.app.api_url}/{method}", headers, json=body)

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        """{"ok": false, "error": "channel_not_found"}, with HTTP 200."""
        if call.name == "upload":  # answers with a line of text
            return super().classify(call, reply)
        body: Mapping[str, Any] = reply.json()
        if body["ok"] and 200 <= reply.status_code < 300:
            return None
        error, message = str(body["error"]), self.said(call, reply)
        about: dict[str, Any] = {
            "code": error,
            "status": reply.status_code,
            "request_id": self.request_id(reply),
        }
        if call.name == READ_METRICS and error in ("message_not_found", "bad_timestamp"):
            return None  # about one post: the flow looks at it
        if reply.status_code == 429 or error in THROTTLED:
            return ThrottledError(message, until=self.reset_at(reply), **about)
        if error in TOKEN_REFUSED:
            return AuthExpiredError(message, **about)
        if error in PASSING or reply.status_code >= 500:
            return TransientError(message, **about)
        if error in REFUSED or (not call.commits and error not in BROKEN):
            return PermanentError(message, **about)
        return (OutcomeUnknownError if call.commits else TransientError)(message, **about)

    def message(self, reply: httpx.Response) -> str:
        """What Slack says beside the code: {"response_metadata": {"messages": ["[ERROR] …"]}}"""
        body = fields_of(reply)
        if "error" not in body:
            return super().message(reply)
        needed = f"needs {body['needed']}" if body.get("needed") else ""
        more = (body.get("response_metadata") or {}).get("messages") or []
        return " ".join(filter(None, [str(body["error"]), needed, *map(str, more)]))

    def request_id(self, reply: httpx.Response) -> str | None:
        request: str | None = reply.headers.get("x-slack-req-id")
        return request

    # limits

    def text_length(self, text: str) -> int:
        """Length of what is sent: escapes count."""
        return len(escaped(text))

    def draft_length(self, draft: Draft) -> int:
        return len(draft.text) if draft.options.get("mrkdwn") else self.text_length(draft.text)

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        for index, item in enumerate(draft.media):
            if len(item.alt_text or "") > ALT_TEXT_CHARS:
                sentence = f"Slack takes an alt text of at most {ALT_TEXT_CHARS} characters."
                problems.append(Problem(f"media[{index}]", "alt_text_too_long", sentence))
        return problems

    def _check_options(self, draft: Draft) -> list[Problem]:
        problems = super()._check_options(draft)
        if problems:
            return problems
        given = SlackOptions.model_validate(draft.options)
        for name in WITHOUT_FILES if draft.media else ():
            if getattr(given, name) is not None:
                alias = SlackOptions.model_fields[name].alias or name
                sentence = f"{alias} is for messages without files."
                problems.append(Problem(f"options.{alias}", "option_invalid", sentence))
        if given.reply_broadcast is not None and given.thread_ts is None:
            sentence = "replyBroadcast needs the threadTs that is replied to."
            problems.append(Problem("options.replyBroadcast", "option_invalid", sentence))
        return problems


def escaped(text: str) -> str:
    """`text` so that it arrives as it was written: Slack reads <…> as its own, and &…; too."""
    return html.escape(text, quote=False)


def rich_text(text: str) -> dict[str, Any]:
    """A block that shows `text` as it was written, its links alive."""
    elements: list[dict[str, Any]] = []
    end = 0
    for link in LINK.finditer(text):
        if link.start() > end:
            elements.append({"type": "text", "text": text[end : link.start()]})
        elements.append({"type": "link", "url": link[0]})
        end = link.end()
    if end < len(text):
        elements.append({"type": "text", "text": text[end:]})
    section = {"type": "rich_text_section", "elements": elements}
    return {"type": "rich_text", "elements": [section]}


def _reading(remote_id: str, reply: httpx.Response) -> Reading | Unread:
    body = reply.json()
    if not body["ok"]:  # let pass by `classify`
        return Unread(remote_id, str(body["error"]))
    message = body["message"]  # one that nobody reacted to has no such list
    likes = sum(reaction["count"] for reaction in message.get("reactions", []))
    return Reading(remote_id, {"likes": likes, "comments": message.get("reply_count")})


def _uploads(delivery: Delivery) -> dict[str, Any]:
    """The file id of each item, and when the first was sent; none that may have been dropped."""
    state, now = delivery.state, delivery.attempted_at
    begun = datetime.fromisoformat(state["begun"]) if state.get("begun") else None
    if begun is not None and now is not None and now - begun > UPLOADS_LAST:
        return {"files": {}, "begun": now.isoformat()}
    first = begun or now
    return {"files": dict(state.get("files", {})), "begun": first.isoformat() if first else None}


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _key_of(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != EVENT_TYPE:
        return None
    key: str | None = metadata["event_payload"].get(EVENT_KEY)
    return key


def _instant(ts: str) -> datetime:
    """`1503435956.000247`: a message's name in its channel, and its time."""
    return datetime.fromtimestamp(float(ts), UTC)
