"""Every platform, one line each."""

from __future__ import annotations

from collections.abc import Mapping

from shared.platforms.base import App, Platform
from shared.platforms.bluesky import Bluesky
from shared.platforms.discord import Discord
from shared.platforms.instagram import Instagram
from shared.platforms.linkedin import LinkedIn
from shared.platforms.mastodon import Mastodon
from shared.platforms.twitter import Twitter

PLATFORMS: tuple[type[Platform], ...] = (Bluesky, Discord, Instagram, LinkedIn, Mastodon, Twitter)
NAMES = tuple(platform.name for platform in PLATFORMS)


def registered(apps: Mapping[str, App]) -> dict[str, Platform]:
    """By name; `apps` says where each answers and who we are there, where settings say so."""
    return {platform.name: platform(apps.get(platform.name)) for platform in PLATFORMS}
