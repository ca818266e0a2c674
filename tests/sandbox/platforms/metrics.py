"""Figures of posts, as each platform tells them: under its own names, with its own gaps."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from tests.sandbox.platforms.values import Answer, Post, Received, Refused

if TYPE_CHECKING:
    from tests.sandbox.platforms.bluesky import BlueskyDialect
    from tests.sandbox.platforms.discord import DiscordDialect
    from tests.sandbox.platforms.graph import ContainersDialect
    from tests.sandbox.platforms.linkedin import LinkedInDialect
    from tests.sandbox.platforms.mastodon import MastodonDialect
    from tests.sandbox.platforms.twitter import TwitterDialect

X_PROBLEMS = "https://api.twitter.com/2/problems"
X_PUBLIC = ("retweet_count", "reply_count", "like_count", "quote_count", "bookmark_count")
X_OWN = ("url_link_clicks", "user_profile_clicks", "engagements")
X_FIELDS = {"public_metrics", "non_public_metrics"}
X_MOST = 100
X_PRIVATE_FOR = timedelta(days=30)
BLUESKY_MOST = 25
BLUESKY_COUNTS = ("likeCount", "repostCount", "replyCount", "quoteCount", "bookmarkCount")
LINKEDIN_PARAMS = {"q", "organizationalEntity", "shares", "ugcPosts"}
LINKEDIN_MOST = 50


def of_x(x: TwitterDialect, received: Received) -> Answer:
    """`GET /2/tweets`: what is not there is an error beside the data of the others."""
    token = x.authorize(received)
    params = received.params
    unknown = set(params) - {"ids", x.fields_name}
    if unknown:
        name = min(unknown)
        known = f"[expansions,ids,{x.fields_name}]"
        raise x.invalid_parameter(name, f"The query parameter [{name}] is not one of {known}")
    ids = params.get("ids", "").split(",")
    if len(ids) > X_MOST:
        raise x.invalid_parameter("ids", "size must be between 1 and 100")
    for post_id in ids:
        if not post_id.isdigit() or len(post_id) > 19:
            message = f"The `ids` query parameter value [{post_id}] is not valid"
            raise x.invalid_parameter("ids", message)
    fields = set(params.get(x.fields_name, "").split(",")) - {""}
    if not fields <= X_FIELDS:
        raise x.invalid_parameter(x.fields_name, f"{sorted(fields)} is not a field")
    data, errors = [], []
    for post_id in ids:
        post = next((p for p in x.posts if p.id == post_id), None)
        if post is None:
            errors.append(_x_problem(post_id, "resource-not-found", "Could not find tweet"))
            continue
        old = x.clock.now() - post.at > X_PRIVATE_FOR
        if "non_public_metrics" in fields and (old or post.account not in token.user_ids):
            errors.append(_x_problem(post_id, "not-authorized-for-field", "You may not read"))
            continue
        data.append(_x_post(x, post, fields))
    body = ({"data": data} if data else {}) | ({"errors": errors} if errors else {})
    return Answer(200, body)


def _x_problem(post_id: str, kind: str, sentence: str) -> dict[str, Any]:
    return {
        "value": post_id,
        "detail": f"{sentence} with ids: [{post_id}].",
        "title": "Not Found Error",
        "resource_type": "tweet",
        "parameter": "ids",
        "resource_id": post_id,
        "type": f"{X_PROBLEMS}/{kind}",
    }


def _x_post(x: TwitterDialect, post: Post, fields: set[str]) -> dict[str, Any]:
    counts = x.figures.get(post.id, {})
    seen: dict[str, Any] = {"id": post.id, "text": post.text, "edit_history_tweet_ids": [post.id]}
    if "public_metrics" in fields:
        public = {name: counts.get(name, 0) for name in (*X_PUBLIC, "impression_count")}
        if x.fields_name == "post.fields":
            public["repost_count"] = public.pop("retweet_count")
        seen["public_metrics"] = {n: v for n, v in public.items() if v is not None}
    if "non_public_metrics" in fields:
        seen["non_public_metrics"] = {n: counts[n] for n in X_OWN if counts.get(n) is not None}
    return seen


def of_linkedin(linkedin: LinkedInDialect, received: Received) -> Answer:
    """`GET /rest/organizationalEntityShareStatistics`: posts without activity are left out, and a
    list that names a post of somebody else is refused as a whole."""
    token = linkedin.begin(received)
    query = dict(pair.split("=", 1) for pair in received.query.split("&"))
    if set(query) - LINKEDIN_PARAMS or query.get("q") != "organizationalEntity":
        message = f"Query parameters not allowed: {sorted(set(query) - LINKEDIN_PARAMS)}"
        raise Refused(linkedin.failure(400, message, code="QUERY_PARAM_NOT_ALLOWED"))
    entity = query.get("organizationalEntity", "")
    if ":" in entity or not unquote(entity).startswith("urn:li:organization:"):
        message = f"Invalid value for organizationalEntity: {entity}"
        raise Refused(linkedin.failure(400, message, code="ILLEGAL_ARGUMENT"))
    if unquote(entity) not in token.user_ids:
        message = "Viewer is not an administrator of the organization"
        raise Refused(linkedin.failure(403, message, code="ACCESS_DENIED"))
    elements = []
    for name, kind in (("shares", "share"), ("ugcPosts", "ugcPost")):
        for urn in _restli_list(linkedin, query, name, kind):
            post = next((p for p in linkedin.posts if p.id == urn), None)
            if post is None or post.account != unquote(entity):
                message = f"{urn} does not belong to the organization"
                raise Refused(linkedin.failure(400, message, code="ILLEGAL_ARGUMENT"))
            if urn in linkedin.figures:
                counts = {n: v for n, v in linkedin.figures[urn].items() if v is not None}
                shown = {"organizationalEntity": post.account, kind: urn}
                elements.append(shown | {"totalShareStatistics": counts})
    paging = {"start": 0, "count": 10, "links": []}
    return Answer(200, {"elements": elements, "paging": paging})


def _restli_list(
    linkedin: LinkedInDialect, query: dict[str, str], name: str, kind: str
) -> list[str]:
    """A Rest.li 2.0 list: parentheses and commas literal, colons encoded."""
    if name not in query:
        return []
    text = query[name]
    items = text.removeprefix("List(").removesuffix(")").split(",")
    wrapped = text.startswith("List(") and text.endswith(")")
    fit = all(":" not in item and unquote(item).startswith(f"urn:li:{kind}:") for item in items)
    if not wrapped or not fit or len(items) > LINKEDIN_MOST:
        message = f"Invalid query parameters passed to request: {name}"
        raise Refused(linkedin.failure(400, message, code="ILLEGAL_ARGUMENT"))
    return [unquote(item) for item in items]


def of_containers(meta: ContainersDialect, received: Received) -> Answer:
    """`GET /{media}/insights`: what there is nothing of is left out."""
    token, media_id = meta.authorize(received), received.parts["node"]
    post = next((p for p in meta.posts if p.id == media_id), None)
    if post is None or post.account not in token.user_ids:
        raise meta.no_such(media_id)
    metrics = received.params.get("metric", "").split(",")
    if set(received.params) != {"metric"} or not set(metrics) <= meta.metric_names:
        raise meta.wrong(f"(#100) metric must be one of the following values: {metrics}")
    counts = meta.figures.get(media_id, {})
    if counts.get("viewers") == 0:
        raise meta.wrong("(#10) Not enough viewers for the media to show insights", code=10)
    data = [
        {
            "name": name,
            "period": "lifetime",
            "values": [{"value": counts[name]}],
            "title": name.title(),
            "id": f"{media_id}/insights/{name}/lifetime",
        }
        for name in metrics
        if counts.get(name) is not None
    ]
    return Answer(200, {"data": data})


def of_mastodon(mastodon: MastodonDialect, received: Received) -> Answer:
    """`GET /api/v1/statuses/{id}`: the whole status, or 404 where it is gone."""
    mastodon.authorize(received)
    post = next((p for p in mastodon.posts if p.id == received.parts["id"]), None)
    if post is None:
        raise Refused(mastodon.failure(404, "Record not found"))
    return Answer(200, mastodon.shown(post))


def of_bluesky(bluesky: BlueskyDialect, received: Received) -> Answer:
    """`app.bsky.feed.getPosts`: what is gone is left out."""
    bluesky.account(received)
    asked = parse_qsl(received.query)
    if {name for name, _ in asked} != {"uris"} or len(asked) > BLUESKY_MOST:
        raise bluesky.invalid("Params must have 1 to 25 of the property uris")
    posts = {post.id: post for post in bluesky.posts}
    return Answer(200, {"posts": [_view(bluesky, posts[uri]) for _, uri in asked if uri in posts]})


def _view(bluesky: BlueskyDialect, post: Post) -> dict[str, Any]:
    counts = bluesky.figures.get(post.id, {})
    record = {name: value for name, value in post.fields.items() if name != "server"}
    return {
        "uri": post.id,
        "cid": bluesky.records_cid(post.id),
        "author": {"did": post.account, "handle": "acme.example"},
        "record": record,
        "indexedAt": post.at.isoformat(),
        **{name: counts.get(name, 0) for name in BLUESKY_COUNTS if counts.get(name, 0) is not None},
    }


def of_discord(discord: DiscordDialect, received: Received) -> Answer:
    """One message, with its reactions where it has any."""
    webhook = "hook" in received.parts
    account = f"webhook:{discord.hook(received)}" if webhook else discord.bot(received)
    message_id = received.parts["id"]
    post = next((p for p in discord.posts if p.id == message_id), None)
    if post is None or (webhook and post.fields["author"] != account):
        raise Refused(discord.failure(404, "Unknown Message", code=10008))
    counts = discord.figures.get(message_id, {})
    reactions = [
        {
            "count": count,
            "count_details": {"burst": 0, "normal": count},
            "me": False,
            "me_burst": False,
            "burst_colors": [],
            "emoji": {"id": None, "name": emoji},
        }
        for emoji, count in counts.items()
    ]
    return Answer(200, discord.shown(post) | ({"reactions": reactions} if reactions else {}))
