"""Every platform, one line each. One is loaded when it is first asked for: an instance that
publishes to X never imports the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

from shared.platforms.base import App, Platform

PLATFORMS: Mapping[str, str] = {  # the platform's name, which is its file's, and its class
    "bluesky": "Bluesky",
    "discord": "Discord",
    "facebook": "Facebook",
    "instagram": "Instagram",
    "linkedin": "LinkedIn",
    "mastodon": "Mastodon",
    "slack": "Slack",
    "telegram": "Telegram",
    "threads": "Threads",
    "twitter": "Twitter",
}
NAMES = tuple(PLATFORMS)


def platform_class(name: str) -> type[Platform]:
    """Raises `KeyError` for a name that is not registered."""
    found: type[Platform] = getattr(import_module(f"shared.platforms.{name}"), PLATFORMS[name])
    return found


class Registry(Mapping[str, Platform]):
    """Platforms by name; `app` says where one answers and who we are there."""

    def __init__(self, app: Callable[[type[Platform]], App]) -> None:
        self._app = app
        self._loaded: dict[str, Platform] = {}

    def __getitem__(self, name: str) -> Platform:
        if name not in PLATFORMS:
            raise KeyError(name)
        if name not in self._loaded:
            kind = platform_class(name)
            self._loaded[name] = kind(self._app(kind))
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in PLATFORMS

    def __iter__(self) -> Iterator[str]:
        return iter(PLATFORMS)

    def __len__(self) -> int:
        return len(PLATFORMS)
