"""What every platform has from the base class."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.failures import PermanentError
from shared.platforms.base import App, Draft, Limits, Platform, is_server
from tests.platforms.stage import item


class Plain(Platform):
    name = "plain"
    label = "Plain"
    api_url = "https://api.plain.example"
    limits = Limits(text_chars=10, media_items=1, media_types={"image/jpeg": 100})


class Federated(Plain):
    api_url = "https://{server}/api"


def problems(limits: dict[str, Any], text: str = "Bread", items: int = 0) -> list[str]:
    media = tuple(item(number) for number in range(items))
    return [problem.code for problem in Plain().check(Draft(text, media, limits=limits))]


def test_an_account_may_have_limits_of_its_own() -> None:
    assert problems({}, "x" * 11, items=2) == ["text_too_long", "too_many_media"]
    assert problems({"textChars": 11, "mediaItems": 2}, "x" * 11, items=2) == []
    assert problems({"textChars": 9}, "x" * 10) == ["text_too_long"]
    assert problems({"textChars": 0}, "x" * 10) == []


def test_a_platform_answers_at_one_address() -> None:
    platform = Plain(App("http://127.0.0.1:8080"))

    assert not platform.federated
    assert platform.host("bread.example") == platform.host(None) == "http://127.0.0.1:8080"


def test_a_federated_platform_answers_at_the_accounts_server() -> None:
    assert Federated().federated
    assert Federated().host("bread.example") == "https://bread.example/api"


@pytest.mark.parametrize(
    "server",
    [
        *(None, "", "localhost", "10.0.0.1", "[::1]", "0x7f.1", "bread.example:8080"),
        *(
            "bread.example/x",
            "me@bread.example",
            "bread..example",
            "-bread.example",
            "bread.example.",
        ),
        *("Bread.example", "bread.example\n", "brød.example", "{server}"),
    ],
)
def test_what_is_no_public_name_is_no_server(server: str | None) -> None:
    assert not is_server(server)
    with pytest.raises(PermanentError, match="no_server"):
        Federated().host(server)


def test_a_file_is_named_by_its_kind() -> None:
    assert item(1).file_name == "asset-1.jpeg"
    assert item(2, "video/quicktime").file_name == "asset-2.mov"
