"""Posts from files: taken in once, whatever the file, the queue and the machine do."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.rows import COLUMNS
from tests.behaviour.bulk_files import LEASE, Bulk, lines, planned, sheet
from tests.console import Console
from tests.sandbox.functions import FunctionProcess
from tests.sandbox.stack import BUCKET
from tests.world import COMPANY, Account, World

NOTHING = {"rows": 0, "created": 0, "updated": 0, "unchanged": 0, "skipped": 0, "failed": 0}


@pytest.fixture
def bulk(world: World) -> Bulk:
    return Bulk(world)


@pytest.fixture
def linkedin(world: World) -> Account:
    return world.account("linkedin")


@pytest.fixture
def twitter(world: World) -> Account:
    return world.account("twitter")


# --- what a file comes to ------------------------------------------------------------------------


def test_the_rows_of_a_file_are_scheduled_like_posts_and_published(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    job = bulk.import_(sheet(planned(world, linkedin, twitter, count=2, days=1), ";"))
    world.stack.turn(timedelta(days=1))
    world.run_until(lambda: bulk.published() == 4, step=timedelta(minutes=10))

    assert job["state"] == "completed"
    assert job["counts"] == NOTHING | {"rows": 2, "created": 2}
    published = {post.text for post in world.stack.platforms.posts("twitter")}
    assert published == {"Post 0", "Post 1"}


def test_the_same_file_twice_creates_nothing(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    content = sheet(planned(world, linkedin, twitter, count=3))
    keyless = sheet([_without_key(row) for row in planned(world, linkedin, count=2, days=9)])
    bulk.import_(content)
    bulk.import_(keyless)
    before, tasks = bulk.calendar(), bulk.tasks()

    again = bulk.import_(content)
    keyless_again = bulk.import_(keyless)

    assert again["counts"] == NOTHING | {"rows": 3, "unchanged": 3}
    assert keyless_again["counts"] == NOTHING | {"rows": 2, "unchanged": 2}
    assert bulk.calendar() == before
    assert (len(before), bulk.tasks()) == (5, tasks)


def test_a_changed_row_changes_its_post_and_no_other(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    rows = planned(world, linkedin, twitter, count=4)
    bulk.import_(sheet(rows))
    rows[1] |= {"content": "Another text"}
    rows[2] |= {"scheduledAt": rows[3]["scheduledAt"], "content": "Another time"}

    job = bulk.import_(sheet(rows))
    world.stack.turn(timedelta(days=3))
    world.run_until(lambda: bulk.published() == 8, step=timedelta(hours=1))

    assert job["counts"] == NOTHING | {"rows": 4, "updated": 2, "unchanged": 2}
    texts = sorted(post.text for post in world.stack.platforms.posts("twitter"))
    assert texts == ["Another text", "Another time", "Post 0", "Post 3"]


def test_a_row_whose_post_is_published_is_refused_and_the_rest_goes_in(
    world: World, bulk: Bulk, twitter: Account
) -> None:
    rows = planned(world, twitter, count=3, days=1)
    bulk.import_(sheet(rows[:1]))
    world.stack.turn(timedelta(days=1))
    rows[0] |= {"content": "Too late"}

    job = bulk.import_(sheet(rows))

    [refused] = bulk.rows(job)
    assert job["counts"] == NOTHING | {"rows": 3, "created": 2, "failed": 1}
    assert (refused["errorRow"], refused["errorColumn"]) == ("2", "key")
    assert "It is published." in refused["errorReason"]
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Post 0"]


def test_bad_rows_are_reported_in_a_file_of_the_same_format_that_can_be_mended(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    rows = planned(world, linkedin, twitter, count=6)
    wrong = [
        {"timezone": "Europe/Berlib"},
        {"scheduledAt": "03/04/2027 10:00"},
        {"platforms": "linkedin:nobody"},
        {"content": "x" * 281},
        {"scheduledAt": "2020-01-01 10:00"},
    ]
    broken = [row | fault for row, fault in zip(rows, wrong, strict=False)]

    job = bulk.import_(sheet([*broken, rows[5]], "\t"))
    mended = bulk.text(job)
    for row, fault in zip(rows, wrong, strict=False):
        [(column, value)] = fault.items()
        mended = mended.replace(value, row[column], 1)
    second = bulk.import_(mended)

    reported = [line.split("\t") for line in bulk.text(job).splitlines()]
    assert reported[0][-3:] == ["errorRow", "errorColumn", "errorReason"]
    assert [(line[-3], line[-2]) for line in reported[1:]] == [
        ("2", "timezone"),
        ("3", "scheduledAt"),
        ("4", "platforms"),
        ("5", "content"),
        ("6", "scheduledAt"),
    ]
    assert job["counts"] == NOTHING | {"rows": 6, "created": 1, "failed": 5}
    assert second["counts"] == NOTHING | {"rows": 5, "created": 5}


def test_json_lines_are_taken_in_and_reported_as_json_lines(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    first, second, third = planned(world, linkedin, count=3)
    targets = [{**linkedin.target, "customContent": "For LinkedIn"}, twitter.target]
    rows = [first | {"platforms": targets}, second | {"timezone": "Nowhere/Else"}, third]
    odd = [first | {"key": "odd", "platforms": [{"id": 5}]}, first | {"key": "\ud800"}]
    text = lines(rows) + "".join(json.dumps(row) + "\n" for row in odd) + '{"key": oops}\n'

    job = bulk.import_(text)

    assert job["counts"] == NOTHING | {"rows": 6, "created": 2, "failed": 4}
    reported = [json.loads(line) for line in bulk.text(job).splitlines()]
    assert [one["errorColumn"] for one in reported] == ["timezone", "platforms", "key", None]
    assert reported[0] | rows[1] == reported[0]
    assert (reported[3]["line"], reported[3]["errorRow"]) == ('{"key": oops}', 6)
    contents = {log["content"] for log in world.stack.records("publishLogs").values()}
    assert contents == {"For LinkedIn", "Post 0", "Post 2"}


def test_a_key_that_is_there_twice_is_refused_the_second_time(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    rows = planned(world, linkedin, count=3)
    rows[2] |= {"key": "k0"}

    job = bulk.import_(sheet(rows))

    [refused] = bulk.rows(job)
    assert job["counts"] == NOTHING | {"rows": 3, "created": 2, "failed": 1}
    assert (refused["errorRow"], refused["errorColumn"]) == ("4", "key")
    assert "Row 2 has the same key" in refused["errorReason"]


def test_a_dry_run_tells_what_would_be_and_does_nothing(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    rows = planned(world, linkedin, count=3)
    bulk.import_(sheet(rows[:1]))
    before = bulk.calendar()
    rows[0] |= {"content": "Changed"}
    rows[2] |= {"timezone": "Nowhere/Else"}

    job = bulk.import_(sheet(rows), dryRun=True)

    assert job["counts"] == NOTHING | {"rows": 3, "created": 1, "updated": 1, "failed": 1}
    assert [row["errorRow"] for row in bulk.rows(job)] == ["4"]
    assert bulk.calendar() == before


def test_an_hour_that_a_change_of_clocks_skips_is_noted_with_its_row(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    [row] = planned(world, linkedin, count=1)
    row |= {"scheduledAt": "2027-03-28 02:30"}
    del row["timezone"]

    job = bulk.import_(sheet([row]), timezone="Europe/Berlin")

    [post] = bulk.calendar().values()
    assert post["scheduledAt"].isoformat() == "2027-03-28T01:00:00+00:00"
    [note] = job["notes"]
    assert note["row"] == 2
    assert "does not exist in Europe/Berlin" in note["note"]


# --- files that are not what they should be ------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "code", "row", "column", "reason"),
    [
        (lambda text: "", "empty", None, None, "The file is empty."),
        (
            lambda text: text.replace("platforms", "platform5"),
            "column_unknown",
            1,
            "platform5",
            f"The column 'platform5' is not one of {', '.join(COLUMNS)}.",
        ),
        (
            lambda text: text[:-9],
            "truncated",
            121,
            "platforms",
            "The file ends in the middle of row 121: a quote is opened and never closed.",
        ),
        (
            lambda text: text + "\r\nk,2027",
            "truncated",
            122,
            "scheduledAt",
            "The file ends in the middle of row 122: it has 2 of 5 columns.",
        ),
    ],
)
def test_of_a_file_that_is_broken_somewhere_nothing_is_taken_in(
    world: World,
    bulk: Bulk,
    linkedin: Account,
    spoil: Any,
    code: str,
    row: int,
    column: str,
    reason: str,
) -> None:
    content = sheet(planned(world, linkedin, count=120, text=lambda n: "ü" * n)).rstrip("\r\n")

    job = bulk.import_(spoil(content[: content.rindex(",")] + ',"' + "linkedin:1" + '"'))

    assert job["state"] == "failed"
    assert job["error"] == {"code": code, "row": row, "column": column, "reason": reason}
    assert bulk.calendar() == {}


def test_bytes_of_another_encoding_are_named_by_row_and_column(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    rows = planned(world, linkedin, count=3)
    rows[2] |= {"content": "Café"}

    latin = bulk.import_of("latin.csv", sheet(rows).encode("latin-1"))
    nothing = bulk.calendar()
    utf16 = bulk.import_of("utf16.csv", sheet(rows).encode("utf-16"))

    assert latin["state"] == "failed"
    assert latin["error"] == {
        "code": "encoding_wrong",
        "row": 4,
        "column": "content",
        "reason": "The byte 0xe9 is not UTF-8. Save the file as UTF-8.",
    }
    assert nothing == {}
    assert utf16["counts"] == NOTHING | {"rows": 3, "created": 3}


def test_a_line_of_100_megabytes_is_named_and_never_held(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    content = sheet(planned(world, linkedin, count=1)).encode() + b"k2,2027-01-01 10:00,UTC,"
    [process] = world.stack.processes["bulk"]
    before = _peak_kib(process)

    job = bulk.import_of("endless.csv", content + b"x" * 100_000_000)

    assert job["error"] == {
        "code": "row_too_long",
        "row": 3,
        "column": "content",
        "reason": "The row is longer than 524288 bytes.",
    }
    assert bulk.calendar() == {}
    assert _peak_kib(process) - before < 48 * 1024


def test_a_file_that_changes_while_it_is_read_is_an_error_and_nothing_else(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    content = sheet(planned(world, linkedin, count=5)).encode()
    world.stack.storage.put(BUCKET, "changing.csv", content, "text/csv")

    def change(_: object) -> None:
        world.stack.storage.put(BUCKET, "changing.csv", content + b"\r\n", "text/csv")

    world.stack.storage.faults.arm(change, when=lambda call: "/rows/" in _named(call))
    job = bulk.ended(bulk.begin_import_of("changing.csv"))

    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "file_changed",
        "row": None,
        "column": None,
        "reason": "The file was changed while it was read. Nothing was imported. Import it again.",
    }
    assert bulk.calendar() == {}


def test_a_mark_semicolons_quoted_lines_and_dates_are_read_and_what_is_wrong_is_told_exactly(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    like = "Write it like 2027-03-31 09:30 or 2027-03-31T09:30:00+02:00."
    cells = {
        "k1": ("2027-03-01T10:00:00Z", "", '"two\r\nlines; ""quoted"""'),
        "k2": ("2027-03-01 11:00", "Europe/Berlin", "b"),
        "k3": ("2027-03-01T10:00:30+01:00", "", "c"),
        "k4": ("2027-03-01 10:00:30.5 -0530", "", "d"),
        "k5": ("03/04/2027 10:00", "UTC", "e"),
        "k6": ("2027-03-01", "UTC", "f"),
        "k7": ("2027-03-01 10:00", "Mars/Base", "g"),
    }
    text = "\ufeffkey;Scheduled At;timezone;content;platforms\r\n" + "".join(
        f"{key};{';'.join(said)};linkedin:{linkedin.id}\r\n" for key, said in cells.items()
    )

    job = bulk.import_of("odd.csv", text.encode())

    times = sorted(post["scheduledAt"].isoformat() for post in bulk.calendar().values())
    assert times == [
        "2027-03-01T09:00:30+00:00",
        "2027-03-01T10:00:00+00:00",
        "2027-03-01T10:00:00+00:00",
        "2027-03-01T15:30:30.500000+00:00",
    ]
    assert 'two\r\nlines; "quoted"' in {post["content"] for post in bulk.calendar().values()}
    reported = list(csv.DictReader(io.StringIO(bulk.text(job)), delimiter=";"))
    assert [(one["errorRow"], one["errorColumn"], one["errorReason"]) for one in reported] == [
        ("6", "scheduledAt", f"'03/04/2027 10:00' does not say which number is the month. {like}"),
        ("7", "scheduledAt", f"'2027-03-01' has no time of day. {like}"),
        ("8", "timezone", "'Mars/Base' is no IANA time zone, such as Europe/Berlin."),
    ]


@pytest.mark.parametrize(
    ("data", "field", "code"),
    [
        ({"uri": f"gs://{BUCKET}/nowhere.csv"}, "data.uri", "file_missing"),
        ({"uri": "gs://elsewhere/rows.csv"}, "data.uri", "foreign_bucket"),
        ({"content": "x", "timezone": "Nowhere/Else"}, "timezone", "timezone_unknown"),
    ],
)
def test_what_no_import_can_be_made_of_is_refused_at_once(
    bulk: Bulk, data: dict[str, Any], field: str, code: str
) -> None:
    answer = bulk.ask("BULK_IMPORT", data)

    [error] = answer.json()["errors"]
    assert (answer.status_code, error["field"], error["code"]) == (422, field, code)
    assert bulk.stack.records("bulkJobs") == {}


# --- killed, doubled, overtaken ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commit", "landed"), [(1, True), (2, False), (3, True), (4, False), (4, True), (6, False)]
)
def test_an_import_killed_at_any_commit_leaves_what_one_that_ran_through_leaves(
    world: World, bulk: Bulk, linkedin: Account, commit: int, landed: bool
) -> None:
    rows = planned(world, linkedin, count=60)
    rows[55] |= {"timezone": "Nowhere/Else"}
    bulk.import_(sheet([rows[3] | {"content": "Before"}]))

    fault = bulk.kill_at_commit(commit, landed=landed)
    job = bulk.recovered(bulk.begin_import(sheet(rows)))

    assert fault.hits >= commit
    assert job["state"] == "completed"
    counts = {"rows": 60, "created": 58, "updated": 1, "failed": 1}
    assert job["counts"] == NOTHING | counts
    assert [row["errorRow"] for row in bulk.rows(job)] == ["57"]
    contents = [post["content"] for post in bulk.calendar().values()]
    good = [row["content"] for row in rows if row != rows[55]]
    assert sorted(contents) == sorted(good)
    assert {log[1:] for log in bulk.deliveries().values()} == {("pending", 1, 1)}
    assert (len(bulk.deliveries()), bulk.tasks()) == (59, 59)


def test_two_workers_at_one_chunk_double_nothing(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    world.stack.tasks.faults.deliver_twice(at_once=True, times=None, queue="bulk")

    job = bulk.recovered(bulk.begin_import(sheet(planned(world, linkedin, twitter, count=60))))

    assert job["counts"] == NOTHING | {"rows": 60, "created": 60}
    assert (len(bulk.calendar()), len(bulk.deliveries())) == (60, 120)


def test_an_instance_that_wakes_up_after_another_took_over_writes_nothing(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    rows = planned(world, linkedin, count=60)
    third = world.stack.proxy.hold("Commit", when=_creates_posts)

    with bulk.another_instance() as other, ThreadPoolExecutor(1) as pool:
        job_id = bulk.begin_import(sheet(rows))
        third.arrived()
        world.stack.fronts["bulk"].backends = [other.port]
        world.stack.tasks.longest_wait = timedelta(seconds=0.1)
        task = world.stack.tasks.tasks("bulk")[0].id
        world.stack.clock.turn(LEASE)
        taking_over = pool.submit(world.stack.tasks.deliver, task)
        world.stack.tasks.longest_wait = None
        world.stack.until(lambda: bulk.job(job_id)["state"] == "completed", timeout=60)
        between = bulk.calendar()
        third.open()
        taking_over.result()
        world.stack.settle(60)

    assert len(between) == 60
    assert bulk.calendar() == between
    assert bulk.job(job_id)["counts"] == NOTHING | {"rows": 60, "created": 60}


@pytest.mark.parametrize("part", [1, 2])
def test_an_import_killed_while_it_reads_leaves_the_records_of_one_that_ran_through(
    world: World, bulk: Bulk, linkedin: Account, part: int
) -> None:
    rows = planned(world, linkedin, count=30)
    rows[20] |= {"timezone": "Nowhere/Else"}

    fault = bulk.kill_at_write(part)
    killed = bulk.recovered(bulk.begin_import_of(stored(world, rows)))
    left = bulk.calendar(), bulk.deliveries(), bulk.text(killed)
    for collection in ("scheduledPosts", "publishLogs"):
        world.stack.db.recursive_delete(world.stack.db.collection(collection))
    ran_through = bulk.ended(bulk.begin_import_of(stored(world, rows)))

    assert fault.hits >= part
    assert (
        killed["counts"]
        == ran_through["counts"]
        == NOTHING
        | {
            "rows": 30,
            "created": 29,
            "failed": 1,
        }
    )
    assert left == (bulk.calendar(), bulk.deliveries(), bulk.text(ran_through))


def test_a_cancelled_import_stops_at_the_next_batch_and_stays_cancelled(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    second = world.stack.proxy.hold("Commit", when=lambda r: _creates_posts(r) and _holds(r, "k50"))

    job_id = bulk.begin_import(sheet(planned(world, linkedin, count=120)))
    second.arrived()
    answer = bulk.cancel(job_id)
    second.open()
    world.stack.settle()
    again = bulk.cancel(job_id)

    job = bulk.job(job_id)
    assert (answer.status_code, again.status_code) == (200, 200)
    assert (job["state"], job["counts"]["created"]) == ("cancelled", 50)
    assert len(bulk.calendar()) == 50


def test_a_chunk_whose_time_is_up_hands_over_to_a_successor(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    with bulk.another_instance(BULK_SECONDS="0.01") as hasty:
        world.stack.fronts["bulk"].backends = [hasty.port]
        job = bulk.import_(sheet(planned(world, linkedin, count=60)))

    assert job["counts"] == NOTHING | {"rows": 60, "created": 60}
    assert job["cursor"]["chunk"] == 4
    assert len(bulk.calendar()) == 60


def test_a_job_whose_task_is_lost_is_found_by_the_sweep(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    world.stack.tasks.faults.lose_task(queue="bulk")
    job_id = bulk.begin_import(sheet(planned(world, linkedin, count=2)))
    world.stack.turn(timedelta(minutes=6))
    lost = bulk.job(job_id)["state"]

    world.sweep()
    job = bulk.ended(job_id)

    assert lost == "queued"
    assert job["counts"] == NOTHING | {"rows": 2, "created": 2}


def test_a_paused_import_waits_and_goes_on_when_it_is_resumed(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    console, pause = Console(world), {"kind": "bulk", "scope": "company", "name": COMPANY}
    paused = console.done("/pause", {**pause, "reason": "too many"})

    job_id = bulk.begin_import(sheet(planned(world, linkedin, count=2)))
    world.stack.settle()
    held = bulk.job(job_id)
    world.stack.clock.turn(timedelta(minutes=6))
    world.sweep()
    world.stack.settle()
    still = bulk.job(job_id)
    resumed = console.done("/resume", pause)
    job = bulk.ended(job_id)

    assert "the next one waits" in paused["message"]
    assert [(one["state"], one["paused"]) for one in (held, still)] == [("queued", True)] * 2
    assert resumed["woken"] == 1
    assert (job["paused"], job["counts"]) == (False, NOTHING | {"rows": 2, "created": 2})


def test_a_task_of_a_paused_queue_that_was_on_its_way_does_nothing(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    console, pause = Console(world), {"scope": "queue", "name": "bulk"}
    console.done("/pause", {**pause, "reason": "too many"})
    job_id = bulk.begin_import(sheet(planned(world, linkedin, count=2)))
    [task] = world.stack.tasks.tasks("bulk")

    world.stack.tasks.deliver(task.id)
    held = bulk.job(job_id)
    console.done("/resume", pause)
    job = bulk.ended(job_id)

    assert (held["state"], held["paused"]) == ("queued", True)
    assert job["counts"] == NOTHING | {"rows": 2, "created": 2}


def test_a_pause_of_another_company_or_kind_holds_no_import(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    console = Console(world)
    console.done(
        "/pause", {"kind": "bulk", "scope": "company", "name": "other", "reason": "too many"}
    )
    console.done("/pause", {"scope": "company", "name": COMPANY, "reason": "too many"})

    job = bulk.import_(sheet(planned(world, linkedin, count=1)))
    senseless = console.act(
        "/pause", {"kind": "bulk", "scope": "platform", "name": "twitter", "reason": "too many"}
    )

    assert job["counts"]["created"] == 1
    assert (senseless.status_code, senseless.json()["code"]) == (422, "scope_unknown")


# --- who asks ------------------------------------------------------------------------------------


def test_the_same_key_gets_the_first_answer_and_another_payload_a_409(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    data = {"content": sheet(planned(world, linkedin, count=1)), "userId": "user-1"}

    first = bulk.ask("BULK_IMPORT", data, idempotencyKey="same")
    again = bulk.ask("BULK_IMPORT", data, idempotencyKey="same")
    other = bulk.ask("BULK_IMPORT", {**data, "dryRun": True}, idempotencyKey="same")
    world.stack.settle()

    assert again.json() == {**first.json(), "alreadyProcessed": True}
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert len(world.stack.records("bulkJobs")) == 1


def test_another_companys_job_is_not_there(world: World, bulk: Bulk, linkedin: Account) -> None:
    job = bulk.import_(sheet(planned(world, linkedin, count=1)))

    looked = bulk.look(job["jobId"], company_id="other")
    cancelled = bulk.cancel(job["jobId"], company_id="other")

    assert (looked.status_code, cancelled.status_code) == (404, 404)


def test_what_one_company_exported_another_cannot_import(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    world.schedule(linkedin, after=timedelta(days=2))
    uri = bulk.export()["file"]["uri"]

    own = bulk.ask("BULK_IMPORT", {"uri": uri})
    stolen = bulk.ask("BULK_IMPORT", {"uri": uri}, companyId="other")

    assert own.status_code == 202
    assert (stolen.status_code, stolen.json()["code"]) == (422, "file_missing")


def test_posts_of_another_company_are_neither_found_nor_changed(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    post_id = world.schedule(linkedin, after=timedelta(days=2))
    before = world.stack.record("scheduledPosts", post_id)
    [row] = planned(world, linkedin, count=1)

    answer = bulk.ask(
        "BULK_IMPORT",
        {"content": sheet([row | {"key": post_id}]), "userId": "user-1"},
        companyId="other",
    )
    world.stack.settle()

    job = bulk.look(answer.json()["jobId"], company_id="other").json()
    assert job["counts"] == NOTHING | {"rows": 1, "failed": 1}
    assert world.stack.record("scheduledPosts", post_id) == before


def stored(world: World, rows: list[dict[str, Any]]) -> str:
    """The name of a file with these rows."""
    world.stack.storage.put(BUCKET, "rows.csv", sheet(rows).encode(), "text/csv")
    return "rows.csv"


def _without_key(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "key"}


def _named(call: Any) -> str:
    return str(call.query.get("name", "")) + str(call.body[:500])


def _creates_posts(request: Any) -> bool:
    return any("/scheduledPosts/" in write.update.name for write in request.writes)


def _holds(request: Any, key: str) -> bool:
    return any(
        write.update.fields["rowKey"].string_value == key
        for write in request.writes
        if "rowKey" in write.update.fields
    )


def _peak_kib(process: FunctionProcess) -> int:
    """The most memory that its worker has had so far."""
    with open(f"/proc/{process.worker()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
