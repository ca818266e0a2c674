"""A row of a file and the post that it means: columns, dates, accounts, cells that would be run.

What is exported is what can be imported, column for column. `key` names the post across files: the
same key is the same post. A row without one gets a key from what it says, so that the same row is
the same post, and a changed one another.

A spreadsheet runs a cell that begins with = + - @, a tab or a carriage return as a formula. Such a
text is written with an apostrophe before it and read without. A text that has its own apostrophe
there gets a second one, so that reading gives back exactly what was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.domain import keys
from shared.domain.failures import Problem, RefusedError
from shared.domain.posts import PostStatus, ScheduledPost, Target
from shared.domain.schedules import moment, zone

COLUMNS = (
    "key",
    "scheduledAt",
    "timezone",
    "latestAt",
    "content",
    "platforms",
    "mediaAssetIds",
    "userId",
    "status",
)
REQUIRED = ("scheduledAt", "platforms")
# What a report adds to the rows that it gives back; a mended report can be imported as it is.
REPORTED = ("errorRow", "errorColumn", "errorReason")
ENDED = frozenset({PostStatus.PUBLISHED, PostStatus.FAILED, PostStatus.CANCELLED})
KEY_CHARS = 200

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_WRITTEN_FORMULA = re.compile(r"'+[=+\-@\t\r]")
_SEPARATORS = re.compile(r"[,;|\n]")
_DATE = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?) ?(Z|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)
_DAY_FIRST = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b.*", re.DOTALL)
_DAY_ALONE = re.compile(r"\d{4}-\d{2}-\d{2}")
_LIKE_THIS = "Write it like 2027-03-31 09:30 or 2027-03-31T09:30:00+02:00."

Cells = Sequence[str] | Mapping[str, Any]  # of a CSV file, of a JSON Lines file


def harmless(text: str) -> str:
    """A cell that no spreadsheet runs."""
    return "'" + text if _FORMULA.match(text) else text


def undone(cell: str) -> str:
    """The text that was made `harmless`."""
    return cell[1:] if _WRITTEN_FORMULA.match(cell) else cell


def instant(text: str, column: str) -> datetime:
    """The date that a cell gives, aware where it has an offset. Raises `RefusedError`.

    Day and month in an order that must be guessed are refused: 03/04 is a day in March to some
    and in April to others, and a post a month late is worse than a question.
    """
    text = text.strip()
    found = _DATE.fullmatch(text)
    if found is None:
        raise RefusedError([Problem(column, "date_invalid", _why_no_date(text))])
    day, time, offset = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{time}{(offset or '').upper()}")
    except ValueError:
        sentence = f"{text[:40]!r} is no date that exists. {_LIKE_THIS}"
        raise RefusedError([Problem(column, "date_invalid", sentence)]) from None


def _why_no_date(text: str) -> str:
    shown = text[:40]
    if _DAY_FIRST.fullmatch(text):
        return f"{shown!r} does not say which number is the month. {_LIKE_THIS}"
    if _DAY_ALONE.fullmatch(text):
        return f"{shown!r} has no time of day. {_LIKE_THIS}"
    return f"{shown!r} is no date that can be read. {_LIKE_THIS}"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an import says of all rows: used where a row says nothing."""

    company_id: str
    user_id: str | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a row says, under the names that a schedule request has. `values` may be incomplete
    where there are `problems`; each problem's field is a column."""

    key: str | None
    values: Mapping[str, Any]
    status: PostStatus | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Equal for rows that want the same post."""
        return keys.fingerprint(self.values)


def read(cells: Mapping[str, Any], defaults: Defaults) -> Row:
    """A row from its cells by column name: text from CSV, any JSON value from JSON Lines."""
    problems: list[Problem] = []
    told = _Told(cells, problems)
    timezone = told.text("timezone") or defaults.timezone
    scheduled_at = told.date("scheduledAt")
    values: dict[str, Any] = {
        "companyId": defaults.company_id,
        "userId": told.text("userId") or defaults.user_id,
        "content": told.text("content", strip=False) or "",
        "mediaAssetIds": told.media(),
        "scheduledAt": scheduled_at,
        "timezone": timezone,
        "latestAt": told.date("latestAt"),
        "platforms": told.platforms(),
    }
    if values["userId"] is None:
        sentence = "There is no user: give a column userId, or userId for the whole file."
        problems.append(Problem("userId", "missing", sentence))
    if scheduled_at is None and not _has(problems, "scheduledAt"):
        sentence = f"scheduledAt is empty. {_LIKE_THIS}"
        problems.append(Problem("scheduledAt", "missing", sentence))
    if timezone is not None:
        problems += _zone_problems(timezone)
    elif scheduled_at is not None and scheduled_at.tzinfo is None:
        sentence = "scheduledAt needs an offset, such as Z, or a timezone beside it."
        problems.append(Problem("timezone", "timezone_required", sentence))
    key = told.key()
    status = told.status()
    if key is None and not problems:
        key = derived_key(values)
    return Row(key, values, status, tuple(problems))


def _has(problems: Sequence[Problem], column: str) -> bool:
    return any(problem.field == column for problem in problems)


def _zone_problems(name: str) -> list[Problem]:
    try:
        zone(name)
    except RefusedError as error:
        return error.problems
    return []


def derived_key(values: Mapping[str, Any]) -> str:
    """The key of a row that names none: the same for the same post to the same accounts."""
    targets = sorted(values["platforms"], key=keys.fingerprint)
    return "row-" + keys.fingerprint({**values, "platforms": targets})[:32]


@dataclass(slots=True)
class _Told:
    """A row's cells, read by what each column takes; what is wrong is added to `problems`."""

    cells: Mapping[str, Any]
    problems: list[Problem] = field(default_factory=list)

    def text(self, column: str, *, strip: bool = True) -> str | None:
        value = self.cells.get(column)
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(column, "not_text", f"{column} takes text.")
            return None
        return (value.strip() if strip else value) or None

    def date(self, column: str) -> datetime | None:
        text = self.text(column)
        if text is None:
            return None
        try:
            return instant(text, column)
        except RefusedError as error:
            self.problems += error.problems
            return None

    def key(self) -> str | None:
        key = self.text("key")
        if key is not None and len(key) > KEY_CHARS:
            self.wrong("key", "too_long", f"key has more than {KEY_CHARS} characters.")
            return None
        return key

    def status(self) -> PostStatus | None:
        told = self.text("status")
        if told is None:
            return None
        try:
            return PostStatus(told.lower())
        except ValueError:
            words = ", ".join(PostStatus)
            self.wrong("status", "status_unknown", f"{told[:40]!r} is not one of {words}.")
            return None

    def media(self) -> list[str]:
        value = self._listed("mediaAssetIds")
        ids = value if value is not None else []
        if not all(isinstance(one, str) for one in ids):
            self.wrong("mediaAssetIds", "not_ids", "mediaAssetIds takes the ids of media assets.")
            return []
        return [one.strip() for one in ids if one.strip()]

    def platforms(self) -> list[dict[str, Any]]:
        value = self._listed("platforms")
        if value is None:
            return []
        targets = [self._target(one) for one in value if one not in ("", None)]
        found = [target for target in targets if target is not None]
        if not targets:
            sentence = "No account is named. Write linkedin:account-id, several with commas."
            self.wrong("platforms", "missing", sentence)
        return found

    def _target(self, one: Any) -> dict[str, Any] | None:
        if isinstance(one, Mapping):
            return dict(one)
        platform, colon, account_id = str(one).partition(":")
        if not isinstance(one, str) or not colon or not platform.strip() or not account_id.strip():
            sentence = f"{str(one)[:40]!r} names no account. Write linkedin:account-id."
            self.wrong("platforms", "account_unclear", sentence)
            return None
        return {"platform": platform.strip().lower(), "accountId": account_id.strip()}

    def _listed(self, column: str) -> list[Any] | None:
        """A JSON list, in either format, or names with separators between them."""
        value = self.cells.get(column)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                self.wrong(column, "not_json", f"{column} begins like a JSON list and is none.")
                return None
        if isinstance(value, str):
            return [one.strip() for one in _SEPARATORS.split(value) if one.strip()]
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(column, "not_a_list", f"{column} takes a list.")
            return None
        return value

    def wrong(self, column: str, code: str, sentence: str) -> None:
        self.problems.append(Problem(column, code, sentence))


def column_of(field: str) -> str:
    """The column that a problem of a schedule request stands in."""
    whole, _, part = field.partition(".")
    name = whole.partition("[")[0]
    if name == "idempotencyKey":
        return "key"
    if name == "platforms" and part.startswith("content"):
        return "content"
    if name == "platforms" and part.startswith("media"):
        return "mediaAssetIds"
    return name


# --- out again -----------------------------------------------------------------------------------


def of_post(post_id: str, post: ScheduledPost, status: PostStatus) -> dict[str, Any]:
    """A post as a row. Its time is told on the clock of its own zone, with the offset, so that an
    hour that happens twice stays the one that was meant."""
    return {
        "key": post.row_key or post_id,
        "scheduledAt": _on_the_wall(post.scheduled_at, post.timezone),
        "timezone": post.timezone,
        "latestAt": _on_the_wall(post.latest_at, post.timezone),
        "content": post.content,
        "platforms": [_shown(target) for target in post.platforms],
        "mediaAssetIds": list(post.media_asset_ids),
        "userId": post.user_id,
        "status": str(status),
    }


def _on_the_wall(at: datetime, timezone: str | None) -> str:
    local = at.astimezone(zone(timezone)) if timezone else at
    return local.isoformat().replace("+00:00", "Z" if timezone is None else "+00:00")


def _shown(target: Target) -> dict[str, Any]:
    shown: dict[str, Any] = {"platform": target.platform, "accountId": target.account_id}
    if target.custom_content is not None:
        shown["customContent"] = target.custom_content
    if target.options:
        shown["options"] = target.options
    if target.thread:
        shown["thread"] = [
            {name: value for name, value in part.document().items() if value}
            for part in target.thread
        ]
    return shown


def cell(column: str, value: Any) -> str:
    """One value of a CSV row; texts are made harmless, numbers are left alone."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return harmless(value)
    if column == "platforms":
        plain = [_plain(target) for target in value]
        if all(plain):
            return harmless(", ".join(one for one in plain if one))
    if column == "mediaAssetIds" and not any(_SEPARATORS.search(one) for one in value):
        joined = ", ".join(value)
        if joined == joined.strip() and not joined.startswith("["):
            return harmless(joined)
    return harmless(json.dumps(value, ensure_ascii=False, default=str))


def _plain(target: Mapping[str, Any]) -> str | None:
    """`platform:account`, where that says all there is and can be read again."""
    account_id = target["accountId"]
    if set(target) != {"platform", "accountId"} or _SEPARATORS.search(account_id):
        return None
    platform = target["platform"]
    if account_id != account_id.strip() or platform.lower() != platform or ":" in platform:
        return None
    return f"{platform}:{account_id}"


def same(post: ScheduledPost, row: Row, targets: Sequence[Target]) -> bool:
    """Whether the post already is what the row wants. Raises `RefusedError` for its times."""
    values = row.values
    wanted = {(one.platform, one.account_id): _shown(one) for one in targets}
    known = {(one.platform, one.account_id): _shown(one) for one in post.platforms}
    timezone = values["timezone"]
    latest_at = values["latestAt"]
    return (
        wanted == known
        and (values["content"], tuple(values["mediaAssetIds"]))
        == (post.content, post.media_asset_ids)
        and moment(values["scheduledAt"], timezone, field="scheduledAt").at == post.scheduled_at
        and timezone in (None, post.timezone)
        and (
            latest_at is None or moment(latest_at, timezone, field="latestAt").at == post.latest_at
        )
    )
