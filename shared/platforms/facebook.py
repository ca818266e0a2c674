"""Facebook Pages: text, links, images, videos.

Source: https://developers.facebook.com/docs/pages-api/posts, …/graph-api/reference/page/photos,
…/page/videos, …/video, …/object/comments, …/insights, …/graph-api/batch-requests. A page's token,
taken from a user's long-lived one, has no end and nothing to exchange: it dies with a password, a
role or a consent, or when the app has not been used for 90 days, and the page has to be connected
again.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import httpx
from pydantic import Field

from shared.domain.failures import (
    OutcomeUnknownError,
    PermanentError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Keep,
    Limits,
    MetricsFlow,
    MetricsQuery,
    Options,
    Processing,
    PublicUrl,
    Published,
    ReadBack,
    Reading,
    Request,
    Step,
    Unread,
    fields_of,
)
from shared.platforms.graph import (
    BAD_PARAMETER,
    CLOCKS_APART,
    MEGABYTE,
    Country,
    GraphPlatform,
    auth,
    instant,
    plain,
)

COMMENT_CHARS = 8000
SITE = "https://www.facebook.com"
CHECK_VIDEO = timedelta(seconds=30)
LONGEST_VIDEO = timedelta(minutes=20)  # of what Facebook fetches; longer ones are sent in pieces
COUNTS = "shares,comments.limit(0).summary(true),reactions.limit(0).summary(true)"
INSIGHTS = {  # ours and theirs; they change, and an unknown one fails the whole question
    "views": "post_media_view",
    "reach": "post_total_media_view_unique",
    "clicks": "post_clicks",
}


class FacebookOptions(Options):
    link: str | None = Field(None, pattern=r"^https?://")  # shown as a card
    title: str | None = Field(None, min_length=1, max_length=255)  # of a video
    countries: tuple[Country, ...] = ()  # where it is shown; everywhere without
    first_comment: str | None = Field(None, pattern=r"\S", max_length=COMMENT_CHARS)


class Facebook(GraphPlatform):
    """`platform_user_id` is the page's id, the token the page's own.

    Images are uploaded unseen and kept, then shown by one call. A video is published by the call
    that names it; Facebook works on it afterwards, under an id that is kept.
    """

    name = "facebook"
    label = "Facebook"
    api_url = "https://graph.facebook.com"
    version = "v25.0"
    code_prefix = "fb"
    comment_fields = ("from", "message", "created_time")
    guarantee = ReadBack(
        rests_on="the page's posts, looked through seven times in half an hour; a video, which "
        "Facebook works on after taking it, under the id that it was given",
        risk="no second post without a person's order; a post that Facebook shows later than that "
        "is left to one",
    )
    limits = Limits(
        text_chars=63_206,
        media_items=10,
        media_types={
            "image/jpeg": 10 * MEGABYTE,
            "image/png": 4 * MEGABYTE,
            "image/gif": 4 * MEGABYTE,
            "video/mp4": 1024 * MEGABYTE,
            "video/quicktime": 1024 * MEGABYTE,
        },
    )
    options = FacebookOptions
    link_card = "link"
    lacks: ClassVar[Mapping[str, str]] = {
        "thread": "a page's posts follow no other",
        "token refresh": "a page's token has no end",
    }
    built_to = (
        "the parameters of its published SDK; its answers by documentation alone; how long a "
        "comment may be, by what its clients say"
    )
    metrics_batch = 50  # of what one call may bundle

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        if delivery.above:
            return (yield from self.comment(delivery, token))
        if "video" in delivery.state:
            return (yield from self._processed(delivery, token))
        if any(item.is_video for item in delivery.media):
            return (yield from self._film(delivery, token))
        photos = yield from self._upload(delivery, token)
        post = _targeted(delivery)
        if delivery.text:
            post["message"] = delivery.text
        if delivery.options.get("link"):
            post["link"] = delivery.options["link"]
        if photos:
            post["attached_media"] = [{"media_fbid": photo} for photo in photos]
        create = Request("POST", f"{self._page(delivery)}/feed", auth(token), json=post)
        reply = yield Call(create, "create post", commits=True)
        post_id: str = reply.json()["id"]
        params = {"fields": "id,permalink_url,created_time"}
        read = Request("GET", f"{self.graph}/{post_id}", auth(token), params=params)
        seen = yield Call(read, "read post", optional=True)
        return _published({**(fields_of(seen) if seen is not None else {}), "id": post_id})

    def _upload(self, delivery: Delivery, token: str) -> Generator[Step, Any, list[str]]:
        """The id of each image. One that no post shows is seen by nobody."""
        photos: dict[str, str] = dict(delivery.state.get("photos", {}))
        for item in delivery.media:
            if item.id in photos:
                continue
            url = yield PublicUrl(item)
            photo: dict[str, Any] = {"url": url, "published": False}
            if item.alt_text:
                photo["alt_text_custom"] = item.alt_text
            request = Request("POST", f"{self._page(delivery)}/photos", auth(token), json=photo)
            reply = yield Call(request, "upload")
            photos[item.id] = reply.json()["id"]
            yield Keep({"photos": dict(photos)})
        return [photos[item.id] for item in delivery.media]

    def _film(self, delivery: Delivery, token: str) -> Flow:
        url = yield PublicUrl(delivery.media[0])
        video = {"file_url": url} | _targeted(delivery)
        if delivery.text:
            video["description"] = delivery.text
        if delivery.options.get("title"):
            video["title"] = delivery.options["title"]
        create = Request("POST", f"{self._page(delivery)}/videos", auth(token), json=video)
        reply = yield Call(create, "create video", commits=True)
        return Processing({"video": reply.json()["id"]}, CHECK_VIDEO)

    def _processed(self, delivery: Delivery, token: str, *, found: bool = False) -> Flow:
        """What became of the video: {"status": {"video_status": "processing"}, "post_id": …}."""
        params = {"fields": "id,status,post_id,permalink_url,created_time"}
        url = f"{self.graph}/{delivery.state['video']}"
        reply = yield Call(Request("GET", url, auth(token), params=params), "read video")
        video = reply.json()
        match video["status"]["video_status"]:
            case "ready":
                page = delivery.platform_user_id
                shown_as = str(video.get("post_id") or video["id"])
                post_id = shown_as if "_" in shown_as else f"{page}_{shown_as}"
                return _published({**video, "id": post_id}, found=found)
            case "error" | "expired" | "upload_failed" as status:
                message = f"Facebook could not make a post of this video: {status}"
                raise PermanentError(message, code=f"video_{status}").but_absent()
        return Processing(delivery.state, CHECK_VIDEO)

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if delivery.unsettled_since is None:
            raise OutcomeUnknownError("Nothing of this delivery is unsettled", code="not_unsettled")
        if delivery.above:
            return (yield from self.find_comment(delivery, token))
        if "video" in delivery.state:
            return (yield from self._processed(delivery, token, found=True))
        since = delivery.unsettled_since - CLOCKS_APART
        params = {
            "fields": "id,message,status_type,permalink_url,created_time",
            "since": str(int(since.timestamp())),
            "limit": "100",
        }
        url = f"{self._page(delivery)}/published_posts"
        reply = yield Call(Request("GET", url, auth(token), params=params), "find post")
        found = [
            post
            for post in reply.json()["data"]
            if (made_at := instant(post.get("created_time"))) is not None
            and made_at >= since
            and _same(delivery, post)
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        return _published(found[0], found=True)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        """All posts in one call; those whose insights are refused once more, without them."""
        insights = f"insights.metric({','.join(INSIGHTS.values())}).period(lifetime)"
        unread = yield from self._ask(query.remote_ids, f"{COUNTS},{insights}", token)
        refused = tuple(one.remote_id for one in unread if one.code == f"fb_{BAD_PARAMETER}")
        if refused:
            yield from (one for one in unread if one.remote_id not in refused)
            unread = yield from self._ask(refused, COUNTS, token)
        if len(unread) == len(query.remote_ids) and {one.code for one in unread} == {"no_answer"}:
            raise TransientError("Facebook does not tell the metrics", code="no_answer")
        yield from unread

    def _ask(
        self, posts: tuple[str, ...], fields: str, token: str
    ) -> Generator[Call | Reading | Unread, Any, list[Unread]]:
        """Readings of the posts that are told of; those that are not are returned.

        A bundle is answered by 200, whatever became of each question in it: [{"code": 400, "body":
        "{\"error\": …}"}, null, …] in their order, null where time ran out.
        """
        batch = [{"method": "GET", "relative_url": f"{post}?fields={fields}"} for post in posts]
        form = {"batch": json.dumps(batch), "include_headers": "false"}
        asked = Call(Request("POST", f"{self.graph}/", auth(token), form=form), READ_METRICS)
        reply = yield asked
        unread: list[Unread] = []
        for post, told in zip(posts, reply.json(), strict=True):
            if told is None:
                unread.append(Unread(post, "no_answer"))
                continue
            answer = httpx.Response(told["code"], text=told["body"])
            failure = self.classify(asked, answer)
            match failure:
                case None:
                    yield Reading(post, _metrics(answer.json()))
                case ThrottledError():
                    raise failure
                case TransientError():
                    unread.append(Unread(post, "no_answer"))
                case PermanentError():
                    unread.append(Unread(post, failure.code, failure.message))
                case _:
                    raise failure
        return unread

    def _page(self, delivery: Delivery) -> str:
        return f"{self.graph}/{delivery.platform_user_id}"

    # limits

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        filmed = any(item.is_video for item in draft.media)
        if draft.media and draft.options.get("link"):
            sentence = "A Facebook post shows either a link or media, not both."
            problems.append(Problem("options.link", "media_mix", sentence))
        if draft.options.get("title") and not filmed:
            problems.append(Problem("options.title", "option_invalid", "title is for videos only."))
        problems += _too_long(draft.media)
        return problems


def _too_long(media: tuple[MediaItem, ...]) -> Iterator[Problem]:
    for index, item in enumerate(media):
        if item.is_video and timedelta(milliseconds=item.duration_ms or 0) > LONGEST_VIDEO:
            sentence = "Facebook fetches videos of up to 20 minutes."
            yield Problem(f"media[{index}]", "media_duration", sentence)


def _targeted(delivery: Delivery) -> dict[str, Any]:
    countries = FacebookOptions.model_validate(delivery.options).countries
    if not countries:
        return {}
    return {"targeting": {"geo_locations": {"countries": list(countries)}}}


def _published(post: Mapping[str, Any], *, found: bool = False) -> Published:
    """A video's permalink is a path: /acme/videos/17/."""
    link = post.get("permalink_url")
    if link and link.startswith("/"):
        link = f"{SITE}{link}"
    return Published(post["id"], link, instant(post.get("created_time")), found=found)


def _same(delivery: Delivery, post: Mapping[str, Any]) -> bool:
    """By its words; a post without any by what it shows."""
    if plain(post.get("message") or "") != plain(delivery.text):
        return False
    filmed = any(item.is_video for item in delivery.media)
    shows = "added_video" if filmed else "added_photos"
    return bool(plain(delivery.text)) or post.get("status_type") == shows


def _metrics(post: Mapping[str, Any]) -> dict[str, Any]:
    """{"shares": {"count": 3}, "comments": {"summary": {"total_count": 2}}, "insights": {"data":
    [{"name": "post_clicks", "values": [{"value": 5}]}]}}; no `shares` where there are none."""
    insights = {
        metric["name"]: (metric.get("values") or [{}])[-1].get("value")
        for metric in (post.get("insights") or {}).get("data", ())
    }
    return {
        "likes": _total(post, "reactions"),
        "comments": _total(post, "comments"),
        "shares": (post.get("shares") or {}).get("count"),
        **{ours: insights.get(theirs) for ours, theirs in INSIGHTS.items()},
    }


def _total(post: Mapping[str, Any], edge: str) -> Any:
    return ((post.get(edge) or {}).get("summary") or {}).get("total_count")
