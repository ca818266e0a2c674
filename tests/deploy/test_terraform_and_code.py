"""What Terraform would stand up and what the code does, held against each other.

Each check is shown to see what it is there for: a fixture is broken, and the check says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.edge.serve import BACKEND, SCHEDULER
from shared.store.queries import Query
from tests.deploy.terraform import checks, code
from tests.deploy.terraform.code import Code
from tests.deploy.terraform.deployed import Deployed, deployed
from tools import cost

Break = Callable[[Deployed], object]
Change = Callable[[Code], Code]


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_terraform_fits_the_code(check: checks.Check) -> None:
    assert list(check(deployed(), code.read())) == []


def one(kind: str, key: str) -> Callable[[Deployed], dict[str, Any]]:
    return lambda stands: stands.resources[kind][key]


def function(name: str, stands: Deployed) -> dict[str, Any]:
    return stands.resources["google_cloudfunctions2_function"][f"function/{name}"]


def serving(name: str, stands: Deployed) -> dict[str, Any]:
    part: dict[str, Any] = function(name, stands)["service_config"][0]
    return part


def job(name: str, stands: Deployed) -> dict[str, Any]:
    return stands.resources["google_cloud_scheduler_job"][f"schedule/{name}"]


def queue(name: str, stands: Deployed) -> dict[str, Any]:
    return stands.resources["google_cloud_tasks_queue"][f"queue/{name}"]


def metric(name: str, stands: Deployed) -> dict[str, Any]:
    return stands.resources["google_logging_metric"][f"figure/{name}"]


def drop(kind: str, key: str) -> Break:
    return lambda stands: stands.resources[kind].pop(key)  # type: ignore[attr-defined]


def put(of: Callable[[Deployed], dict[str, Any]], **values: Any) -> Break:
    return lambda stands: of(stands).update(values)


def setting(name: str, **values: str) -> Break:
    return lambda stands: serving(name, stands)["environment_variables"].update(values)


def unset(name: str, variable: str) -> Break:
    return lambda stands: serving(name, stands)["environment_variables"].pop(variable)


def grant_to(kind: str, key: str, member: str) -> Break:
    def broken(stands: Deployed) -> None:
        stands.resources[kind][key]["member"] = member

    return broken


def extra_query(query: Query) -> Change:
    return lambda known: dataclasses.replace(known, queries=(*known.queries, query))


def without_query(collection: str) -> Change:
    return lambda known: dataclasses.replace(
        known, queries=tuple(q for q in known.queries if q.collection != collection)
    )


def changed(name: str, **values: Any) -> Change:
    def change(known: Code) -> Code:
        other = dataclasses.replace(known.functions[name], **values)
        return dataclasses.replace(known, functions={**known.functions, name: other})

    return change


def without_route(name: str, path: str) -> Change:
    def change(known: Code) -> Code:
        routes = {at: route for at, route in known.functions[name].routes.items() if at != path}
        return changed(name, routes=routes)(known)

    return change


def with_route(name: str, path: str, **values: Any) -> Change:
    def change(known: Code) -> Code:
        routes = known.functions[name].routes
        route = dataclasses.replace(next(iter(routes.values())), **values)
        return changed(name, routes={**routes, path: route})(known)

    return change


INVOKES, QUEUE_GRANT = "google_cloud_run_service_iam_member", "google_cloud_tasks_queue_iam_member"
SECRET_GRANT, FIELD = "google_secret_manager_secret_iam_member", "google_firestore_field"
ACTS, OBJECT = "google_service_account_iam_member", "google_storage_bucket_object"
BROKEN: list[tuple[checks.Check, Break | None, Change | None, str]] = [
    # functions
    (
        checks.functions,
        lambda stands: function("maintain", stands)["build_config"][0].update(entry_point="run"),
        None,
        "maintain enters at run, which its main.py does not have",
    ),
    (
        checks.functions,
        drop("google_cloudfunctions2_function", "function/maintain"),
        None,
        "maintain is in functions/ alone",
    ),
    (
        checks.functions,
        lambda stands: function("publish_post", stands).update(name="publish_post"),
        None,
        "publish_post is deployed as publish_post",
    ),
    (
        checks.functions,
        lambda stands: function("maintain", stands)["build_config"][0].update(runtime="python310"),
        None,
        "maintain runs on python310",
    ),
    # who may call
    (
        checks.callers_are_admitted,
        drop(INVOKES, "invokes/publish_post/tasks"),
        None,
        "publish_post admits tasks/, who may not invoke it",
    ),
    (
        checks.callers_are_admitted,
        None,
        with_route("maintain", "/now", admits=frozenset({BACKEND})),
        "maintain admits backend, and knows nobody who is that",
    ),
    (
        checks.callers_are_admitted,
        grant_to(INVOKES, "invokes/maintain/scheduler", "user:me@example.com"),
        None,
        "maintain may be invoked by me@example.com, whom no route admits",
    ),
    (
        checks.roles,
        grant_to(INVOKES, "invokes/maintain/scheduler", "allUsers"),
        None,
        "grants to allUsers",
    ),
    (
        checks.roles,
        put(one(INVOKES, "invokes/maintain/scheduler"), role="roles/run.admin"),
        None,
        "grants roles/run.admin",
    ),
    (
        checks.doors,
        setting("maintain", SCHEDULER_CALLERS="nobody@example.com"),
        None,
        "maintain lets anybody in",
    ),
    (
        checks.doors,
        setting("publish_post", OIDC_SIGNATURES="verified"),
        None,
        "publish_post does not let tasks in: ",
    ),
    (
        checks.doors,
        setting("schedule_post", GCP_LOCATION="europe-west4"),
        None,
        "schedule_post does not let backend in: The token is not valid for this function.",
    ),
    # settings
    (
        checks.settings,
        unset("publish_post", "MEDIA_BUCKET"),
        None,
        "publish_post needs MEDIA_BUCKET, which is not set",
    ),
    (
        checks.settings,
        setting("maintain", BACKEND_CALLERS="a@example.com"),
        None,
        "maintain is given BACKEND_CALLERS, which it does not need",
    ),
    (
        checks.settings,
        setting("bulk", LINKEDIN_CLIENT_ID="app"),
        None,
        "bulk is given LINKEDIN_CLIENT_ID and speaks to no platform",
    ),
    (
        checks.settings,
        None,
        lambda known: dataclasses.replace(known, settings=known.settings | {"NEW_SETTING"}),
        "needs NEW_SETTING, which is not set",
    ),
    # what a function reaches, and what it may
    (
        checks.uses,
        None,
        changed("bulk", uses=frozenset({"createTasks", "files", "tokens"})),
        "bulk reaches tokens, which its `uses` does not say",
    ),
    (
        checks.uses,
        None,
        changed("schedule_post", uses=frozenset({"createTasks", "tokens"})),
        "schedule_post has roles/cloudtasks.taskDeleter on publish-twitter, and no use for it",
    ),
    (
        checks.uses,
        drop(QUEUE_GRANT, "creates_tasks/publish-twitter/maintain"),
        None,
        "maintain lacks roles/cloudtasks.enqueuer on publish-twitter",
    ),
    (
        checks.uses,
        drop(SECRET_GRANT, "reads/publish_post/token-keys"),
        None,
        "publish_post lacks roles/secretmanager.secretAccessor on token-keys",
    ),
    (
        checks.uses,
        drop(ACTS, "acts_as_tasks/schedule_post"),
        None,
        "schedule_post lacks roles/iam.serviceAccountUser",
    ),
    (
        checks.uses,
        drop(ACTS, "signs_urls/publish_post"),
        None,
        "publish_post lacks roles/iam.serviceAccountTokenCreator",
    ),
    (
        checks.uses,
        drop("google_project_iam_member", "keeps_records/maintain"),
        None,
        "maintain lacks roles/datastore.user on the project",
    ),
    (
        checks.uses,
        drop("google_storage_bucket_iam_member", "reads_media/publish_post"),
        None,
        "publish_post lacks roles/storage.objectViewer on acme-jobs-test-media",
    ),
    # records
    (
        checks.indexes,
        None,
        extra_query(Query("publishLogs", equal=("companyId",), order="dueAt")),
        'publishLogs needs an index of ["companyId", "dueAt"]',
    ),
    (
        checks.indexes,
        None,
        without_query("scheduledPosts"),
        'scheduledPosts has an index of ["companyId", "scheduledAt"], which no query needs',
    ),
    (
        checks.indexes,
        lambda stands: stands.resources["google_firestore_index"][
            "composite/deadLetters/status/-createdAt"
        ]["fields"][1].update(order="ASCENDING"),
        None,
        'deadLetters needs an index of ["status", "-createdAt"]',
    ),
    (
        checks.fields,
        None,
        extra_query(Query("publishLogs", order="dueAt")),
        "publishLogs.dueAt has no index, and a query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "unindexed/publishLogs.attempts"),
        None,
        "publishLogs.attempts is indexed, and no query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "unindexed/publishLogs.updatedAt"),
        None,
        "publishLogs.updatedAt is indexed, and no query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "unindexed/rows.cells"),
        None,
        "rows.cells is indexed, and no query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "unindexed/scheduledPosts.rowKey"),
        None,
        "scheduledPosts.rowKey is indexed, and no query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "unindexed/scheduledPosts.scheduledAt"),
        None,
        "scheduledPosts.scheduledAt is indexed, and no query names it",
    ),
    (
        checks.fields,
        drop(FIELD, "ttl/idempotencyMarkers"),
        None,
        "idempotencyMarkers is never removed",
    ),
    (
        checks.fields,
        put(one(FIELD, "ttl/idempotencyMarkers"), field="expiresAt"),
        None,
        "idempotencyMarkers.expiresAt is no field of the code",
    ),
    (
        checks.fields,
        put(one(FIELD, "ttl/idempotencyMarkers"), collection="markers"),
        None,
        "markers is no collection of the code",
    ),
    # queues and schedules
    (
        checks.queues,
        drop("google_cloud_tasks_queue", "queue/publish-twitter"),
        None,
        "the code names a queue publish-twitter, which is not there",
    ),
    (
        checks.queues,
        None,
        lambda known: dataclasses.replace(known, queues=known.queues - {"publish-twitter"}),
        "the queue publish-twitter is there, and the code does not name it",
    ),
    (
        checks.queues,
        lambda stands: queue("default", stands)["rate_limits"][0].update(
            max_concurrent_dispatches=5000
        ),
        None,
        "the queue default sends more at once than publish_post takes",
    ),
    (
        checks.schedules,
        None,
        without_route("maintain", "/promote"),
        "promote calls maintain at /promote, where there is nothing",
    ),
    (
        checks.schedules,
        None,
        with_route("maintain", "/tidy", admits=frozenset({SCHEDULER})),
        "maintain waits at /tidy for Cloud Scheduler, which does not call there",
    ),
    (
        checks.schedules,
        lambda stands: job("sweep", stands)["http_target"][0]["oidc_token"][0].update(
            audience="https://elsewhere.example"
        ),
        None,
        "sweep carries a token for another function",
    ),
    (
        checks.schedules,
        lambda stands: job("sweep", stands)["http_target"][0].update(body="W10="),
        None,
        "sweep sends a body that is not understood",
    ),
    (
        checks.schedules,
        lambda stands: stands.topology["schedules"]["sweep"].update(doneEvent="sweep.over"),
        None,
        "sweep is done with sweep.over, which is no event",
    ),
    (
        checks.schedules,
        lambda stands: stands.topology["schedules"]["sweep"].update(missedAfterSeconds=90_000),
        None,
        "sweep is missed after 90000 s, which no alert can see",
    ),
    (
        checks.timeouts,
        lambda stands: serving("publish_post", stands).update(timeout_seconds=45),
        None,
        "publish_post is stopped after 0:00:45",
    ),
    (
        checks.timeouts,
        lambda stands: serving("publish_post", stands).update(timeout_seconds=75),
        None,
        "publish-twitter gives up after 0:01:15, and publish_post may run for 0:01:15",
    ),
    (
        checks.timeouts,
        lambda stands: job("sweep", stands).update(attempt_deadline="180s"),
        None,
        "sweep gives up after 0:03:00",
    ),
    (
        checks.timeouts,
        lambda stands: queue("publish-twitter", stands)["retry_config"][0].update(max_attempts=3),
        None,
        "publish-twitter has given up before a lease has run out",
    ),
    (
        checks.timeouts,
        None,
        lambda known: dataclasses.replace(known, dispatch_deadline=timedelta(seconds=90)),
        "publish-twitter says 0:01:15, and its tasks 0:01:30",
    ),
    # figures and alerts
    (
        checks.events,
        None,
        lambda known: dataclasses.replace(known, events=known.events - {"account.expired"}),
        "waits for account.expired, which no line has",
    ),
    (
        checks.events,
        lambda stands: metric("publish_duration", stands).update(
            value_extractor="EXTRACT(jsonPayload.duration)"
        ),
        None,
        "metric publish_duration measures duration, which its lines do not have",
    ),
    (
        checks.events,
        lambda stands: metric("dead_letters", stands)["label_extractors"].update(
            code="EXTRACT(jsonPayload.errorCode)"
        ),
        None,
        "metric dead_letters reads errorCode, which its lines do not have",
    ),
    (
        checks.events,
        lambda stands: metric("publish_attempts", stands).update(
            filter='jsonPayload.event=("publish.settled") AND jsonPayload.status=("published")'
        ),
        None,
        "waits for the status published, which no delivery has",
    ),
    (
        checks.events,
        lambda stands: metric("swept", stands).update(
            filter=metric("swept", stands)["filter"].replace("cloud_run_revision", "cloud_function")
        ),
        None,
        "metric swept does not listen to every function's lines",
    ),
    (
        checks.figures,
        drop("google_logging_metric", "figure/swept"),
        None,
        "swept is looked at, and is no metric",
    ),
    (
        checks.figures,
        lambda stands: stands.resources["google_logging_metric"].update(  # type: ignore[attr-defined]
            {"figure/lonely": metric("swept", stands) | {"name": "lonely"}}
        ),
        None,
        "lonely is a metric that nobody looks at",
    ),
    (
        checks.figures,
        put(one("google_monitoring_alert_policy", "line/dead_letter"), notification_channels=[]),
        None,
        "the alert line/dead_letter reaches nobody",
    ),
    # the rest
    (
        checks.services,
        drop("google_project_service", "needed/cloudtasks.googleapis.com"),
        None,
        "google_cloud_tasks_queue needs cloudtasks.googleapis.com",
    ),
    (
        checks.services,
        drop("google_project_service", "needed/iamcredentials.googleapis.com"),
        None,
        "functions need iamcredentials.googleapis.com",
    ),
    (
        checks.order,
        lambda stands: stands.waits["google_cloudfunctions2_function.function"].discard(
            "google_secret_manager_secret_iam_member.reads"
        ),
        None,
        "function does not wait for google_secret_manager_secret_iam_member.reads",
    ),
    (
        checks.order,
        lambda stands: stands.waits["google_cloud_tasks_queue.queue"].clear(),
        None,
        "google_cloud_tasks_queue.queue does not wait for google_project_service.needed",
    ),
    (
        checks.words,
        lambda stands: stands.resources["google_monitoring_alert_policy"]["figure/lateness"][
            "conditions"
        ][0]["condition_threshold"][0]["aggregations"][0].update(per_series_aligner="ALIGN_P95"),
        None,
        "figure/lateness: ALIGN_P95 is no word of Monitoring",
    ),
    (
        checks.words,
        put(one("google_service_account", "tasks/"), account_id="cloud_tasks"),
        None,
        "the account tasks/ cannot be called cloud_tasks",
    ),
    (
        checks.doubles,
        put(one("google_cloud_tasks_queue", "queue/bulk"), name="default"),
        None,
        "is there twice",
    ),
    (
        checks.archives,
        put(one(OBJECT, "source/maintain"), name="maintain/latest.zip"),
        None,
        "maintain: the object's name does not tell what is in it",
    ),
    (
        checks.archives,
        lambda stands: stands.data["archive_file"]["source/maintain"]["source"][0].update(
            content="functions/publish_post/main.py"
        ),
        None,
        "maintain: main.py holds functions/publish_post/main.py",
    ),
    (
        checks.first_post,
        None,
        without_route("schedule_post", "/accounts/connect"),
        "/accounts/connect is no route",
    ),
    (
        checks.first_post,
        lambda stands: stands.outputs.update(  # type: ignore[attr-defined]
            first_post=stands.outputs["first_post"].replace("scheduledAt", "at")
        ),
        None,
        "/schedule: ",
    ),
]


@pytest.mark.parametrize(
    ("check", "break_it", "change_it", "sentence"),
    BROKEN,
    ids=[f"{check.__name__}-{number}" for number, (check, *_) in enumerate(BROKEN)],
)
def test_a_check_sees_what_is_broken(
    check: checks.Check, break_it: Break | None, change_it: Change | None, sentence: str
) -> None:
    stands, known = deployed().copy(), code.read()
    if break_it is not None:
        break_it(stands)
    if change_it is not None:
        known = change_it(known)

    problems = list(check(stands, known))

    assert any(sentence in problem for problem in problems), problems


def test_every_check_has_something_that_it_sees() -> None:
    assert {check for check, *_ in BROKEN} == set(checks.CHECKS)


def test_what_stands_all_month_is_what_is_deployed() -> None:
    stands = deployed()
    conditions = [
        condition
        for policy in stands.of("google_monitoring_alert_policy").values()
        for condition in policy["conditions"]
        if not condition["condition_matched_log"]
    ]
    secrets = {
        (secret["secret"], secret["version"])
        for function in stands.of("google_cloudfunctions2_function").values()
        for secret in function["service_config"][0]["secret_environment_variables"]
        if secret["key"] in ("WEBHOOK_SECRET", "TOKEN_KEYS")
    }

    standing = cost.read("operations.json")["standing"]

    assert standing == {"alertConditions": len(conditions), "secretVersions": len(secrets)}
