"""A request that our flows send, and the answer that the platform server plays, held against the
platform's own contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from shared.platforms.registry import NAMES, platform_class
from tests.sandbox.platforms.dialect import multipart
from tests.sandbox.platforms.values import Answer, Received

CONTRACTS = Path(__file__).parents[2] / "../shared/contracts"
# X renames fields: either will do. Every other platform has one file.
FILES = {name: (f"{name}.json",) for name in NAMES}
FILES["twitter"] = ("twitter.json", "twitter-2.166.json")
SERVER = "bread.example"  # of federated accounts
# What the contracts have no word of: addresses that are answered at run time and described in
# prose, and comments.
OUTSIDE = re.compile(r"(PUT /dms-uploads/|POST /upload/v1/)|(POST|GET) .*/comments$")


def contracted(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs the contracts."""
    unused_scheme = pytest.mark.filterwarnings("ignore:Unsupported scheme type")
    waits = pytest.mark.skipif(not CONTRACTS.exists(), reason="waits for ../shared/contracts")
    marked: Callable[..., None] = waits(unused_scheme(test))
    return marked


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
    kind = platform_class(received.platform)
    address = urlsplit(kind.api_url.replace("{server}", SERVER))
    host = f"https://{address.netloc}"
    path = address.path + received.path.removeprefix(f"/{SERVER}")
    if received.path.startswith("/oauth/v2/"):
        host = "https://www.linkedin.com"
    if received.platform == "threads":  # its contract has one of the two lists, which are alike
        path = re.sub("/replies$", "/threads", path)
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
    if OUTSIDE.match(f"{received.method} {received.path}"):
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
