"""Every request that our flows send, and every answer that the platform server plays, held against
the platforms' own contracts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from shared.domain.accounts import Tokens
from shared.platforms.base import Delivery, Platform, Processing
from shared.platforms.bluesky import Bluesky
from shared.platforms.discord import Discord
from shared.platforms.facebook import Facebook
from shared.platforms.instagram import Instagram
from shared.platforms.linkedin import LinkedIn
from shared.platforms.mastodon import Mastodon
from shared.platforms.slack import Slack
from shared.platforms.telegram import Telegram
from shared.platforms.threads import Threads
from shared.platforms.twitter import Twitter
from tests.platforms.contract import REFRESH_TOKEN, TEXT, TOKEN, turn
from tests.platforms.stage import Stage, item
from tests.sandbox.platforms.dialect import multipart
from tests.sandbox.platforms.values import Answer, Received

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts"
FILES = {
    "linkedin": ("linkedin.json",),
    "twitter": ("twitter.json", "twitter-2.166.json"),  # X renames fields: either will do
    "instagram": ("instagram.json",),
    "mastodon": ("mastodon.json",),
    "bluesky": ("bluesky.json",),
    "discord": ("discord.json",),
    "threads": ("threads.json",),
    "facebook": ("facebook.json",),
    "slack": ("slack.json",),
    "telegram": ("telegram.json",),
}
HOSTS = {
    "linkedin": "https://api.linkedin.com",
    "twitter": "https://api.x.com",
    "instagram": "https://graph.instagram.com",
    "mastodon": "https://mastodon.example",
    "bluesky": "https://bsky.social",
    "discord": "https://discord.com",
    "threads": "https://graph.threads.net",
    "facebook": "https://graph.facebook.com",
    "slack": "https://slack.com",
    "telegram": "https://api.telegram.org",
}
BASES = {"discord": "/api/v10", "slack": "/api"}  # of the path, what settings give with the host
MEGABYTE = 1024 * 1024
SERVER = "bread.example"  # of federated accounts
OUTSIDE = {"PUT /dms-uploads/", "POST /upload/v1/"}  # answered at run time, described in prose

pytestmark = [
    pytest.mark.skipif(not CONTRACTS.exists(), reason="waits for ../shared/contracts"),
    pytest.mark.filterwarnings("ignore:Unsupported scheme type"),  # of a scheme that we do not use
]


@cache
def contract(file: str) -> OpenAPI:
    document = json.loads((CONTRACTS / file).read_text())
    for node in _nodes(document):
        kinds = node.get("schema", {}).get("type") if "in" in node else None
        if isinstance(kinds, list):  # openapi-core reads a parameter's type as one word
            node["schema"]["type"] = kinds[0]
        if node.get("format") == "binary" or {"contentEncoding", "contentMediaType"} & node.keys():
            node.pop("type", None)  # a file's bytes are no text
        if "segment_index" in node.get("properties", {}):  # in a multipart body all is text
            node["properties"]["segment_index"] = {"type": "string", "pattern": "^[0-9]{1,3}$"}
        form = node.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
        for name, field in form.items():
            form[name] = _as_text(field)
    return OpenAPI.from_dict(document)


def _as_text(field: dict[str, Any]) -> dict[str, Any]:
    """A field of a multipart body, where all is text."""
    patterns = {"boolean": "^(true|false)$", "integer": "^-?[0-9]+$"}
    if any(either.get("type") == "integer" for either in field.get("anyOf", ())):
        return {"type": "string"}  # a number or a name
    kind = field.get("type")
    known = isinstance(kind, str) and kind in patterns
    return {"type": "string", "pattern": patterns[kind]} if known else field


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list)):
            yield from _nodes(child)


def _unfolded(received: Received) -> Received:
    """Discord's files stand beside the message, which its contract does not say."""
    if b'name="payload_json"' not in received.body:
        return received
    form, _ = multipart(received)
    headers = {**received.headers, "content-type": "application/json"}
    return replace(received, headers=headers, body=form["payload_json"].encode())


def as_seen(received: Received) -> MockRequest:
    """The request as it would have gone to the platform itself."""
    received = _unfolded(received)
    base = BASES.get(received.platform, "")
    host, path = HOSTS[received.platform], base + received.path.removeprefix(f"/{SERVER}")
    if received.path.startswith("/oauth/v2/"):
        host = "https://www.linkedin.com"
    return MockRequest(
        host_url=host,
        method=received.method.lower(),
        path=path,
        args=dict(parse_qsl(received.query)),
        headers={name.title(): value for name, value in received.headers.items()},
        data=received.body or None,
        content_type=received.headers.get("content-type", ""),
    )


def faults(received: Received, answer: Answer) -> list[str]:
    """Why no contract of the platform allows this exchange; empty when one does."""
    if any(f"{received.method} {received.path}".startswith(known) for known in OUTSIDE):
        return []
    found = []
    for file in FILES[received.platform]:
        try:
            request = as_seen(received)
            contract(file).validate_request(request)
            body, content_type = answer.encoded()
            headers = {"Content-Type": content_type, **answer.headers}
            response = MockResponse(
                data=body, status_code=answer.status, headers=headers, content_type=content_type
            )
            contract(file).validate_response(request, response)
        except OpenAPIError as error:
            reasons = [error, error.__cause__, *getattr(error.__cause__, "schema_errors", ())]
            found.append(f"{received.method} {received.path} ({file}): {reasons}")
        else:
            return []
    return found


@dataclass
class Exchange:
    """A run of one adapter with all that it can send."""

    stage: Stage
    platform: Platform
    user_id: str
    since: Any

    def publish(self, **changes: Any) -> Any:
        given: dict[str, Any] = {"text": TEXT, **self._account(), **changes}
        delivery = Delivery(**{"id": "d", "key": "k", **given})
        outcome = self.stage.publish(self.platform, delivery, TOKEN)
        while isinstance(outcome, Processing):
            delivery = replace(delivery, state=outcome.state)
            outcome = self.stage.publish(self.platform, delivery, TOKEN)
        return outcome

    def _account(self) -> dict[str, Any]:
        return {"platform_user_id": self.user_id, "server": SERVER, "attempted_at": self.since}

    def lookup(self, text: str, **changes: Any) -> None:
        given: dict[str, Any] = self._account() | changes
        delivery = Delivery(id="d", key="k", text=text, unsettled_since=self.since, **given)
        self.stage.lookup(self.platform, delivery, TOKEN)


def all_of_linkedin(run: Exchange) -> None:
    run.publish()
    run.publish(text="(One) #image", media=(item(1, alt_text="A loaf"),))
    run.publish(text="Several", media=(item(1), item(2, alt_text="A roll")))
    article = {"source": "https://a.example", "title": "Bread", "description": "Warm"}
    options = {"article": article, "visibility": "CONNECTIONS", "isReshareDisabledByAuthor": True}
    run.publish(text="An article", options=options)
    run.publish(text="A film", media=(item(1, "video/mp4", size_bytes=5 * MEGABYTE),))
    run.lookup("An article")
    run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN))


def all_of_x(run: Exchange) -> None:
    options = {"replySettings": "verified", "madeWithAi": True, "paidPartnership": False}
    run.publish(options=options)
    run.publish(text="One", media=(item(1, alt_text="A loaf"),))
    run.publish(text="", media=(item(1), item(2, "image/png")))
    run.stage.server.misbehave("twitter", "end upload", "processing", polls=2)
    run.publish(text="A film", media=(item(1, "image/gif"),))
    run.publish(text="A long film", media=(item(2, "video/mp4", size_bytes=5 * MEGABYTE),))
    run.lookup("One", media=(item(1),))
    first = run.publish(text="Part one").remote_id
    second = run.publish(text="Part two", above=(first,)).remote_id
    run.publish(text="Part three", above=(first, second))
    run.lookup("Part three", above=(first, second))
    run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN))


def all_of_instagram(run: Exchange) -> None:
    options: dict[str, Any] = {"locationId": "213385402", "collaborators": ["butter"]}
    run.stage.server.misbehave("instagram", "create container", "processing", polls=1)
    run.publish(media=(item(1, alt_text="A loaf"),), options=options)
    run.publish(text="Several", media=(item(1), item(2, alt_text="A roll")))
    options = {"shareToFeed": True, "thumbOffset": 10}
    run.publish(text="A film", media=(item(1, "video/mp4"),), options=options)
    run.lookup("A film")
    turn(run.stage, timedelta(days=2))
    run.stage.refresh(run.platform, Tokens(TOKEN))


def all_of_mastodon(run: Exchange) -> None:
    options = {"visibility": "private", "spoilerText": "W", "sensitive": True, "language": "en"}
    run.publish(options=options)
    run.publish(text="One", key="2", media=(item(1, alt_text="A loaf"),))
    run.publish(text="", key="3", media=(item(1), item(2, "image/png")))
    run.stage.server.misbehave("mastodon", "upload", "processing", polls=1)
    run.publish(text="A film", key="4", media=(item(1, "video/mp4"),))
    run.lookup("One", media=(item(1),))
    first = run.publish(text="Part one", key="5").remote_id
    run.publish(text="Part two", key="6", above=(first,))
    run.lookup("Part two", above=(first,))


def all_of_bluesky(run: Exchange) -> None:
    run.stage.server.bluesky.handles["roll.example"] = "did:plc:roll"
    card = {"uri": "https://a.example", "title": "Bread", "description": "Warm"}
    options = {"langs": ["en", "de"], "labels": ["nudity"], "card": card, "replies": ["followers"]}
    run.publish(text="@roll.example @no.example https://a.example #bread", options=options)
    run.publish(
        key="2", media=(item(1, alt_text="A loaf", width=4, height=3), item(2, "image/png"))
    )
    run.publish(key="3", media=(item(1, "video/mp4", alt_text="Rising", width=4, height=3),))
    run.lookup(TEXT, state=run.stage.kept[-1])
    first = run.publish(text="Part one", key="4").remote_id
    second = run.publish(text="Part two", key="5", above=(first,)).remote_id
    run.publish(text="Part three", key="6", above=(first, second))
    run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN, server=SERVER))


def all_of_a_discord_bot(run: Exchange) -> None:
    run.publish(key="1", options={"silent": True, "suppressEmbeds": True}, server=None)
    run.publish(key="2", text="Several", media=(item(1), item(2, alt_text="A roll")))
    run.publish(key="3", text="", media=(item(1, "video/mp4"),))
    run.lookup("Several", media=(item(1), item(2)))


def all_of_a_discord_webhook(run: Exchange) -> None:
    options = {"username": "Bread", "avatarUrl": "https://a.example/b.png", "threadId": "77"}
    run.publish(options=options, server=None)
    run.publish(options={"threadName": "Bread"}, media=(item(1, alt_text="A loaf"),))


def all_of_threads(run: Exchange) -> None:
    options: dict[str, Any] = {"replyControl": "followers_only", "topicTag": "Bread"}
    shown_to = {"allowlistedCountryCodes": ["DE"], "linkAttachment": "https://a.example"}
    run.publish(options=options | shown_to | {"locationId": "2", "quotePostId": "18"})
    run.stage.server.misbehave("threads", "create container", "processing", polls=1)
    run.publish(text="One", media=(item(1, alt_text="A loaf"),), options=options)
    run.publish(text="", media=(item(1), item(2, "video/mp4", alt_text="Rising")))
    run.lookup("One")
    turn(run.stage, timedelta(days=2))
    run.stage.refresh(run.platform, Tokens(TOKEN))


def all_of_facebook(run: Exchange) -> None:
    run.publish(options={"link": "https://a.example", "countries": ["DE", "FR"]})
    run.publish(text="One", media=(item(1, alt_text="A loaf"),))
    run.publish(text="", media=(item(1), item(2, "image/png")))
    run.stage.server.misbehave("facebook", "create video", "processing", polls=1)
    options = {"title": "Rising", "countries": ["DE"]}
    run.publish(text="A film", media=(item(1, "video/mp4"),), options=options)
    run.lookup("One", media=(item(1),))


def all_of_slack(run: Exchange) -> None:
    options = {"unfurlLinks": True, "unfurlMedia": False}
    parent = run.publish(options=options).remote_id.rpartition(":")[2]
    run.publish(options={"threadTs": parent, "replyBroadcast": True, "mrkdwn": True})
    run.publish(text="One", media=(item(1, alt_text="A loaf"),))
    run.stage.server.misbehave("slack", "create post", "processing", polls=1)
    files = (item(1), item(2, "video/mp4"))
    run.publish(text="Several", options={"threadTs": parent, "mrkdwn": True}, media=files)
    run.lookup(TEXT)
    run.lookup("Several", media=files, state=run.stage.kept[-1])
    run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN))


def all_of_telegram(run: Exchange) -> None:
    run.publish()
    options = {"parseMode": "HTML", "linkPreview": False, "disableNotification": True}
    topic = {"protectContent": True, "messageThreadId": 7}
    run.publish(text="<b>Warm</b>", options=options | topic)
    run.publish(media=(item(1),), options=options)
    run.publish(media=(item(1, "image/gif"),), options=topic)
    run.publish(media=(item(1, "video/mp4", width=4, height=3, duration_ms=2000),))
    run.publish(media=(item(1), item(2, "video/mp4")), options=topic)


RUNS: list[tuple[type[Platform], str, Callable[[Exchange], None], set[str]]] = [
    (
        LinkedIn,
        "urn:li:organization:2414183",
        all_of_linkedin,
        {"begin upload", "upload", "read media", "create post", "find post", "refresh"},
    ),
    (
        Twitter,
        "2244994945",
        all_of_x,
        {
            *("begin upload", "upload", "end upload", "read media", "describe media"),
            *("create post", "find post", "refresh"),
        },
    ),
    (
        Instagram,
        "17841400008460056",
        all_of_instagram,
        {
            *("create container", "read container", "publish container"),
            *("read post", "find post", "refresh"),
        },
    ),
    (
        Mastodon,
        "109348684220",
        all_of_mastodon,
        {"upload", "read media", "create post", "find post"},
    ),
    (
        Bluesky,
        "did:plc:acme",
        all_of_bluesky,
        {"upload", "resolve handle", "create post", "find post", "refresh"},
    ),
    (
        Discord,
        "41771983423143937",
        all_of_a_discord_bot,
        {"create post", "read channel", "who am I", "find post"},
    ),
    (Discord, "webhook:2233", all_of_a_discord_webhook, {"create post", "read channel"}),
    (
        Threads,
        "17841400008460056",
        all_of_threads,
        {
            *("create container", "read container", "publish container"),
            *("read post", "find post", "refresh"),
        },
    ),
    (
        Facebook,
        "1000000000017",
        all_of_facebook,
        {*("upload", "create post", "read post", "create video", "read video"), "find post"},
    ),
    (
        Slack,
        "C024BE91L",
        all_of_slack,
        {
            *("begin upload", "upload", "create post", "read file", "read permalink"),
            *("find post", "refresh"),
        },
    ),
    (Telegram, "-1001234567890", all_of_telegram, {"create post"}),
]


@pytest.mark.parametrize(("kind", "user_id", "everything", "calls"), RUNS)
def test_every_request_and_answer_is_in_the_contract(
    stage: Stage,
    kind: type[Platform],
    user_id: str,
    everything: Callable[[Exchange], None],
    calls: set[str],
) -> None:
    stage.server.add_account(kind.name, user_id, TOKEN, REFRESH_TOKEN)
    run = Exchange(stage, kind(stage.app(kind.name)), user_id, stage.server.clock.now())

    everything(run)

    assert {received.call for received, _ in stage.server.answers} == calls
    assert [fault for exchange in stage.server.answers for fault in faults(*exchange)] == []


@pytest.mark.parametrize(
    ("platform", "path", "body"),
    [
        ("linkedin", "/rest/posts", {"author": "urn:li:person:1", "text": "x"}),
        ("twitter", "/2/tweets", {"text": "x", "colour": "red"}),
        ("instagram", "/v25.0/17/media", {"image_uri": "https://a.example"}),
        ("mastodon", "/api/v1/statuses", {"text": "x"}),
        ("discord", "/channels/17/messages", {"content": ["x"]}),
        ("facebook", "/v25.0/17/feed", {"text": "x"}),
        ("slack", "/chat.postMessage", {"channel": "C1", "body": "x"}),
        ("telegram", "/bot1:a/sendMessage", {"chat_id": 1, "message": "x"}),
        ("bluesky", "/xrpc/com.atproto.repo.putRecord", {"repo": "x", "rkey": "y"}),
    ],
)
def test_a_wrong_request_is_noticed(stage: Stage, platform: str, path: str, body: Any) -> None:
    headers = {"authorization": "Bearer t", "content-type": "application/json"}
    received = Received(
        platform=platform,
        call="",
        method="POST",
        path=path,
        query="",
        headers=headers,
        body=json.dumps(body).encode(),
        at=stage.server.clock.now(),
    )

    assert len(faults(received, Answer(200, {}))) == len(FILES[platform])
