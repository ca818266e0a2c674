"""What each platform accepts, and what it promises when its answer is lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from shared.platforms.base import Guarantee, Platform, Windowed
from shared.runtime import Runtime


def listed(rt: Runtime) -> dict[str, Any]:
    shown = [_shown(platform) for _, platform in sorted(rt.platforms.items())]
    return {"success": True, "platforms": shown}


def _shown(platform: Platform) -> dict[str, Any]:
    limits = asdict(platform.limits) | {"media_types": dict(platform.limits.media_types)}
    return {
        "platform": platform.name,
        "label": platform.label,
        "limits": {to_camel(name): value for name, value in limits.items()},
        "options": platform.options.model_json_schema(),
        "guarantee": _guarantee(platform.guarantee),
        "refreshesTokens": platform.refreshes,
    }


def _guarantee(guarantee: Guarantee) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": guarantee.kind,
        "means": guarantee.means,
        "restsOn": guarantee.rests_on,
        "risk": guarantee.risk,
    }
    if isinstance(guarantee, Windowed):
        shown["earliestSeconds"] = guarantee.earliest.total_seconds()
        shown["latestSeconds"] = guarantee.latest.total_seconds()
    return shown
