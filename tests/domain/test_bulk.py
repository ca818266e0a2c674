"""Rows, files and chunks as values: what a cell means, where a file is wrong, who may work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain import bulk, rows, rows_file
from shared.domain.bulk import Begun, BulkJob, Busy, Export, Over, SeenKeys, Stale, State
from shared.domain.failures import RefusedError
from shared.domain.rows import Defaults, Row
from shared.domain.rows_file import FileFaultError, Format, Record, Shape

NOW = datetime(2027, 1, 4, 12, tzinfo=UTC)
HEADER = "key,scheduledAt,timezone,content,platforms\r\n"
GOOD = {"scheduledAt": "2027-03-01T10:00:00Z", "platforms": "linkedin:one", "userId": "u"}


# --- cells that a spreadsheet would run ----------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "'=", "''@", "'-"])
def test_a_text_that_a_spreadsheet_would_run_is_harmless_and_comes_back_as_it_was(
    start: str,
) -> None:
    text = f"{start}HYPERLINK(1)"

    written = rows.harmless(text)

    assert written == "'" + text
    assert rows.undone(written) == text


@pytest.mark.parametrize("text", ["", "'", "'quoted'", "a=b", " =b", "1-2", "''"])
def test_any_other_text_is_left_alone(text: str) -> None:
    assert rows.harmless(text) == text
    assert rows.undone(text) == text


def test_numbers_keep_their_minus() -> None:
    assert rows.cell("likes", -5) == "-5"


# --- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2027-03-01T10:00:00Z", datetime(2027, 3, 1, 10, tzinfo=UTC)),
        ("2027-03-01T10:00:00+02:00", datetime(2027, 3, 1, 8, tzinfo=UTC)),
        ("2027-03-01 10:00:30.5 -0530", datetime(2027, 3, 1, 15, 30, 30, 500_000, tzinfo=UTC)),
        ("2027-03-01T10:00", datetime(2027, 3, 1, 10)),  # noqa: DTZ001
        (" 2027-03-01 10:00 ", datetime(2027, 3, 1, 10)),  # noqa: DTZ001
    ],
)
def test_a_date_is_read_in_each_of_its_forms(text: str, meant: datetime) -> None:
    assert rows.instant(text, "scheduledAt") == meant


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("03/04/2027 10:00", "which number is the month"),
        ("3.4.27", "which number is the month"),
        ("31-12-2027 10:00", "which number is the month"),
        ("2027-03-01", "no time of day"),
        ("2027-02-30 10:00", "no date that exists"),
        ("2027-03-01 25:00", "no date that exists"),
        ("46023.41", "can be read"),
        ("tomorrow", "can be read"),
    ],
)
def test_a_date_that_must_be_guessed_is_refused_with_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as refused:
        rows.instant(text, "scheduledAt")

    assert "2027-03-31 09:30" in refused.value.message


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "column", "code"),
    [
        ({"scheduledAt": None}, "scheduledAt", "missing"),
        ({"scheduledAt": "2027-03-01 10:00"}, "timezone", "timezone_required"),
        ({"timezone": "Mars/Base"}, "timezone", "timezone_unknown"),
        ({"latestAt": "5/6/2027"}, "latestAt", "date_invalid"),
        ({"platforms": None}, "platforms", "missing"),
        ({"platforms": "linkedin"}, "platforms", "account_unclear"),
        ({"platforms": "[1,"}, "platforms", "not_json"),
        ({"mediaAssetIds": [1]}, "mediaAssetIds", "not_ids"),
        ({"userId": None}, "userId", "missing"),
        ({"status": "live"}, "status", "status_unknown"),
        ({"key": "k" * 201}, "key", "too_long"),
        ({"content": 5}, "content", "not_text"),
    ],
)
def test_a_cell_that_cannot_be_taken_is_named_by_its_column(
    cells: dict[str, object], column: str, code: str
) -> None:
    row = rows.read({**GOOD, **cells}, Defaults("acme"))

    assert [(problem.field, problem.code) for problem in row.problems] == [(column, code)]


def test_accounts_may_be_written_as_names_or_as_json() -> None:
    named = read(platforms="LinkedIn:one; twitter:two|twitter:a:b")
    listed = read(platforms='[{"platform": "twitter", "accountId": "two", "customContent": "x"}]')

    assert [(one["platform"], one["accountId"]) for one in named.values["platforms"]] == [
        ("linkedin", "one"),
        ("twitter", "two"),
        ("twitter", "a:b"),
    ]
    assert listed.values["platforms"][0]["customContent"] == "x"


def test_a_row_without_a_key_has_the_key_of_what_it_says() -> None:
    row, again = read(platforms="linkedin:1,twitter:2"), read(platforms="twitter:2,linkedin:1")
    other = read(platforms="linkedin:1,twitter:2", content="other")

    assert row.key == again.key
    assert row.key != other.key


def test_a_target_that_lacks_its_names_is_left_to_the_validation_of_scheduling() -> None:
    row = read(platforms=[{"platform": "linkedin"}, {"id": 5}])

    assert row.problems == ()
    assert row.values["platforms"] == [{"platform": "linkedin"}, {"id": 5}]


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("platforms[0].accountId", "platforms"),
        ("platforms.0.accountId", "platforms"),
        ("platforms[1].content", "content"),
        ("platforms[1].media[0]", "mediaAssetIds"),
        ("mediaAssetIds[2]", "mediaAssetIds"),
        ("scheduledAt", "scheduledAt"),
        ("idempotencyKey", "key"),
    ],
)
def test_what_scheduling_says_of_a_field_is_said_of_a_column(field: str, column: str) -> None:
    assert rows.column_of(field) == column


def test_the_files_own_defaults_are_used_where_a_row_says_nothing() -> None:
    cells = {"scheduledAt": "2027-03-01 10:00", "platforms": "linkedin:1"}

    row = rows.read(cells, Defaults("acme", user_id="u", timezone="Europe/Berlin"))

    assert row.problems == ()
    assert (row.values["userId"], row.values["timezone"]) == ("u", "Europe/Berlin")


def test_accounts_and_media_come_back_from_a_cell_as_they_were() -> None:
    targets = [
        {"platform": "linkedin", "accountId": "=a"},
        {"platform": "twitter", "accountId": "b, c", "customContent": "x", "options": {"n": 1}},
    ]
    media = ["one", "t;w|o"]

    plain = rows.undone(rows.cell("platforms", targets[:1]))
    rich = rows.undone(rows.cell("platforms", targets))
    listed = rows.undone(rows.cell("mediaAssetIds", media))

    assert plain == "linkedin:=a"
    assert read(platforms=plain).values["platforms"] == targets[:1]
    assert read(platforms=rich).values["platforms"] == targets
    assert read(mediaAssetIds=listed).values["mediaAssetIds"] == media


def read(**cells: object) -> Row:
    return rows.read({**GOOD, **cells}, Defaults("acme"))


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_is_read_in_each_dialect_and_encoding(delimiter: str, encoding: str) -> None:
    cells = ["k", "2027-03-01 10:00", "Europe/Berlin", '"two ""quoted""\nlines, é; 😀"', "a:b"]
    text = HEADER.replace(",", delimiter) + delimiter.join(cells) + "\r\n\r\n"

    [record] = parsed(text.encode(encoding))

    assert record.number == 2
    assert record.cells[3] == 'two "quoted"\nlines, é; 😀'
    assert record.cells[4] == "a:b"


def test_reading_goes_on_at_the_offset_of_any_row() -> None:
    lines = [f'k{n},2027-03-01 10:00,UTC,"ü{n}\n=",a:b\r\n' for n in range(5)]
    data = (HEADER + "".join(lines)).encode("utf-16")
    whole = parsed(data)

    rest = [resumed(data, record) for record in whole]

    assert [[one.number for one in part] for part in rest] == [
        [3, 4, 5, 6],
        [4, 5, 6],
        [5, 6],
        [6],
        [],
    ]
    assert rest[0] == whole[1:]


@pytest.mark.parametrize(
    ("data", "code", "row", "column"),
    [
        (b"", "empty", None, None),
        (b"\xef\xbb\xbf\r\n", "empty", None, None),
        (HEADER.encode("utf-32"), "encoding_unknown", 1, None),
        (b"key,scheduledAt,when\n", "column_unknown", 1, "when"),
        (b"key,content,platforms\n", "column_missing", 1, "scheduledAt"),
        (b"key,key,scheduledAt,platforms\n", "column_repeated", 1, "key"),
        ((HEADER + "k,d,z,caf\xe9,p\n").encode("latin-1"), "encoding_wrong", 2, "content"),
        ((HEADER + "k,d,z,c,p\nk,d,z,é").encode()[:-1], "truncated", 3, "content"),
        ((HEADER + "k,d,z,c,p\nk,d").encode(), "truncated", 3, "scheduledAt"),
        ((HEADER + 'k,d,z,"c,p\n').encode(), "truncated", 2, "content"),
        ((HEADER + 'k,d,z,"c"d,p\n').encode(), "not_csv", 2, None),
        ((HEADER + "k,d,z,\0,p\n").encode(), "not_text", 2, "content"),
        ((HEADER + "k,d,z," + "c" * 600_000).encode(), "row_too_long", 2, "content"),
        ((HEADER + 'k,d,z,"c' + "c\n" * 300_000).encode(), "row_too_long", 2, "content"),
        (b"x" * 600_000, "row_too_long", 1, None),
    ],
)
def test_a_file_that_cannot_be_read_says_where(
    data: bytes, code: str, row: int | None, column: str | None
) -> None:
    with pytest.raises(FileFaultError) as raised:
        parsed(data)

    fault = raised.value.fault
    assert (fault.code, fault.row, fault.column) == (code, row, column)
    assert fault.reason.endswith(".")


def test_json_lines_that_break_off_say_in_which_row() -> None:
    with pytest.raises(FileFaultError) as raised:
        parsed(b'{"key": "a"}\n\n{"key": ', Format.JSONL)

    assert (raised.value.fault.code, raised.value.fault.row) == ("truncated", 3)


def test_a_row_that_does_not_fit_its_header_is_told_from_one_that_does() -> None:
    shape = Shape(format=Format.CSV, encoding="utf-8", columns=("key", "content", ""))

    assert rows_file.named(("a", "'=b", ""), shape) == {"key": "a", "content": "=b"}
    assert "2 columns" in str(rows_file.named(("a", "b"), shape))
    assert "4 columns" in str(rows_file.named(("a", "b", "", "c"), shape))


def parsed(data: bytes, format: Format = Format.CSV) -> list[Record]:
    shape = shaped(data, format)
    found = rows_file.records(
        blocks(data, shape.begins), shape, offset=shape.begins, number=shape.first_row
    )
    return list(found)


def resumed(data: bytes, after: Record) -> list[Record]:
    rest = blocks(data, after.ends)
    shape = shaped(data, Format.CSV)
    return list(rows_file.records(rest, shape, offset=after.ends, number=after.number + 1))


def shaped(data: bytes, format: Format) -> Shape:
    head = data[: rows_file.HEAD_BYTES]
    return rows_file.shape(head, format, whole=len(head) == len(data))


def blocks(data: bytes, start: int) -> Iterator[bytes]:
    """In pieces that break characters apart."""
    size = 7 if len(data) < 10_000 else 65_537
    return (data[at : at + size] for at in range(start, len(data), size))


# --- keys and chunks -----------------------------------------------------------------------------


def test_a_key_seen_in_an_earlier_chunk_is_known_in_a_later_one() -> None:
    seen = SeenKeys()
    firsts = [seen.first(f"k{n}", n) for n in range(200)]
    later = SeenKeys(seen.pack())
    again = [later.first(f"k{n}", n + 1000) for n in range(300)]

    assert firsts == [None] * 200
    assert again == [*range(200), *[None] * 100]
    assert SeenKeys(later.pack()).first("k250", 9) == 1250
    assert len(later.pack()) == 300 * 16


def test_a_chunk_is_claimed_once_and_taken_over_when_its_lease_is_over() -> None:
    job = export_job()

    first = begin(job, owner="one")
    assert isinstance(first, Begun)
    rival = begin(first.job, owner="two")
    later = begin(first.job, owner="two", after=timedelta(seconds=61))

    assert isinstance(rival, Busy)
    assert isinstance(later, Begun)
    assert later.job.started_at == first.job.started_at


def test_a_task_of_an_earlier_chunk_or_of_an_ended_job_may_do_nothing() -> None:
    claimed = begin(export_job(), owner="one")
    assert isinstance(claimed, Begun)
    handed = bulk.handed_over(claimed.job, NOW)
    cancelled = bulk.ended(handed, NOW, State.CANCELLED)

    assert isinstance(begin(handed, owner="two"), Stale)
    assert isinstance(begin(cancelled, owner="two"), Over)


def test_an_end_is_an_end() -> None:
    cancelled = bulk.ended(export_job(), NOW, State.CANCELLED)

    with pytest.raises(bulk.IllegalMoveError):
        bulk.evolve(cancelled, NOW, state=State.RUNNING)


def export_job() -> BulkJob:
    asked = Export(records=bulk.Records.POSTS, format=Format.CSV)
    return bulk.job(asked, company_id="acme", key="k", traceparent=None, now=NOW)


def begin(job: BulkJob, *, owner: str, after: timedelta = timedelta(0)) -> bulk.Decision:
    return bulk.begin(job, hop=1, owner=owner, now=NOW + after)
