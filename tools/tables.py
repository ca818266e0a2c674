"""Write README's tables that are made of declarations: `make tables`.

Each stands between two comments, `<!-- guarantees -->` and `<!-- /guarantees -->`, and is made by
the function of that name in `TABLES`. A new platform needs its own file's declarations and this
command; a test holds README against them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from shared.platforms.base import Delivery, Guarantee, Limits, Platform, Windowed
from shared.platforms.features import FEATURES, accounts
from shared.platforms.registry import PLATFORMS, platform_class

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    before = README.read_text()
    after = written(before)
    README.write_text(after)
    print(f"README.md: {', '.join(TABLES)} {'as they were' if after == before else 'written'}")


def written(text: str) -> str:
    """README with each table as the declarations make it. Raises `LookupError` for one that has no
    place there."""
    for name, rows in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        found = re.search(f"(?<={re.escape(start)}).*?(?={re.escape(end)})", text, re.S)
        if found is None:
            raise LookupError(f"README has no place for {name}: {start.strip()} … {end}")
        first, last = found.span()
        text = text[:first] + "".join(f"{line}\n" for line in _lines(rows())) + text[last:]
    return text


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A head and what stands under it, as Markdown."""
    head, *under = rows
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in under:
        yield f"| {' | '.join(row)} |"


# --- the tables ----------------------------------------------------------------------------------


def guarantees() -> list[list[str]]:
    """What settles an unknown outcome, for each kind of account that there is."""
    head = ["Platform", "Guarantee", "It rests on", "What may go wrong all the same"]
    rows = []
    for platform in _platforms():
        for account, example in accounts(platform).items():
            rows.append(_guarantee(platform, account, platform.guarantee_for(example)))
            comment = platform.guarantee_of(Delivery("", "", "", example, above=("1",)))
            if comment is not platform.guarantee_for(example):
                rows.append(_guarantee(platform, "first comment", comment))
    return [head, *rows]


def limits() -> list[list[str]]:
    """What a platform takes; each has its own row, under the name that requests use."""
    head = ["Platform", "Name", "Text", "Media"]
    rows = [
        [
            one.label,
            f"`{one.name}`",
            f"{one.limits.text_chars} {one.limits.text_unit}",
            _media(one.limits),
        ]
        for one in _platforms()
    ]
    return [head, *rows]


def features() -> list[list[str]]:
    """What each kind of account can do."""
    rows = [
        [
            _name(platform, account),
            *("yes" if has(platform, example) else "–" for has in FEATURES.values()),
        ]
        for platform in _platforms()
        for account, example in accounts(platform).items()
    ]
    return [["", *FEATURES], *rows]


def reasons() -> list[list[str]]:
    """Why a platform lacks what it lacks, and how we know what we say to it."""
    rows = [
        [
            one.label,
            "; ".join(f"*{feature}*: {why}" for feature, why in one.lacks.items()) or "nothing",
            one.built_to,
        ]
        for one in _platforms()
    ]
    return [["Platform", "What it lacks, and why", "Built to"], *rows]


TABLES: Mapping[str, Callable[[], list[list[str]]]] = {
    "guarantees": guarantees,
    "limits": limits,
    "features": features,
    "reasons": reasons,
}


def _guarantee(platform: Platform, account: str, guarantee: Guarantee) -> list[str]:
    return [_name(platform, account), _kind(guarantee), guarantee.rests_on, guarantee.risk]


def _name(platform: Platform, account: str) -> str:
    return f"{platform.label}, {account}" if account else platform.label


def _platforms() -> list[Platform]:
    """Every one, as people look for it."""
    return sorted((platform_class(name)() for name in PLATFORMS), key=lambda one: one.label)


def _kind(guarantee: Guarantee) -> str:
    if isinstance(guarantee, Windowed):
        return f"{guarantee.kind}, {_short(guarantee.earliest)} to {_short(guarantee.latest)}"
    return guarantee.kind


def _short(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    return f"{seconds} s" if seconds % 60 or seconds < 180 else f"{seconds // 60} min"


def _media(limits: Limits) -> str:
    kinds = {content_type.partition("/")[0] for content_type in limits.media_types}
    if limits.media_items == 0 or not kinds:
        return "none"
    most = f"{'1' if limits.required_media else 'up'} to {limits.media_items}"
    if "video" not in kinds or limits.video_items == 0:
        return f"{most} images"
    if limits.mixed_media:
        return f"{most} images and videos"
    videos = limits.video_items
    return f"{most} images, or {videos} video{'s' if videos > 1 else ''}"


if __name__ == "__main__":
    main()
