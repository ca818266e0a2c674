"""Records into files: whole, checked, harmless, the same whatever happens on the way, and back."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from datetime import timedelta
from typing import Any

import google_crc32c
import httpx
import pytest

from tests.behaviour.bulk_files import Bulk, planned, sheet
from tests.sandbox.stack import BUCKET
from tests.world import COMPANY, Account, World

FORMULAS = ["=1+1", "+49 30 1", "-5 °C", "@acme hello", "\tindented", "'=quoted", 'Say "hi";\nbye']


@pytest.fixture
def bulk(world: World) -> Bulk:
    return Bulk(world)


@pytest.fixture
def linkedin(world: World) -> Account:
    return world.account("linkedin")


@pytest.fixture
def twitter(world: World) -> Account:
    return world.account("twitter")


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_what_was_exported_gives_the_same_calendar_when_it_is_imported(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account, format: str
) -> None:
    _varied_calendar(world, bulk, linkedin, twitter)
    before = _wanted(bulk)
    content = bulk.text(bulk.export(format=format))

    again = bulk.import_(content, format=format)
    for collection in ("scheduledPosts", "publishLogs"):
        _wipe(world, collection)
    anew = bulk.import_(content, format=format)

    assert again["counts"] | {"unchanged": 10} == again["counts"]
    assert anew["counts"] | {"created": 9, "skipped": 1} == anew["counts"]
    assert _wanted(bulk) == [post for post in before if post["status"] != "cancelled"]
    kept = [line for line in content.splitlines() if "cancelled" not in line]
    assert sorted(bulk.text(bulk.export(format=format)).splitlines()) == sorted(kept)


def test_the_link_leads_to_the_file_and_the_checksums_are_those_of_its_bytes(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    bulk.import_(sheet(planned(world, linkedin, count=3)))

    job = bulk.export()
    answer = httpx.get(job["file"]["url"])

    file = job["file"]
    assert answer.status_code == 200
    assert 'filename="posts.csv"' in file["url"].replace("%22", '"').replace("%3D", "=")
    assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
    crc32c = base64.b64encode(google_crc32c.Checksum(answer.content).digest()).decode()
    assert crc32c == file["crc32c"]
    assert (file["rows"], file["sizeBytes"]) == (3, len(answer.content))
    assert "Signature" not in json.dumps(_plain(world.stack.records("bulkJobs")))


def test_no_cell_of_a_sheet_is_run_as_a_formula(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    rows = planned(world, linkedin, count=len(FORMULAS))
    for row, text in zip(rows, FORMULAS, strict=True):
        world.schedule(
            linkedin, content=text, scheduledAt=row["scheduledAt"].replace(" ", "T") + "Z"
        )

    exported = bulk.rows(bulk.export())

    contents = [row["content"] for row in exported]
    assert sorted(contents) == sorted(["'" + text for text in FORMULAS[:6]] + FORMULAS[6:])
    assert not any(
        cell[:1] in tuple("=+-@\t\r") for row in exported for cell in row.values() if cell
    )


def test_publish_logs_and_metrics_are_exported_of_one_company_alone(
    world: World, bulk: Bulk, linkedin: Account, twitter: Account
) -> None:
    post_id = world.schedule(linkedin, twitter)
    world.stack.settle()
    _measured(world, "d1", COMPANY, likes=7)
    _measured(world, "d2", "other", likes=9)

    logs = bulk.rows(bulk.export(records="publishLogs"))
    metrics = bulk.rows(bulk.export(records="postMetrics"))
    as_lines = bulk.text(bulk.export(records="postMetrics", format="jsonl"))
    nothing = bulk.ask("BULK_EXPORT", {"records": "publishLogs"}, companyId="other")
    world.stack.settle()

    assert [(log["postId"], log["status"], log["attempts"]) for log in logs] == [
        (post_id, "success", "1")
    ] * 2
    assert all(log["remoteId"] for log in logs)
    assert [(one["deliveryId"], one["likes"], one["views"]) for one in metrics] == [("d1", "7", "")]
    assert [json.loads(line)["likes"] for line in as_lines.splitlines()] == [7]
    empty = bulk.look(nothing.json()["jobId"], company_id="other").json()
    assert (empty["counts"]["rows"], bulk.text(empty).count("\n")) == (0, 1)


def test_an_export_may_be_bounded_by_time_and_status(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    now = world.stack.clock.now()
    world.schedule(linkedin)
    world.stack.settle()
    world.schedule(linkedin, after=timedelta(days=1))
    world.schedule(linkedin, after=timedelta(days=5))

    soon = bulk.export(until=(now + timedelta(days=2)).isoformat())
    pending = bulk.export(status="pending")

    assert [row["status"] for row in bulk.rows(soon)] == ["published", "pending"]
    assert [row["status"] for row in bulk.rows(pending)] == ["pending", "pending"]


@pytest.mark.parametrize(
    ("commit", "landed"), [(2, True), (3, False), (3, True), (4, True), (5, False)]
)
def test_an_export_killed_at_any_commit_writes_the_same_bytes(
    world: World, bulk: Bulk, linkedin: Account, commit: int, landed: bool
) -> None:
    _many_posts(world, 450)
    whole = bulk.text(bulk.export())

    fault = bulk.kill_at_commit(commit, landed=landed)
    job = bulk.recovered(bulk.begin_export())

    assert fault.hits >= commit
    assert job["counts"]["rows"] == 450
    assert bulk.text(job) == whole
    assert len(list(csv.DictReader(io.StringIO(whole)))) == 450


def test_posts_that_move_while_they_are_exported_are_there_once(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    _many_posts(world, 250)
    second = world.stack.proxy.hold("RunQuery", times=2)
    second.open()
    held = world.stack.proxy.hold("Commit", when=_begins_second_page)

    job_id = bulk.begin_export()
    held.arrived()
    _move_first_behind_last(world)
    held.open()
    job = bulk.ended(job_id)

    keys = [row["key"] for row in bulk.rows(job)]
    assert (len(keys), len(set(keys))) == (250, 250)


def test_a_cancelled_export_makes_no_file(world: World, bulk: Bulk) -> None:
    _many_posts(world, 250)
    held = world.stack.proxy.hold("Commit", when=_begins_second_page)

    job_id = bulk.begin_export()
    held.arrived()
    answer = bulk.cancel(job_id)
    held.open()
    world.stack.settle()

    assert answer.json()["state"] == "cancelled"
    assert bulk.job(job_id)["state"] == "cancelled"
    assert "file" not in bulk.job(job_id)


def test_a_bucket_that_is_down_for_a_while_only_delays(
    world: World, bulk: Bulk, linkedin: Account
) -> None:
    world.schedule(linkedin, after=timedelta(days=1))
    world.stack.storage.fail(403, f"/b/{BUCKET}", times=2)

    job_id = bulk.begin_export()
    world.stack.settle()
    waiting = bulk.job(job_id)["state"]
    job = bulk.recovered(job_id)

    assert waiting == "running"
    assert len(bulk.rows(job)) == 1


def _varied_calendar(world: World, bulk: Bulk, linkedin: Account, twitter: Account) -> None:
    """Ten posts: formulas, media, zones, own texts, a thread, one imported, one cancelled."""
    at = timedelta(days=2)
    for text in FORMULAS[:6]:
        world.schedule(linkedin, content=text, after=at)
    picture = world.image(altText="A picture")
    thread = [{"content": "+two, text"}, {"content": "", "mediaAssetIds": [picture]}]
    own = {**twitter.target, "customContent": "=own, text", "thread": thread}
    world.call(
        "/schedule", world.order([linkedin], after=at) | {"platforms": [linkedin.target, own]}
    )
    world.schedule(
        twitter,
        mediaAssetIds=[picture],
        scheduledAt="2027-10-31T02:30:00",
        timezone="Europe/Berlin",
        latestAt="2027-11-02T00:00:00",
    )
    bulk.import_(sheet(planned(world, twitter, count=1)))
    gone = world.schedule(linkedin, after=at)
    world.command("/cancel", gone)


def _wanted(bulk: Bulk) -> list[dict[str, Any]]:
    """The calendar by what it wants, whatever its posts are called."""
    names = (
        "content",
        "mediaAssetIds",
        "media",
        "scheduledAt",
        "timezone",
        "latestAt",
        "platforms",
        "userId",
        "companyId",
        "status",
    )
    posts = [{name: post[name] for name in names} for post in bulk.calendar().values()]
    return sorted(posts, key=lambda post: (post["content"], post["scheduledAt"], post["status"]))


def _many_posts(world: World, count: int) -> None:
    """Posts as scheduling leaves them, written past it: what counts here is how many they are."""
    now = world.stack.clock.now()
    posts = {
        f"post-{n}": {
            "companyId": COMPANY,
            "userId": "user-1",
            "content": f"Post {n}",
            "scheduledAt": now + timedelta(days=1, minutes=n),
            "latestAt": now + timedelta(days=2, minutes=n),
            "platforms": [],
            "status": "pending",
            "open": 0,
            "idempotencyKey": f"key-{n}",
            "createdAt": now,
            "updatedAt": now,
        }
        for n in range(count)
    }
    world.put("scheduledPosts", posts)


def _move_first_behind_last(world: World) -> None:
    first = world.stack.db.document("scheduledPosts", "post-0")
    first.update({"scheduledAt": world.stack.clock.now() + timedelta(days=9)})


def _begins_second_page(request: Any) -> bool:
    """The commit that puts the first page on record."""
    return any(
        write.update.fields["cursor"].map_value.fields["part"].integer_value == 1
        for write in request.writes
        if "/bulkJobs/" in write.update.name
    )


def _measured(world: World, delivery_id: str, company_id: str, **metrics: int) -> None:
    now = world.stack.clock.now()
    world.stack.db.document("postMetrics", delivery_id).set(
        {
            "deliveryId": delivery_id,
            "companyId": company_id,
            "postId": "p",
            "platform": "linkedin",
            "accountId": "a",
            "metrics": metrics,
            "fetchedAt": now,
            "publishedAt": now,
        }
    )


def _wipe(world: World, collection: str) -> None:
    for reference in world.stack.db.collection(collection).list_documents():
        reference.delete()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
