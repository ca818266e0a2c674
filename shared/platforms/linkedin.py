"""LinkedIn: posts of members and of organizations.

Source: https://learn.microsoft.com/linkedin/marketing/community-management/shares/posts-api,
…/comments-api, …/images-api, …/videos-api, …/little-text-format, …/organizations/share-statistics,
…/shared/api-guide/concepts/error-handling and …/rate-limits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import httpx
from pydantic import Field

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    DuplicateError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import FoundItem, MediaItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Grant,
    Guarantee,
    Keep,
    Limits,
    Look,
    MetricsFlow,
    MetricsQuery,
    NoGuarantee,
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

# Of the API, unless LINKEDIN_API_VERSION says otherwise. Each is served for about a year, then
# every call answers 426.
VERSION = "202601"
MEGABYTE = 1024 * 1024
CREATE_COMMENT = "create comment"
VIDEO = "video/mp4"
CHECK_VIDEO = timedelta(seconds=10)
AT_ONCE = timedelta(seconds=1)  # the next request goes on
TO_SPARE = timedelta(minutes=5)  # before the addresses of an upload end
IMAGE_PIXELS = 36_152_320  # width times height has to be less
ALT_TEXT_CHARS = 4086
COMMENT_CHARS = 1250
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours

RESERVED = re.compile(r"[\\|{}@\[\]()<>#*_~]")
HASHTAG = re.compile(r"(?<![\w/&?=])#(?=\w*[^\W\d_])[^\W_]+")
WRITTEN_TAG = re.compile(r"\{hashtag\|\\?#\|([^}]*)\}")  # how posts that are read back show a tag
ORGANIZATIONS_GUARANTEE = ReadBack(
    rests_on="the organization's posts, looked through seven times in half an hour",
    risk="no second post without a person's order; a post that LinkedIn shows later than that is "
    "left to one",
)
POST_URN = re.compile(r"urn:li:(?:share|ugcPost):(\d+)")


class Article(Options):
    """A link card. LinkedIn reads nothing from the page: what is not given here is not shown."""

    source: str = Field(pattern=r"^https?://")
    title: str = Field(min_length=1, max_length=400)
    description: str | None = None


class LinkedInOptions(Options):
    visibility: Literal["PUBLIC", "CONNECTIONS"] = "PUBLIC"
    article: Article | None = None
    is_reshare_disabled_by_author: bool = False
    first_comment: str | None = Field(None, pattern=r"\S", max_length=COMMENT_CHARS)


class LinkedIn(Platform):
    """`platform_user_id` is the author: `urn:li:person:…` or `urn:li:organization:…`."""

    name = "linkedin"
    label = "LinkedIn"
    api_url = "https://api.linkedin.com"
    auth_url = "https://www.linkedin.com"
    guarantee = NoGuarantee(
        rests_on="a person: the permission to read a member's posts is closed to most apps",
        risk="no second post without a person's order; LinkedIn refuses most of those, naming the "
        "first",
    )
    account_kinds: ClassVar[Mapping[str, str]] = {
        "organization": "urn:li:organization:1",
        "member": "urn:li:person:a1",
    }
    limits = Limits(
        text_chars=3000,
        media_items=20,
        media_types={
            "image/jpeg": 10 * MEGABYTE,
            "image/png": 10 * MEGABYTE,
            "image/gif": 10 * MEGABYTE,
            VIDEO: 500 * MEGABYTE,
        },
    )
    options = LinkedInOptions
    link_card = "article"
    lacks: ClassVar[Mapping[str, str]] = {
        "thread": "posts follow no other",
        "metrics": "a member's figures need a permission that few apps are given",
    }
    built_to = (
        "documentation alone; that a duplicate is named, and how long a comment may be, by what "
        "its clients report"
    )
    # 409 is a write conflict, 426 a version of the API that is served no more:
    # {"status": 426, "code": "NONEXISTENT_VERSION", "message": "Requested version … is not active"}
    refusals = Platform.refusals | {409, 426}
    refreshes = True
    metrics_batch = 50  # the size of a list is not documented; this one makes a URL of 3,000 signs

    def guarantee_for(self, platform_user_id: str) -> Guarantee:
        """An organization's posts can be read; r_member_social is closed to most apps."""
        return ORGANIZATIONS_GUARANTEE if _is_organization(platform_user_id) else self.guarantee

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        if delivery.above:
            return (yield from self._comment(delivery, token))
        options = LinkedInOptions.model_validate(delivery.options)
        media = yield from self._upload(delivery, token)
        if isinstance(media, Processing):
            return media
        post: dict[str, Any] = {
            "author": delivery.platform_user_id,
            "commentary": little_text(delivery.text),
            "visibility": options.visibility,
            "distribution": {
                "feedDistribution": "MAIN_FEED",
                "targetEntities": [],
                "thirdPartyDistributionChannels": [],
            },
            "lifecycleState": "PUBLISHED",
            "isReshareDisabledByAuthor": options.is_reshare_disabled_by_author,
        }
        content = _content(media, options.article)
        if content:
            post["content"] = content
        create = Request("POST", f"{self.app.api_url}/rest/posts", self._headers(token), json=post)
        reply = yield Call(create, "create post", commits=True)
        urn = reply.headers.get("x-restli-id", "")  # 201 with an empty body
        return Published(urn, remote_url=_permalink(urn), published_at=_made_at(urn))

    def _comment(self, delivery: Delivery, token: str) -> Flow:
        """Plain text: what is reserved in a post is not in a comment."""
        about = {"actor": delivery.platform_user_id, "object": delivery.above[0]}
        comment = about | {"message": {"text": delivery.text}}
        create = Request("POST", self._comments(delivery), self._headers(token), json=comment)
        reply = yield Call(create, CREATE_COMMENT, commits=True)
        return _commented(reply.json(), delivery)

    def _comments(self, delivery: Delivery) -> str:
        post = quote(delivery.above[0], safe="")
        return f"{self.app.api_url}/rest/socialActions/{post}/comments"

    def _upload(
        self, delivery: Delivery, token: str
    ) -> Generator[Step, Any, list[tuple[MediaItem, str]] | Processing]:
        """Each item with its URN. An upload that nothing names expires unseen."""
        if delivery.media and delivery.media[0].is_video:
            return (yield from self._upload_video(delivery, delivery.media[0], token))
        urns: dict[str, str] = dict(delivery.state.get("images", {}))
        owner = {"initializeUploadRequest": {"owner": delivery.platform_user_id}}
        sent = False
        for item in delivery.media:
            if item.id in urns:
                continue
            if sent and (yield TimeIsShort()):
                return Processing({"images": urns}, AT_ONCE)
            url = f"{self.app.api_url}/rest/images?action=initializeUpload"
            reply = yield Call(
                Request("POST", url, self._headers(token), json=owner), "begin upload"
            )
            upload = reply.json()["value"]
            put = Request("PUT", upload["uploadUrl"], _octets(token), media=item)
            yield Call(put, "upload")
            urns[item.id] = upload["image"]
            yield Keep({"images": dict(urns)})
            sent = True
        if sent and (yield TimeIsShort()):
            return Processing({"images": urns}, AT_ONCE)
        return [(item, urns[item.id]) for item in delivery.media]

    def _upload_video(
        self, delivery: Delivery, item: MediaItem, token: str
    ) -> Generator[Step, Any, list[tuple[MediaItem, str]] | Processing]:
        """In the pieces that LinkedIn names, and then waited for: posted earlier, it is refused."""
        video = _Video.of(delivery)
        if video is None:
            video = yield from self._begin_video(delivery, item, token)
        found = FoundItem.of(item, video.pieces[-1]["lastByte"] + 1, video.version)
        for piece in video.pieces[len(video.etags) :]:
            if (yield TimeIsShort()):
                return Processing(video.state(), AT_ONCE)
            first, last = piece["firstByte"], piece["lastByte"]
            span = (first, last - first + 1)
            put = Request("PUT", piece["uploadUrl"], _octets(token), media=found, span=span)
            reply = yield Call(put, "upload")
            video.etags.append(reply.headers["ETag"])
        if not video.finished:
            about = {"video": video.urn, "uploadToken": video.token}
            body = {"finalizeUploadRequest": about | {"uploadedPartIds": video.etags}}
            url = f"{self.app.api_url}/rest/videos?action=finalizeUpload"
            yield Call(Request("POST", url, self._headers(token), json=body), "end upload")
            video.finished = True
            yield Keep(video.state())
        url = f"{self.app.api_url}/rest/videos/{quote(video.urn, safe='')}"
        reply = yield Call(Request("GET", url, self._headers(token)), "read media")
        match reply.json()["status"]:
            case "AVAILABLE":
                return [(item, video.urn)]
            case "PROCESSING_FAILED":
                reason = str(fields_of(reply).get("processingFailureReason") or "no reason given")
                message = f"LinkedIn could not process the video: {reason}"
                raise PermanentError(message, code="media_failed")
        return Processing(video.state(), CHECK_VIDEO)

    def _begin_video(
        self, delivery: Delivery, item: MediaItem, token: str
    ) -> Generator[Step, Any, _Video]:
        found: FoundItem = yield Look(item)
        about = {"owner": delivery.platform_user_id, "fileSizeBytes": found.size_bytes}
        more = {"uploadCaptions": False, "uploadThumbnail": False}
        url = f"{self.app.api_url}/rest/videos?action=initializeUpload"
        body = {"initializeUploadRequest": about | more}
        reply = yield Call(Request("POST", url, self._headers(token), json=body), "begin upload")
        value = reply.json()["value"]
        ends = value.get("uploadUrlsExpireAt")
        video = _Video(
            urn=value["video"],
            token=value.get("uploadToken", ""),
            pieces=value["uploadInstructions"],
            ends=int(ends) if ends else None,
            version=found.version,
        )
        yield Keep(video.state())
        return video

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if not _is_organization(delivery.platform_user_id) or delivery.unsettled_since is None:
            raise OutcomeUnknownError("A member's posts cannot be read back", code="not_readable")
        if delivery.above:
            return (yield from self._find_comment(delivery, token))
        # Rest.li wants the colons of a URN encoded, so the query is written by hand.
        author = quote(delivery.platform_user_id, safe="")
        url = f"{self.app.api_url}/rest/posts?q=author&author={author}&count=50&sortBy=CREATED"
        headers = self._headers(token) | {"X-RestLi-Method": "FINDER"}
        reply = yield Call(Request("GET", url, headers), "find post")
        since, ours = delivery.unsettled_since - CLOCKS_APART, _plain(delivery.text)
        found = [
            post["id"]
            for post in reply.json()["elements"]
            if (made_at := _made_at(post["id"])) is not None
            and made_at >= since
            and _plain(_unmarked(post.get("commentary", ""))) == ours
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        urn = found[0]
        return Published(urn, _permalink(urn), published_at=_made_at(urn), found=True)

    def _find_comment(self, delivery: Delivery, token: str) -> Flow:
        """{"elements": [{"actor": "urn:li:organization:7", "message": {"text": "…"}, "id": …}]}"""
        url = f"{self._comments(delivery)}?count=100"
        reply = yield Call(Request("GET", url, self._headers(token)), "find comment")
        found = [
            comment
            for comment in reply.json()["elements"]
            if comment["actor"] == delivery.platform_user_id
            and _plain(comment["message"]["text"]) == _plain(delivery.text)
        ]
        if len(found) != 1:
            message = f"{len(found)} comments of ours have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        return replace(_commented(found[0], delivery), found=True)

    def metrics_refusal(self, platform_user_id: str) -> str | None:
        """A member's figures need r_member_postAnalytics, which few apps are given, and five calls
        for each post."""
        return None if _is_organization(platform_user_id) else "member_metrics_closed"

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        shares = tuple(urn for urn in query.remote_ids if urn.startswith("urn:li:share:"))
        posts = tuple(urn for urn in query.remote_ids if urn.startswith("urn:li:ugcPost:"))
        for urn in query.remote_ids:
            if urn not in shares and urn not in posts:
                yield Unread(urn, "not_a_post")
        if shares or posts:
            yield from self._statistics(query.platform_user_id, shares, posts, token)

    def _statistics(
        self, organization: str, shares: tuple[str, ...], posts: tuple[str, ...], token: str
    ) -> MetricsFlow:
        """Refused as a whole for one of its URNs, the list is asked for by halves."""
        # Rest.li: the colons of a URN are encoded, the parentheses and commas of a list are not.
        lists = "".join(
            f"&{name}=List({','.join(quote(urn, safe='') for urn in urns)})"
            for name, urns in (("shares", shares), ("ugcPosts", posts))
            if urns
        )
        entity = quote(organization, safe="")
        url = (
            f"{self.app.api_url}/rest/organizationalEntityShareStatistics"
            f"?q=organizationalEntity&organizationalEntity={entity}{lists}"
        )
        reply = yield Call(Request("GET", url, self._headers(token)), READ_METRICS)
        asked = (*shares, *posts)
        if reply.status_code >= 400:  # let pass by `classify`
            if len(asked) == 1:
                code = self.code(reply) or f"http_{reply.status_code}"
                yield Unread(asked[0], code, self.message(reply))
                return
            middle = len(asked) // 2
            for half in (asked[:middle], asked[middle:]):
                some = tuple(urn for urn in half if urn in shares)
                others = tuple(urn for urn in half if urn in posts)
                yield from self._statistics(organization, some, others, token)
            return
        told = {
            element.get("share") or element.get("ugcPost"): element["totalShareStatistics"]
            for element in reply.json()["elements"]
        }
        for urn in asked:  # one without activity may be left out: nothing is known, not zero
            yield Reading(urn, _metrics(told.get(urn, {})))

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        if tokens.refresh_token is None:
            raise AuthExpiredError("There is no refresh token", code="no_refresh_token")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh_token,
            "client_id": self.app.client_id or "",
            "client_secret": self.app.client_secret or "",
        }
        url = f"{self.app.auth_url}/oauth/v2/accessToken"
        reply = yield Call(Request("POST", url, form=form), "refresh")
        body = reply.json()
        # The refresh token keeps the life that it had: 365 days from the consent.
        return Grant(
            access_token=body["access_token"],
            refresh_token=body.get("refresh_token"),
            expires_in=timedelta(seconds=body["expires_in"]),
        )

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            return None
        body: Mapping[str, Any] = reply.json()
        message, about = self.said(call, reply), self._about(reply)
        if call.name == "refresh":
            return self._refresh_refused(body, status, message, about)
        # 422 {"message": "Content is a duplicate of urn:li:share:6846854212345678901"}; one that
        # names urn:li:person:… is about the member's rights, whatever its words.
        copied = POST_URN.search(str(body.get("message", "")))
        ours = call.name == "create post" and copied is not None
        if status == 422 and ours and copied and "duplicate" in message.lower():
            urn = copied[0]
            link, made_at = _permalink(urn), _made_at(urn)
            return DuplicateError(
                message, remote_id=urn, remote_url=link, published_at=made_at, **about
            )
        if status == 429:
            return self._throttled(reply, message, about)
        if call.name == READ_METRICS and status in (400, 404, 422):
            return None  # one of many URNs: the flow looks at it
        if status == 409 or (status == 404 and call.name == CREATE_COMMENT):
            # A post that was made a moment ago may not be there yet for whoever comments on it.
            return TransientError(message, code=self.code(reply) or f"http_{status}", **about)
        return super().classify(call, reply)

    def _refresh_refused(
        self, body: Mapping[str, Any], status: int, message: str, about: dict[str, Any]
    ) -> PlatformError:
        code = str(body.get("error") or f"http_{status}")
        if code in ("invalid_grant", "invalid_request"):
            return AuthExpiredError(message, code=code, **about)
        if status == 429:
            return ThrottledError(message, code=code, **about)
        if status >= 500:
            return TransientError(message, code=code, **about)
        return PermanentError(message, code=code, **about)  # our own credentials are refused

    def _throttled(
        self, reply: httpx.Response, message: str, about: dict[str, Any]
    ) -> ThrottledError:
        """Daily limits end at midnight UTC; what else there may be says nothing of its end.

        {"message": "Resource level throttle APPLICATION DAY limit for calls to this resource is
        reached."}, or APPLICATION_AND_MEMBER.
        """
        return ThrottledError(
            message,
            until=_midnight_after(reply) if re.search(r"\bDAY\b", message) else None,
            scope="platform" if re.search(r"\bAPPLICATION\b", message) else "account",
            code=self.code(reply) or "throttled",
            **about,
        )

    def _about(self, reply: httpx.Response) -> dict[str, Any]:
        return {"status": reply.status_code, "request_id": self.request_id(reply)}

    @property
    def _version(self) -> str:
        return self.app.api_version or VERSION

    def _headers(self, token: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "Linkedin-Version": self._version,
            "X-Restli-Protocol-Version": "2.0.0",
        }

    def message(self, reply: httpx.Response) -> str:
        if reply.status_code == 426:
            return (
                f"LinkedIn serves version {self._version} of its API no more. Raise "
                "LINKEDIN_API_VERSION to one that it serves, and redrive what has failed meanwhile."
            )
        body = fields_of(reply)
        sentence = body.get("message") or body.get("error_description")
        return str(sentence) if sentence else super().message(reply)

    def code(self, reply: httpx.Response) -> str | None:
        body = fields_of(reply)
        if body.get("code"):
            return str(body["code"])
        number = body.get("serviceErrorCode")
        return f"linkedin_{number}" if number else None

    def request_id(self, reply: httpx.Response) -> str | None:
        request: str | None = reply.headers.get("x-li-uuid")
        return request

    # limits

    def text_length(self, text: str) -> int:
        """Length of what is sent: the limit is on the field, escapes included."""
        return len(little_text(text))

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        if draft.media and draft.options.get("article"):
            sentence = "A LinkedIn post shows either an article or media, not both."
            problems.append(Problem("options.article", "media_mix", sentence))
        for index, item in enumerate(draft.media):
            if item.is_video:
                continue
            if item.width and item.height and item.width * item.height >= IMAGE_PIXELS:
                sentence = f"LinkedIn takes images of fewer than {IMAGE_PIXELS} pixels."
                problems.append(Problem(f"media[{index}]", "media_too_large", sentence))
            if len(item.alt_text or "") > ALT_TEXT_CHARS:
                sentence = f"LinkedIn takes an alt text of at most {ALT_TEXT_CHARS} characters."
                problems.append(Problem(f"media[{index}]", "alt_text_too_long", sentence))
        return problems


@dataclass(slots=True)
class _Video:
    """A video on its way: where each piece goes, and the ETags of those that are there."""

    urn: str
    token: str
    pieces: list[dict[str, Any]]
    ends: int | None  # of the addresses, in epoch milliseconds
    version: str = ""  # of the file that the pieces are of
    etags: list[str] = field(default_factory=list)
    finished: bool = False

    @classmethod
    def of(cls, delivery: Delivery) -> _Video | None:
        """As it was kept; None where nothing is, or where its addresses are about to end."""
        kept, now = delivery.state.get("video"), delivery.attempted_at
        if kept is None:
            return None
        video = cls(**{**kept, "etags": list(kept["etags"])})
        if video.ends is None or video.finished or now is None:
            return video
        return video if (now + TO_SPARE).timestamp() * 1000 < video.ends else None

    def state(self) -> dict[str, Any]:
        return {"video": asdict(self)}


def little_text(text: str) -> str:
    """`text` so that it arrives as it was written: reserved characters escaped, hashtags alive."""
    parts, end = [], 0
    for tag in HASHTAG.finditer(text):
        parts += [RESERVED.sub(r"\\\g<0>", text[end : tag.start()]), tag[0]]
        end = tag.end()
    return "".join([*parts, RESERVED.sub(r"\\\g<0>", text[end:])])


def _unmarked(commentary: str) -> str:
    """The text that a reader sees."""
    return re.sub(r"\\(.)", r"\1", WRITTEN_TAG.sub(r"#\1", commentary))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _content(media: list[tuple[MediaItem, str]], article: Article | None) -> dict[str, Any] | None:
    shown = [
        {"id": urn} | ({"altText": item.alt_text} if item.alt_text and not item.is_video else {})
        for item, urn in media
    ]
    if len(shown) > 1:
        return {"multiImage": {"images": shown}}
    if shown:
        return {"media": shown[0]}
    return {"article": article.model_dump(exclude_none=True)} if article else None


def _octets(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}


def _commented(comment: Mapping[str, Any], delivery: Delivery) -> Published:
    """{"id": "6…", "commentUrn": "urn:li:comment:(urn:li:activity:6…,6…)", "created": {"time":
    1763805600000}, "object": "urn:li:activity:6…"}"""
    made = (comment.get("created") or {}).get("time")
    urn = comment.get("commentUrn") or f"urn:li:comment:({comment['object']},{comment['id']})"
    return Published(
        urn,
        remote_url=f"{_permalink(delivery.above[0])}?commentUrn={quote(urn, safe='')}",
        published_at=datetime.fromtimestamp(made / 1000, UTC) if made else None,
    )


def _is_organization(platform_user_id: str) -> bool:
    return platform_user_id.startswith("urn:li:organization:")


def _metrics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Of the last 12 months, without what was paid for."""
    return {
        "impressions": statistics.get("impressionCount"),
        "reach": statistics.get("uniqueImpressionsCount"),
        "clicks": statistics.get("clickCount"),
        "likes": statistics.get("likeCount"),
        "comments": statistics.get("commentCount"),
        "shares": statistics.get("shareCount"),
        "engagementRate": statistics.get("engagement"),
    }


def _permalink(urn: str) -> str:
    return f"https://www.linkedin.com/feed/update/{urn}/"


def _made_at(urn: str) -> datetime | None:
    """The upper bits of a post's number are the milliseconds since 1970 at which it was made."""
    found = POST_URN.fullmatch(urn)
    milliseconds = int(found[1]) >> 22 if found else 0
    if not 0 < milliseconds < 1 << 42:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def _midnight_after(reply: httpx.Response) -> datetime | None:
    """The next midnight UTC after the instant at which LinkedIn answered."""
    try:
        answered = parsedate_to_datetime(reply.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None
    return answered.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
