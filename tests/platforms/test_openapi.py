"""What no platform's contract allows is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platforms.openapi import FILES, contracted, faults
from tests.platforms.stage import Stage
from tests.sandbox.platforms.values import Answer, Content, Received


@contracted
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
    raw = json.dumps(body).encode()
    received = Received(
        platform=platform,
        call="",
        method="POST",
        path=path,
        query="",
        headers=headers,
        body=raw,
        content=Content.of([raw]),
        at=stage.server.clock.now(),
    )

    assert len(faults(received, Answer(200, {}))) == len(FILES[platform])
