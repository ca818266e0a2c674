"""What a platform can do, as somebody would ask for it: each feature by the declaration that says
so. The routes `/platforms` tell of them, and README's table (`make tables`);
`tests/platforms/test_features.py` shows each of them for every adapter that declares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shared.platforms.base import Exact, NoGuarantee, Options, Platform, Windowed

FEATURES: Mapping[str, Callable[[Platform, str], bool]] = {  # of an account with this id
    "text alone": lambda platform, _: not platform.limits.required_media,
    "link card": lambda platform, _: platform.link_card is not None,
    "image": lambda platform, _: "image/jpeg" in platform.limits.media_types,
    "images": lambda platform, _: platform.limits.media_items > 1,
    "alt text": lambda platform, _: platform.alt_text,
    "video": lambda platform, _: "video/mp4" in platform.limits.media_types,
    "options": lambda platform, _: platform.options is not Options,
    "thread": lambda platform, _: platform.threads,
    "first comment": lambda platform, _: platform.first_comment,
    "metrics": lambda platform, user_id: (
        platform.metrics_batch > 0 and platform.metrics_refusal(user_id) is None
    ),
    "token refresh": lambda platform, _: platform.refreshes,
    "native guard": lambda platform, user_id: isinstance(
        platform.guarantee_for(user_id), (Exact, Windowed)
    ),
    "read-back": lambda platform, user_id: (
        not isinstance(platform.guarantee_for(user_id), NoGuarantee)
    ),
    "own server": lambda platform, _: platform.federated,
}


def accounts(platform: Platform) -> Mapping[str, str]:
    """Each kind of account, with an id that shows it; one without a name where there is one."""
    return platform.account_kinds or {"": "1"}
