"""What each platform accepts, what it can do, and what it promises when its answer is lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from shared.platforms.base import Guarantee, Platform, Windowed
from shared.platforms.features import FEATURES, accounts
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
        "accounts": [_account(platform, *kind) for kind in accounts(platform).items()],
        "lacks": {_name(feature): why for feature, why in platform.lacks.items()},
    }


def _account(platform: Platform, kind: str, user_id: str) -> dict[str, Any]:
    """One kind of account, of which `user_id` is an example."""
    return {
        "kind": kind or None,
        "guarantee": _guarantee(platform.guarantee_for(user_id)),
        "features": {_name(name): has(platform, user_id) for name, has in FEATURES.items()},
    }


def _name(feature: str) -> str:
    return to_camel(feature.replace(" ", "_").replace("-", "_"))


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
