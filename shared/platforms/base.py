"""The shape of a platform: what an adapter is given, what it yields, what it returns.

An adapter is sans-I/O. Its flows are generators: they yield steps (a `Call`, a `Keep`, a
`TimeIsShort`, a `PublicUrl`, a `Look`) and are sent the answers; `driver.py` does the sending. So a
conversation of several requests reads from top to bottom, and a test can play the platform by hand.

A flow never sleeps, loops over retries, reads a clock or logs. It marks the one call that creates
the post with `commits=True`; what a lost answer to that call means is the driver's business.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from shared.domain.accounts import Tokens
from shared.domain.deliveries import FIRST_COMMENT
from shared.domain.failures import (
    AuthExpiredError,
    PermanentError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import MediaItem

# --- what an adapter is given -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be posted, as far as limits can be checked before there is a delivery.

    `platform_user_id` tells the kind of account where a platform has several; `limits` are the
    account's own, where they differ from its platform's: `textChars`, `mediaItems`, `imageBytes`,
    `videoBytes`, `dailyPosts`.
    """

    text: str
    media: tuple[MediaItem, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    platform_user_id: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One post to one account, as an adapter sees it.

    `platform_user_id` is the account's own id on the platform (a URN, a page id), `handle` its
    public name where known, `server` the host of a federated platform. `key` is the native
    idempotency key: the same while the content is the same. `state` holds what an earlier attempt
    kept. `unsettled_since` is when a call that may have created the post was first sent and never
    settled: None on a fresh delivery. `attempted_at` is when this attempt began, for state that
    grows old: a flow has no clock. `above` holds the remote ids of the parts of its thread before
    this one, the first one first: this one replies to the last. On a platform that takes no threads
    it is the first comment on that post.
    """

    id: str
    key: str
    text: str
    platform_user_id: str
    media: tuple[MediaItem, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    handle: str | None = None
    server: str | None = None
    unsettled_since: datetime | None = None
    attempted_at: datetime | None = None
    above: tuple[str, ...] = ()

    @property
    def reply_to(self) -> str | None:
        return self.above[-1] if self.above else None


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """Posts of one account, at most `metrics_batch` of them, whose metrics are asked for now."""

    platform_user_id: str
    remote_ids: tuple[str, ...]
    asked_at: datetime
    server: str | None = None


# --- what a flow yields -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. At most one of `json`, `form` (with `files`) and `media` is its body.

    `files` maps a multipart field to the media item that is streamed into it; `media` streams the
    item's bytes as the body itself; `span`, first byte and length, narrows either to a piece of an
    item that was found, a few megabytes that are held in memory. `secrets` are the parts of the URL
    that nobody may read, on a platform that wants its token there.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] | None = None
    json: Any = None
    form: Mapping[str, str] | None = None
    files: Mapping[str, MediaItem] | None = None
    media: MediaItem | None = None
    span: tuple[int, int] | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request; the flow receives an `httpx.Response` that `classify` let pass.

    `commits`: this call creates the post. `optional`: the flow receives None instead of an error
    (a permalink that cannot be read does not unpublish a post). `name` is for logs and `classify`.
    """

    request: Request
    name: str
    commits: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Put `state` on record before it is used; it replaces what was kept before."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TimeIsShort:
    """The flow receives whether this request may end within its next call, which sends that many
    bytes. Then it returns `Processing`, and the next request goes on: so an upload of any size
    needs no long one. A file that goes in one body needs a request that has just begun: one that
    nothing was sent in yet never asks."""

    for_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """The flow receives an https URL under which the platform can fetch this item for an hour."""

    item: MediaItem


@dataclass(frozen=True, slots=True)
class Look:
    """The flow receives the item as its file is now, a `FoundItem`. All that is then sent of that
    is of one version, or the delivery ends as `media_changed`."""

    item: MediaItem


@dataclass(frozen=True, slots=True)
class Reading:
    """One post's metrics under our names (`domain.analytics.METRICS`), as of `source_at` where the
    platform says. What it does not tell is left out, or None: a gap, never a zero."""

    remote_id: str
    metrics: Mapping[str, Any]
    source_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A post whose metrics cannot be had, while others' can."""

    remote_id: str
    code: str
    message: str = ""


# --- what a flow returns ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published:
    """The platform has the post. `published_at` is the platform's own time where it gives one.

    `found`: no answer to our call said so; the post was found. It then counts only as evidence.
    """

    remote_id: str
    remote_url: str | None = None
    published_at: datetime | None = None
    found: bool = False


@dataclass(frozen=True, slots=True)
class Processing:
    """The platform works on it; ask again after `check_after` with this state."""

    state: Mapping[str, Any]
    check_after: timedelta


@dataclass(frozen=True, slots=True)
class Grant:
    """New tokens as the platform words them: a lifetime, not an instant."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_in: timedelta | None = None


Step = Call | Keep | TimeIsShort | PublicUrl | Look
Flow = Generator[Step, Any, Published | Processing]
RefreshFlow = Generator[Call, Any, Grant]
LimitsFlow = Generator[Call, Any, Mapping[str, Any]]
MetricsFlow = Generator[Call | Reading | Unread, Any, None]


# --- what a platform declares -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """What settles an outcome that nobody knows; one of the four below.

    `kind` and `means` say which, `rests_on` what of the platform's it relies on, `risk` what may go
    wrong all the same: words for people, of which README's table is made (`make tables`).
    """

    kind: ClassVar[str]
    means: ClassVar[str]
    rests_on: str = field(default="", compare=False)
    risk: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Exact(Guarantee):
    """Repeating the very same call creates nothing new."""

    kind = "exact"
    means = "The same call again creates nothing new."


@dataclass(frozen=True, slots=True)
class Windowed(Guarantee):
    """A repeat with the same key is safe between `earliest` and `latest` after the first call."""

    kind = "windowed"
    means = "The same call again is safe inside this window only."
    earliest: timedelta
    latest: timedelta


@dataclass(frozen=True, slots=True)
class ReadBack(Guarantee):
    """A lookup can prove that the post is there, never that it is not."""

    kind = "readback"
    means = "A lookup can prove that the post is there."


@dataclass(frozen=True, slots=True)
class NoGuarantee(Guarantee):
    """Neither key nor lookup: a person decides."""

    kind = "none"
    means = "After a lost answer a person has to look."


@dataclass(frozen=True, slots=True)
class Limits:
    """What a platform refuses, counted as it counts.

    `text_unit` says in words what is counted. `media_types` maps a content type to the largest size
    in bytes. `required_media`: a post without media is refused. `mixed_media`: images and videos
    may stand together. `daily_posts`: how many an account may publish in any 24 h; beyond, the
    platform makes it wait. `daily_replies`: a thread's replies are counted among them.
    """

    text_chars: int
    media_items: int
    media_types: Mapping[str, int]
    required_media: bool = False
    required_text: bool = False
    mixed_media: bool = False
    video_items: int = 1
    text_unit: str = "characters"
    daily_posts: int | None = None
    daily_replies: bool = True


READ_METRICS = "read metrics"  # the call's name, in each adapter
READ_LIMITS = "read limits"
TROUBLES_IN_A_ROW = 3  # by then it is not the post

_BYTES = {"image": "imageBytes", "video": "videoBytes"}  # of the own limits
_ID = re.compile(r"[\w:.\-]*")
_CREDENTIALS = frozenset({"access_token", "refresh_token", "client_secret"})
_SERVER = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?")


def _private(request: Request) -> Iterator[str]:
    """What this request says that no log may: its credential, and all that is not a mere id."""
    yield from request.headers.get("Authorization", "").split()[1:]
    yield from request.secrets
    waiting: list[Any] = [request.json, request.form]
    while waiting:
        match waiting.pop():
            case str(text) if not _ID.fullmatch(text):
                yield text
                yield text.replace("\\", "")
                yield html.unescape(text)
                waiting.append(_unfolded(text))
            case Mapping() as fields:
                waiting += fields.values()
                yield from (fields[name] for name in _CREDENTIALS & fields.keys())
            case list() | tuple() as items:
                waiting += items


def _unfolded(text: str) -> Any:
    """What a form's field says where it is JSON itself."""
    try:
        return json.loads(text) if text.startswith(("{", "[")) else None
    except ValueError:
        return None


def fields_of(reply: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer that may be anything; empty where it is none."""
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def answered_at(reply: httpx.Response) -> datetime | None:
    """When the platform answered, by its own clock."""
    try:
        return parsedate_to_datetime(reply.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def pieces(size_bytes: int, most_bytes: int) -> list[tuple[int, int]]:
    """The spans, of `most_bytes` or fewer, that make up a file."""
    return [
        (first, min(most_bytes, size_bytes - first)) for first in range(0, size_bytes, most_bytes)
    ]


def is_server(name: str | None) -> bool:
    """Whether it is a host's public name: no address, port, path or user."""
    return name is not None and _SERVER.fullmatch(name) is not None


class Options(BaseModel):
    """A platform's own options; each adapter subclasses it. Unknown names are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        defer_build=True,
    )


@dataclass(frozen=True, slots=True)
class App:
    """Our registration with a platform, from settings: where it answers and who we are there, and
    the version of its API that we ask for, where that is not the adapter's own.

    `api_url` may hold `{server}`: each account has its own there.
    """

    api_url: str
    client_id: str | None = None
    client_secret: str | None = None
    auth_url: str | None = None
    api_version: str | None = None


REFRESH_AHEAD = timedelta(minutes=30)  # two runs of `maintain/refresh`


class Platform:
    """One platform's dialect. Subclasses fill in the class attributes and the flows."""

    name: ClassVar[str]
    label: ClassVar[str]  # as people write it
    api_url: ClassVar[str]  # where it answers unless a setting says otherwise
    auth_url: ClassVar[str | None] = None  # where tokens are refreshed, if elsewhere
    guarantee: ClassVar[Guarantee]
    # Where the kind of account matters: each kind as people call it, with an id that shows it.
    account_kinds: ClassVar[Mapping[str, str]] = {}
    limits: ClassVar[Limits]
    options: ClassVar[type[Options]] = Options
    # Whether a flow publishes a delivery with something `above` it as a reply to that, and looks
    # such a one up; `opening`: options that a thread's first part alone carries.
    threads: ClassVar[bool] = False
    opening: ClassVar[frozenset[str]] = frozenset()
    # Statuses by which this platform says that it did not accept a committing call. Any other
    # answer that is not a success leaves the outcome unknown.
    refusals: ClassVar[frozenset[int]] = frozenset({400, 401, 403, 404, 413, 422, 429})
    refreshes: ClassVar[bool] = False
    tells_limits: ClassVar[bool] = False  # an account's own, where they may differ
    metrics_batch: ClassVar[int] = 0  # posts that one `metrics` flow takes; 0: there is none
    alt_text: ClassVar[bool] = True
    link_card: ClassVar[str | None] = None  # the option that shows a link as a card
    # For people, in README: what it lacks of `features.py`, with the reason; and what its
    # requests and answers are held against: all that is known of them where nobody has tried it.
    lacks: ClassVar[Mapping[str, str]] = {}
    built_to: ClassVar[str]
    # Whether reading and publishing spend the same limit: a throttle of one is then the other's.
    shares_limits: ClassVar[bool] = False

    def __init__(self, app: App | None = None) -> None:
        self.app = app or App(api_url=self.api_url, auth_url=self.auth_url)

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        """Create the post, going on from `delivery.state`."""
        raise NotImplementedError(self.name)

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        """Find the post of a call that was never answered: `Published(found=True)`, or raises
        `OutcomeUnknownError`. Creates nothing; absent where nothing can be read back."""
        raise NotImplementedError(self.name)

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        """Exchange the refresh token; absent where `refreshes` is False."""
        raise NotImplementedError(self.name)

    def own_limits(self, platform_user_id: str, server: str | None, token: str) -> LimitsFlow:
        """What the platform says of this account's limits, by the names of `Draft.limits`; absent
        where `tells_limits` is False."""
        raise NotImplementedError(self.name)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        """Yield a `Reading` or an `Unread` for each post; absent where `metrics_batch` is 0.

        Here an `optional` call is one about a single post: a failure that may pass brings None.
        """
        raise NotImplementedError(self.name)

    def metrics_one_by_one(
        self,
        remote_ids: Iterable[str],
        ask: Callable[[str], Request],
        read: Callable[[str, httpx.Response], Reading | Unread],
    ) -> MetricsFlow:
        """`metrics` where each post takes a call of its own. A post that makes trouble is passed
        over once another one has shown that the platform itself is well."""
        troubled: list[str] = []
        told = 0
        for remote_id in remote_ids:
            reply = yield Call(ask(remote_id), READ_METRICS, optional=True)
            if reply is None:
                troubled.append(remote_id)
                if len(troubled) == TROUBLES_IN_A_ROW:
                    break
                continue
            for earlier in troubled:
                yield Unread(earlier, "no_answer")
            troubled.clear()
            told += 1
            yield read(remote_id, reply)
        if troubled and (not told or len(troubled) == TROUBLES_IN_A_ROW):
            message = f"{self.label} does not tell the numbers of posts"
            raise TransientError(message, code="no_answer")
        for remote_id in troubled:
            yield Unread(remote_id, "no_answer")

    def metrics_refusal(self, platform_user_id: str) -> str | None:
        """Why the metrics of this kind of account cannot be read, as a code; None if they can."""
        return None

    def options_of(self, part: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """What of a post's options the `part` of its thread carries, from 0."""
        opening = {*self.opening, *map(to_camel, self.opening)} if part else ()
        return {name: value for name, value in options.items() if name not in opening}

    def guarantee_for(self, platform_user_id: str) -> Guarantee:
        """`guarantee`, or this kind of account's where it differs."""
        return self.guarantee

    def guarantee_of(self, delivery: Delivery) -> Guarantee:
        """What settles this one: a first comment's may differ from its post's."""
        return self.guarantee_for(delivery.platform_user_id)

    @property
    def first_comment(self) -> bool:
        """Whether it takes one, as an option: the part after a post, that is no post itself."""
        return FIRST_COMMENT[1] in self.options.model_fields

    def refreshable(self, tokens: Tokens) -> bool:
        """Whether these tokens can be exchanged for newer ones without their owner."""
        return self.refreshes and tokens.refresh_token is not None

    def refresh_at(self, ends_at: datetime, now: datetime) -> datetime:
        """When a token stored now that ends then is exchanged, if no post needs it before."""
        return ends_at - REFRESH_AHEAD

    # where it answers

    @property
    def federated(self) -> bool:
        """Whether each account has its own server."""
        return "{server}" in self.app.api_url

    @property
    def at_named_hosts(self) -> bool:
        """Whether it is the account that names the host to connect to."""
        return "{server}" in urlsplit(self.app.api_url).netloc

    def host(self, server: str | None) -> str:
        """The API's address; that of the account's own server where the platform has many."""
        if not self.federated:
            return self.app.api_url
        if not is_server(server):
            raise PermanentError(f"The account's {self.label} server is unknown", code="no_server")
        return self.app.api_url.replace("{server}", server or "")

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        """What `reply` means; None lets it pass to the flow."""
        status = reply.status_code
        if 200 <= status < 300:
            return None
        message, code = self.said(call, reply), self.code(reply)
        about: dict[str, Any] = {"status": status, "request_id": self.request_id(reply)}
        if status == 401:
            return AuthExpiredError(message, code=code or "token_refused", **about)
        if status == 429:
            until = self.reset_at(reply)
            return ThrottledError(message, until=until, code=code or "throttled", **about)
        if status == 408 or status >= 500:
            return TransientError(message, code=code or f"http_{status}", **about)
        return PermanentError(message, code=code or f"http_{status}", **about)

    def said(self, call: Call, reply: httpx.Response) -> str:
        """`message`, without our token and texts: platforms like to quote what they refuse."""
        sentence = self.message(reply)
        for private in _private(call.request):
            sentence = sentence.replace(private, "…")
        return sentence

    def message(self, reply: httpx.Response) -> str:
        """The platform's own sentence about a failure; the status where there is none.

        Like `code`, it copes with any body.
        """
        return f"{self.label} answered {reply.status_code}"

    def code(self, reply: httpx.Response) -> str | None:
        """The platform's own code of a failure."""
        return None

    def request_id(self, reply: httpx.Response) -> str | None:
        """The id that the platform's support asks for."""
        return None

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """When a throttled caller may come back: an instant, or a wait from now."""
        wait = reply.headers.get("Retry-After", "")
        return timedelta(seconds=int(wait)) if wait.isdigit() else None

    # limits

    def text_length(self, text: str) -> int:
        """Length as this platform counts it."""
        return len(text)

    def draft_length(self, draft: Draft) -> int:
        """All that counts against `text_chars`."""
        return self.text_length(draft.text)

    def limits_of(self, draft: Draft) -> Limits:
        """`limits`, with what the account's own say instead."""
        own: dict[str, Any] = {
            "text_chars": draft.limits.get("textChars"),
            "media_items": draft.limits.get("mediaItems"),
            "daily_posts": draft.limits.get("dailyPosts"),
            "media_types": {
                kind: draft.limits.get(_BYTES[kind.partition("/")[0]]) or most
                for kind, most in self.limits.media_types.items()
            },
        }
        return replace(self.limits, **{name: most for name, most in own.items() if most})

    def check(self, draft: Draft) -> list[Problem]:
        """Every limit that the draft breaks; `field` is relative to the target."""
        limits = self.limits
        problems = [
            *self._check_text(draft),
            *self._check_media(draft),
            *self._check_options(draft),
        ]
        if limits.required_media and not draft.media:
            problems.append(Problem("media", "media_required", f"{self.label} posts need media."))
        if not draft.text.strip() and (limits.required_text or not draft.media):
            problems.append(
                Problem("content", "content_required", f"{self.label} posts need text.")
            )
        return problems

    def _check_text(self, draft: Draft) -> list[Problem]:
        length, most = self.draft_length(draft), self.limits_of(draft).text_chars
        if length <= most:
            return []
        sentence = f"The text counts {length} on {self.label}, which takes at most {most}."
        return [Problem("content", "text_too_long", sentence)]

    def _check_media(self, draft: Draft) -> list[Problem]:
        limits, media = self.limits_of(draft), draft.media
        problems = []
        if len(media) > limits.media_items:
            sentence = f"{self.label} takes at most {limits.media_items} items, not {len(media)}."
            problems.append(Problem("media", "too_many_media", sentence))
        videos = sum(item.is_video for item in media)
        if videos > limits.video_items or (
            videos and videos < len(media) and not limits.mixed_media
        ):
            sentence = f"{self.label} does not take this mix of images and videos in one post."
            problems.append(Problem("media", "media_mix", sentence))
        for index, item in enumerate(media):
            most = limits.media_types.get(item.content_type)
            if most is None:
                kinds = ", ".join(limits.media_types)
                sentence = f"{self.label} does not take {item.content_type}, only {kinds}."
                problems.append(Problem(f"media[{index}]", "media_type", sentence))
            elif item.size_bytes is not None and item.size_bytes > most:
                sentence = (
                    f"This {item.content_type} has {item.size_bytes} bytes; "
                    f"{self.label} takes at most {most}."
                )
                problems.append(Problem(f"media[{index}]", "media_too_large", sentence))
        return problems

    def _check_options(self, draft: Draft) -> list[Problem]:
        return self.check_options(draft.options)

    def check_options(self, options: Mapping[str, Any]) -> list[Problem]:
        """What the platform would refuse of these options, whatever they are sent with."""
        try:
            self.options.model_validate(options)
        except ValidationError as error:
            return [
                Problem(
                    ".".join(["options", *map(str, fault["loc"])]), "option_invalid", fault["msg"]
                )
                for fault in error.errors(include_url=False)
            ]
        return []
