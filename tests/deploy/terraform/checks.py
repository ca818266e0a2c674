"""Terraform against the code: each check gives sentences about what does not fit.

They look at what would stand after an apply, not at the files, and at what the code does, not at
what it says that it does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ValidationError

from shared import config
from shared.domain.deliveries import Status
from shared.domain.failures import UnavailableError
from shared.edge.serve import ADMIN, BACKEND, OPERATOR, SCHEDULER, TASKS, VIEWER
from shared.security import callers
from shared.security.callers import Callers, ForbiddenError, UnauthenticatedError
from shared.store.queries import Query
from tests.deploy.terraform.code import Code, Function
from tests.deploy.terraform.deployed import Deployed

Problems = Iterator[str]
Check = Callable[[Deployed, Code], Problems]

NAMED_IN = {  # the setting that holds a role's e-mails
    ADMIN: "CONSOLE_ADMINS",
    BACKEND: "BACKEND_CALLERS",
    OPERATOR: "CONSOLE_OPERATORS",
    SCHEDULER: "SCHEDULER_CALLERS",
    TASKS: "TASKS_SERVICE_ACCOUNT",
    VIEWER: "CONSOLE_VIEWERS",
}
FRAMEWORK = {"THREADS"}  # settings that the server reads, not we
NOT_SET = {
    "AUTH_MODE": "tokens are asked for, which is the default",
    "BULK_SECONDS": "its default is what was measured",
    "CLOUD_TASKS_EMULATOR_HOST": "for the sandbox",
    "OIDC_CERTS_URL": "Google's own keys, which is the default",
    "WEBHOOK_SECRET_PREVIOUS": "while the secret is rotated",
    "WEBHOOK_URL": "the rule of project, region and name holds",
}
RUNTIMES = {"python311", "python312", "python313"}  # what the pins are for, and Google runs
LONG_TEXTS = {"cells", "content", "errorMessage", "message", "rawResponse", "reason", "sealedToken"}
CALLERS_KEYS = {
    "idempotencyKey",
    "rowFingerprint",
    "rowKey",
}  # as long as they like, never the same
SMALL = {"controls", "mediaAssets"}  # a handful of documents, or seldom written
# Hundreds of writes a second.
BUSY = {"publishLogs", "scheduledPosts", "idempotencyMarkers", "postMetrics", "snapshots", "rows"}
LONGEST_ATTEMPT = timedelta(minutes=30)  # that Cloud Scheduler and Cloud Tasks wait
LONGEST_ABSENCE = timedelta(hours=23, minutes=30)  # that an alert can look back on
APIS = {
    "google_cloud_run": "run",
    "google_cloud_scheduler": "cloudscheduler",
    "google_cloud_tasks": "cloudtasks",
    "google_cloudfunctions2": "cloudfunctions",
    "google_firestore": "firestore",
    "google_logging": "logging",
    "google_monitoring": "monitoring",
    "google_project_iam": "cloudresourcemanager",
    "google_secret_manager": "secretmanager",
    "google_service_account": "iam",
    "google_storage": "storage",
}
MONITORING_WORDS = {
    "ALIGN_DELTA",
    "ALIGN_MAX",
    "ALIGN_MIN",
    "ALIGN_PERCENTILE_95",
    "ALIGN_SUM",
    "COMPARISON_GT",
    "COMPARISON_LT",
    "REDUCE_MAX",
    "REDUCE_PERCENTILE_50",
    "REDUCE_PERCENTILE_95",
    "REDUCE_SUM",
}
ROLES = {
    "google_cloud_run_service_iam_member": {"roles/run.invoker"},
    "google_cloud_tasks_queue_iam_member": {
        "roles/cloudtasks.enqueuer",
        "roles/cloudtasks.queueAdmin",
        "roles/cloudtasks.taskDeleter",
    },
    "google_secret_manager_secret_iam_member": {"roles/secretmanager.secretAccessor"},
    "google_service_account_iam_member": {
        "roles/iam.serviceAccountTokenCreator",
        "roles/iam.serviceAccountUser",
    },
    "google_storage_bucket_iam_member": {"roles/storage.objectUser", "roles/storage.objectViewer"},
    "google_project_iam_member": {
        "roles/artifactregistry.writer",
        "roles/cloudtasks.viewer",
        "roles/datastore.user",
        "roles/logging.logWriter",
        "roles/storage.objectAdmin",
    },
}


# --- functions --------------------------------------------------------------------------------


def functions(deployed: Deployed, code: Code) -> Problems:
    """Folders, topology and what is deployed name the same functions and entry points."""
    standing = deployed.of("google_cloudfunctions2_function")
    for name in sorted(set(standing) ^ set(code.functions)):
        where = "functions/" if name in code.functions else "topology.json"
        yield f"{name} is in {where} alone"
    for name, function in sorted(both(standing, code.functions)):
        entry = function["build_config"][0]["entry_point"]
        if entry not in code.functions[name].entry_points:
            yield f"{name} enters at {entry}, which its main.py does not have"
        if function["build_config"][0]["runtime"] not in RUNTIMES:
            yield f"{name} runs on {function['build_config'][0]['runtime']}"
        if function["name"] != name.replace("_", "-"):
            yield f"{name} is deployed as {function['name']}"


def callers_are_admitted(deployed: Deployed, code: Code) -> Problems:
    """Whoever a route admits may invoke its function, and nobody else may."""
    invokers: dict[str, set[str]] = {}
    for grant in deployed.of("google_cloud_run_service_iam_member").values():
        invokers.setdefault(grant["service"], set()).add(deployed.holder(grant["member"]))
    for name, function in both(deployed.of("google_cloudfunctions2_function"), code.functions):
        wanted = set()
        for role in sorted(code.functions[name].callers):
            if not emails_of(role, function):
                yield f"{name} admits {role}, and knows nobody who is that"
            wanted |= {deployed.holder(email) for email in emails_of(role, function)}
        found = {
            member.removeprefix("serviceAccount:").removeprefix("user:")
            for member in invokers.get(function["name"], ())
        }
        for member in sorted(wanted - found):
            yield f"{name} admits {member}, who may not invoke it"
        for member in sorted(found - wanted):
            yield f"{name} may be invoked by {member}, whom no route admits"


def emails_of(role: str, function: Mapping[str, Any]) -> list[str]:
    """Who has a role, as the function is told."""
    return [email for email in settings_of(function).get(NAMED_IN[role], "").split(",") if email]


def settings(deployed: Deployed, code: Code) -> Problems:
    """Each function has the settings that it needs, and no other."""
    for left_out in sorted(set(NOT_SET) - code.settings):
        yield f"{left_out} is left out on purpose and is no setting at all"
    for name, function in both(deployed.of("google_cloudfunctions2_function"), code.functions):
        found = settings_of(function) | dict.fromkeys(secrets_of(function), "")
        needed = needed_settings(code.functions[name], code)
        apps = {n for n in found if is_app_setting(n, code)}
        for setting in sorted(needed - set(found)):
            yield f"{name} needs {setting}, which is not set"
        for setting in sorted(set(found) - needed - apps - FRAMEWORK):
            yield f"{name} is given {setting}, which it does not need"
        if apps and "platforms" not in code.functions[name].uses:
            yield f"{name} is given {', '.join(sorted(apps))} and speaks to no platform"


def needed_settings(function: Function, code: Code) -> set[str]:
    only_for = {setting: role in function.callers for role, setting in NAMED_IN.items()} | {
        "TASKS_SERVICE_ACCOUNT": TASKS in function.callers or "createTasks" in function.uses,
        "ALERT_WEBHOOK_URL": "createTasks" in function.uses,
        "ALERT_WEBHOOK_SECRET": "alerts" in function.uses,
        "TOKEN_KEYS": "tokens" in function.uses,
        "MEDIA_BUCKET": "media" in function.uses,
        "BULK_BUCKET": "files" in function.uses,
    }
    everywhere = code.settings - set(NOT_SET)
    return {setting for setting in everywhere if only_for.get(setting, True)}


def is_app_setting(name: str, code: Code) -> bool:
    platform, _, setting = name.partition("_")
    return platform.lower() in code.platforms and setting in (
        "CLIENT_ID",
        "CLIENT_SECRET",
        "API_VERSION",
    )


def uses(deployed: Deployed, code: Code) -> Problems:
    """What the code of a function reaches is what the topology says, and what its account may."""
    for name, function in code.functions.items():
        stated = set(deployed.topology["functions"].get(name, {}).get("uses", []))
        for use in sorted(function.uses - stated):
            yield f"{name} reaches {use}, which its `uses` does not say"
        for use in sorted(stated - function.uses):
            yield f"{name} says {use} in `uses`, and reaches nothing of it"
        yield from access(name, function, deployed)


def access(name: str, function: Function, deployed: Deployed) -> Problems:
    """The grants that follow from what a function reaches, and no other, in words."""
    held = {
        (kind, grant["role"], where(grant))
        for kind in ROLES
        for grant in deployed.of(kind).values()
        if deployed.holder(grant["member"]) == f"function/{name}"
    }
    aimed = {q for q, rules in deployed.topology["queues"].items() if rules.get("target")}
    wanted = {("google_project_iam_member", "roles/datastore.user", "")}
    queue, bucket = "google_cloud_tasks_queue_iam_member", "google_storage_bucket_iam_member"
    account = "google_service_account_iam_member"
    own = deployed.resources["google_service_account"][f"function/{name}"]["name"]
    tasks_account = deployed.resources["google_service_account"]["tasks/"]["name"]
    buckets = {
        address.partition("/")[0]: bucket
        for address, bucket in deployed.resources["google_storage_bucket"].items()
    }
    secret = "google_secret_manager_secret_iam_member"
    for key in secrets_of(deployed.of("google_cloudfunctions2_function")[name]).values():
        wanted.add((secret, "roles/secretmanager.secretAccessor", key["secret"]))
    if "createTasks" in function.uses:
        wanted |= {(queue, "roles/cloudtasks.enqueuer", q) for q in aimed}
        wanted.add((account, "roles/iam.serviceAccountUser", tasks_account))
    if "deleteTasks" in function.uses:
        wanted |= {(queue, "roles/cloudtasks.taskDeleter", q) for q in aimed}
    if "orderQueues" in function.uses:
        wanted |= {(queue, "roles/cloudtasks.queueAdmin", q) for q in deployed.topology["queues"]}
    if "watchQueues" in function.uses:
        wanted.add(("google_project_iam_member", "roles/cloudtasks.viewer", ""))
    if "media" in function.uses:
        wanted.add((bucket, "roles/storage.objectViewer", buckets["media"]["name"]))
    if "files" in function.uses and "files" in buckets:
        wanted.add((bucket, "roles/storage.objectUser", buckets["files"]["name"]))
    if {"media", "files"} & function.uses:
        wanted.add((account, "roles/iam.serviceAccountTokenCreator", own))
    for _, role, place in sorted(wanted - held):
        yield f"{name} lacks {role} on {place or 'the project'}"
    for _, role, place in sorted(held - wanted):
        yield f"{name} has {role} on {place or 'the project'}, and no use for it"


def where(grant: Mapping[str, Any]) -> str:
    """What a grant is on: a queue, secret, bucket or account; "" for the project."""
    names = ("name", "secret_id", "bucket", "service_account_id", "service")
    return next((str(grant[name]) for name in names if grant.get(name)), "")


def roles(deployed: Deployed, code: Code) -> Problems:
    """Roles are those that are known to be enough, granted to accounts and never to everybody."""
    for kind, grants in deployed.resources.items():
        if not kind.endswith("_iam_member"):
            continue
        for key, grant in grants.items():
            if grant["role"] not in ROLES.get(kind, set()):
                yield f"{kind} {key} grants {grant['role']}"
            if grant["member"] in ("allUsers", "allAuthenticatedUsers"):
                yield f"{kind} {key} grants to {grant['member']}"


def doors(deployed: Deployed, code: Code) -> Problems:
    """Every caller gets in as Terraform and our own tasks have it call, and others do not."""
    secret = "s" * config.SECRET_CHARS
    for name, function in both(deployed.of("google_cloudfunctions2_function"), code.functions):
        environment = config.load(
            settings_of(function) | dict.fromkeys(secrets_of(function), secret)
        )
        door = Callers(
            mode=environment.settings.auth_mode,
            signatures=environment.settings.signatures,
            certs_url="",
            audience=environment.url(name),
            roles=environment.settings.callers(),
            secrets=environment.settings.secrets,
        )
        audience = deployed.outputs["function_urls"][name]
        for role in sorted(code.functions[name].callers):
            for email in emails_of(role, function):
                for header in headers_of(role, name, deployed, secret):
                    said = knock(door, email, audience, header)
                    if said != role:
                        yield f"{name} does not let {role} in: {said}"
        if knock(door, "nobody@example.com", audience, secret) in NAMED_IN:
            yield f"{name} lets anybody in"


def headers_of(role: str, name: str, deployed: Deployed, secret: str) -> Iterator[str | None]:
    """The X-Webhook-Secret that this role's calls carry: one for each way of calling."""
    if role != SCHEDULER:
        yield secret
        return
    for key, job in deployed.of("google_cloud_scheduler_job").items():
        if deployed.topology["schedules"][key]["function"] == name:
            headers = job["http_target"][0]["headers"]
            yield headers.get("X-Webhook-Secret")


def knock(door: Callers, email: str, audience: str, secret: str | None) -> str:
    """The role that the door sees, or why it stays shut."""
    try:
        return door.verify(f"Bearer {handed_on(email, audience)}", secret).role
    except (UnauthenticatedError, ForbiddenError, UnavailableError) as error:
        return str(error)


def handed_on(email: str, audience: str) -> str:
    """A token as Cloud Run's IAM check hands it on: verified, and without its signature."""
    now = time.time()
    claims = {
        "iss": callers.ISSUERS[0],
        "aud": audience,
        "email": email,
        "email_verified": True,
        "iat": now - 1,
        "exp": now + 3600,
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.{callers.REMOVED}"


# --- records ----------------------------------------------------------------------------------


def indexes(deployed: Deployed, code: Code) -> Problems:
    """Every query that needs a composite index has it, and there is none in vain."""
    found = {
        (index["collection"], tuple(signed(field) for field in index["fields"]))
        for index in deployed.of("google_firestore_index").values()
    }
    needed = {index for query in code.queries for index in needed_indexes(query)}
    for collection, fields in sorted(needed - found):
        yield f"{collection} needs an index of {json.dumps(fields)}"
    for collection, fields in sorted(found - needed):
        yield f"{collection} has an index of {json.dumps(fields)}, which no query needs"


def needed_indexes(query: Query) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Optional equalities are served by merging: one index of each with the order."""
    if query.order is None or not query.needs_composite:
        return
    order = f"-{query.order}" if query.newest else query.order
    if query.equal:
        yield query.collection, (*query.equal, order)
    for field in query.optional:
        yield query.collection, (field, order)


def signed(field: Mapping[str, Any]) -> str:
    return ("-" if field["order"] == "DESCENDING" else "") + str(field["field_path"])


def fields(deployed: Deployed, code: Code) -> Problems:
    """Fields that are named exist; what no query names, and is long or grows, has no index."""
    queried = {
        (query.collection, field)
        for query in code.queries
        for field in (*query.equal, *query.optional, None if query.equal else query.order)
        if field  # an order behind an equality is its composite index's
    }
    unindexed = set()
    expiring = set()
    for field in deployed.of("google_firestore_field").values():
        place = (field["collection"], field["field"])
        if field["collection"] not in code.collections:
            yield f"{place[0]} is no collection of the code"
        elif place[0] in code.records and not any(
            place[1] in names(record) for record in code.records[place[0]]
        ):
            yield f"{'.'.join(place)} is no field of the code"
        if field["ttl_config"]:
            expiring.add(place)
        if any(not config["indexes"] for config in field["index_config"]):
            unindexed.add(place)
    for place in sorted(unindexed & queried):
        yield f"{'.'.join(place)} has no index, and a query names it"
    for collection, records in sorted(code.records.items()):
        for name in sorted({name for record in records for name in costly(record, collection)}):
            place = (collection, name)
            if place not in unindexed | queried:
                yield f"{'.'.join(place)} is indexed, and no query names it"
        expires = any("expireAt" in names(record) for record in records)
        if expires and (collection, "expireAt") not in expiring | queried:
            yield f"{collection} is never removed: expireAt has neither a TTL nor a query"
    for index in deployed.of("google_firestore_index").values():
        if index["collection"] not in code.collections:
            yield f"{index['collection']} is no collection of the code"


def names(record: type[BaseModel]) -> set[str]:
    return {str(field.alias) for field in record.model_fields.values()}


def costly(record: type[BaseModel], collection: str) -> Iterator[str]:
    """Long texts, maps and lists; in a busy collection instants and callers' keys too."""
    if collection in SMALL:
        return
    for field in record.model_fields.values():
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        structured = any(
            typing.get_origin(kind) in (dict, tuple, list)
            or kind in (dict, tuple, list)
            or (isinstance(kind, type) and issubclass(kind, BaseModel))
            for kind in kinds
        )
        instant = collection in BUSY and any(is_instant(kind) for kind in kinds)
        key = collection in BUSY and field.alias in CALLERS_KEYS
        if structured or instant or key or field.alias in LONG_TEXTS:
            yield str(field.alias)


def is_instant(kind: Any) -> bool:
    return kind is datetime or getattr(kind, "__name__", "") == "AwareDatetime"


# --- queues and schedules ---------------------------------------------------------------------


def queues(deployed: Deployed, code: Code) -> Problems:
    """Every queue that the code names is there; each that is there is named, or aims at nothing."""
    standing = deployed.of("google_cloud_tasks_queue")
    rules = deployed.topology["queues"]
    for queue in sorted(code.queues - set(standing)):
        yield f"the code names a queue {queue}, which is not there"
    for queue in sorted(set(standing) - code.queues):
        if rules[queue].get("target"):
            yield f"the queue {queue} is there, and the code does not name it"
    for queue, found in standing.items():
        target = rules[queue].get("target")
        if target is not None and target not in code.functions:
            yield f"the queue {queue} aims at {target}, which is no function"
        if found["rate_limits"][0]["max_concurrent_dispatches"] > instances(target, deployed):
            yield f"the queue {queue} sends more at once than {target} takes"


def instances(function: str | None, deployed: Deployed) -> float:
    """How many requests a function takes at once."""
    if function not in deployed.topology["functions"]:
        return float("inf")
    rules = deployed.topology["functions"][function]
    return float(rules["concurrency"] * rules["maxInstances"])


def schedules(deployed: Deployed, code: Code) -> Problems:
    """Jobs call routes that wait for them, at the function's address; no route waits in vain."""
    called = set()
    for key, job in deployed.of("google_cloud_scheduler_job").items():
        rules = deployed.topology["schedules"][key]
        name, target = rules["function"], job["http_target"][0]
        url = deployed.outputs["function_urls"].get(name, "")
        path = target["uri"].removeprefix(url) or "/"
        called.add((name, path))
        route = code.functions[name].routes.get(path) if name in code.functions else None
        if route is None:
            yield f"{key} calls {name} at {path}, where there is nothing"
        elif SCHEDULER not in route.admits or route.method != target["http_method"]:
            yield f"{key} calls {name} at {path}, which does not take its calls"
        else:
            yield from badly_called(key, target, route.body)
        if rules["doneEvent"] not in code.events:
            yield f"{key} is done with {rules['doneEvent']}, which is no event"
        missed = rules.get("missedAfterSeconds")  # none: it runs too seldom to be missed
        if missed is not None and not 120 <= missed <= LONGEST_ABSENCE.total_seconds():
            yield f"{key} is missed after {missed} s, which no alert can see"
    for name, function in code.functions.items():
        for path, route in function.routes.items():
            if route.admits == {SCHEDULER} and (name, path) not in called:
                yield f"{name} waits at {path} for Cloud Scheduler, which does not call there"


def badly_called(key: str, target: Mapping[str, Any], body: Any) -> Problems:
    if target["oidc_token"][0]["audience"] != target["uri"].rpartition("/")[0] and not target[
        "uri"
    ].startswith(target["oidc_token"][0]["audience"]):
        yield f"{key} carries a token for another function"
    sent = json.loads(base64.b64decode(target["body"]))
    model = body if isinstance(body, type) else body(sent)
    try:
        model.model_validate(sent)
    except ValidationError as error:
        yield f"{key} sends a body that is not understood: {error.errors()[0]['msg']}"


def timeouts(deployed: Deployed, code: Code) -> Problems:
    """request < function < dispatch or attempt deadline; a lease outlasts its request."""
    standing = deployed.of("google_cloudfunctions2_function")
    stops = {
        name: timedelta(seconds=f["service_config"][0]["timeout_seconds"])
        for name, f in standing.items()
    }
    for name, stop in stops.items():
        if name not in code.functions:
            continue
        for path, route in code.functions[name].routes.items():
            if route.lasts >= stop:
                yield f"{name} is stopped after {stop}, and {path} may take {route.lasts}"
    if stops["publish_post"] > code.lease:
        yield "publish_post may outlive its lease"
    for queue, rules in deployed.topology["queues"].items():
        target, waits = rules.get("target"), timedelta(seconds=rules["dispatchDeadlineSeconds"])
        if target in stops and waits <= stops[target]:
            yield f"{queue} gives up after {waits}, and {target} may run for {stops[target]}"
        if rules.get("platform") and waits != code.dispatch_deadline:
            yield f"{queue} says {waits}, and its tasks {code.dispatch_deadline}"
        if rules.get("platform") and backoffs(deployed, queue) <= code.lease:
            yield f"{queue} has given up before a lease has run out"
    for key, job in deployed.of("google_cloud_scheduler_job").items():
        waits = timedelta(seconds=int(job["attempt_deadline"].removesuffix("s")))
        name = deployed.topology["schedules"][key]["function"]
        if not stops[name] < waits <= LONGEST_ATTEMPT:
            yield f"{key} gives up after {waits}, and {name} may run for {stops[name]}"


def backoffs(deployed: Deployed, queue: str) -> timedelta:
    """All waits of one task, doubling and then at the most."""
    rules = deployed.of("google_cloud_tasks_queue")[queue]["retry_config"][0]
    least, most = (int(rules[key].removesuffix("s")) for key in ("min_backoff", "max_backoff"))
    doubled = (
        least * 2 ** min(n, rules["max_doublings"]) for n in range(rules["max_attempts"] - 1)
    )
    return timedelta(seconds=sum(min(wait, most) for wait in doubled))


# --- figures and alerts -----------------------------------------------------------------------


def events(deployed: Deployed, code: Code) -> Problems:
    """Metrics and alerts filter by events, fields and statuses that lines have."""
    services = {f["name"] for f in deployed.of("google_cloudfunctions2_function").values()}
    readers = [
        (f"metric {metric['name']}", metric["filter"], metric["label_extractors"] or {}, metric)
        for metric in deployed.of("google_logging_metric").values()
    ]
    readers += [
        (f"alert {policy['display_name']!r}", log["filter"], log["label_extractors"] or {}, {})
        for policy in deployed.of("google_monitoring_alert_policy").values()
        for condition in policy["conditions"]
        for log in condition["condition_matched_log"]
        if 'resource.type="cloud_scheduler_job"' not in log["filter"]  # Google's own lines
    ]
    for reader, text, labels, metric in readers:
        named = filtered(text, "event")
        if not named:
            yield f"{reader} filters by no event"
        heard = set(
            re.findall(r'"([\w-]+)"', text.partition("service_name=(")[2].partition(")")[0])
        )
        if 'resource.type="cloud_run_revision"' not in text or heard != services:
            yield f"{reader} does not listen to every function's lines"
        for event in sorted(named - code.events):
            yield f"{reader} waits for {event}, which no line has"
        for status in sorted(filtered(text, "status") - set(Status)):
            yield f"{reader} waits for the status {status}, which no delivery has"
        known = [line_fields(event, code) for event in sorted(named & code.events)]
        for field in extracted(labels.values()):
            if known and field not in set().union(*known):
                yield f"{reader} reads {field}, which its lines do not have"
        for field in extracted([metric.get("value_extractor") or ""]):
            if any(field not in fields for fields in known):
                yield f"{reader} measures {field}, which its lines do not have"


def filtered(text: str, field: str) -> set[str]:
    """`jsonPayload.field=("a" OR "b")`"""
    found = re.search(rf"jsonPayload\.{field}=\(([^)]*)\)", text)
    return set(re.findall(r'"([^"]+)"', found[1])) if found else set()


def extracted(texts: Any) -> list[str]:
    return re.findall(r"EXTRACT\(jsonPayload\.(\w+)\)", " ".join(texts))


def line_fields(event: str, code: Code) -> frozenset[str]:
    """An event that is logged under a name of its own has the fields given there; others those of
    the places that log an event given to them."""
    own = code.line_fields.get(event, frozenset())
    return own | code.line_fields.get("*", frozenset()) | {"event"}


def figures(deployed: Deployed, code: Code) -> Problems:
    """Alerts and dashboard look at metrics that exist, and each metric is looked at."""
    [dashboard] = deployed.of("google_monitoring_dashboard").values()
    policies = json.dumps(list(deployed.of("google_monitoring_alert_policy").values()))
    seen = set(
        re.findall(r"logging\.googleapis\.com/user/(\w+)", dashboard["dashboard_json"] + policies)
    )
    made = {metric["name"] for metric in deployed.of("google_logging_metric").values()}
    for name in sorted(seen - made):
        yield f"{name} is looked at, and is no metric"
    for name in sorted(made - seen):
        yield f"{name} is a metric that nobody looks at"
    for key, policy in deployed.of("google_monitoring_alert_policy").items():
        if not policy["notification_channels"]:
            yield f"the alert {key} reaches nobody"


# --- the rest ---------------------------------------------------------------------------------


def services(deployed: Deployed, code: Code) -> Problems:
    """What is made needs its API enabled; what is enabled is needed."""
    enabled = set(deployed.of("google_project_service"))
    for kind in sorted(deployed.resources):
        api = next((api for prefix, api in APIS.items() if kind.startswith(prefix)), None)
        if api is not None and f"{api}.googleapis.com" not in enabled:
            yield f"{kind} needs {api}.googleapis.com"
        if kind.startswith("google_") and api is None and kind != "google_project_service":
            yield f"nobody has said which API {kind} needs"
    for api in ("artifactregistry", "cloudbuild", "iamcredentials", "run"):  # behind the others
        if f"{api}.googleapis.com" not in enabled:
            yield f"functions need {api}.googleapis.com"


def order(deployed: Deployed, code: Code) -> Problems:
    """What has to stand before something else is made, is made before it."""
    services = "google_project_service.needed"
    before = {
        "google_cloudfunctions2_function.function": {
            "google_secret_manager_secret_iam_member.reads",
            "time_sleep.builder_is_known",
        },
        "google_cloud_scheduler_job.schedule": {"google_cloud_run_service_iam_member.invokes"},
        "google_monitoring_alert_policy.figure": {"time_sleep.metrics_are_known"},
        "google_monitoring_alert_policy.missed": {"time_sleep.metrics_are_known"},
        "google_monitoring_dashboard.overview": {"google_logging_metric.figure"},
        "time_sleep.builder_is_known": {"google_project_iam_member.builder"},
        "time_sleep.metrics_are_known": {"google_logging_metric.figure"},
    }
    for resource in sorted({*deployed.waits, *before}):
        wanted = before.get(resource, set())
        if resource.startswith("google_") and resource != services:
            wanted = wanted | {services}
        for earlier in sorted(wanted - deployed.waits_for(resource)):
            yield f"{resource} does not wait for {earlier}"


def words(deployed: Deployed, code: Code) -> Problems:
    """Words and names that no schema knows are ones that Google takes."""
    kinds = ("google_monitoring_alert_policy", "google_monitoring_dashboard")
    for kind in kinds:
        for key, one in deployed.of(kind).items():
            for word in sorted(
                set(re.findall(r"(?:ALIGN|REDUCE|COMPARISON)_\w+", json.dumps(one)))
            ):
                if word not in MONITORING_WORDS:
                    yield f"{kind} {key}: {word} is no word of Monitoring"
    for key, account in deployed.of("google_service_account").items():
        if not re.fullmatch(r"[a-z][-a-z0-9]{4,28}[a-z0-9]", account["account_id"]):
            yield f"the account {key} cannot be called {account['account_id']}"
    for key, function in deployed.of("google_cloudfunctions2_function").items():
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", function["name"]):
            yield f"the function {key} cannot be called {function['name']}"
    for queue, found in deployed.of("google_cloud_tasks_queue").items():
        for name in ("min_backoff", "max_backoff"):
            if not re.fullmatch(r"\d+s", found["retry_config"][0][name]):
                yield f"{queue}: {name} is no duration"


def doubles(deployed: Deployed, code: Code) -> Problems:
    """Two resources of one name, or of one grant, would undo each other for ever."""
    for kind, found in sorted(deployed.resources.items()):
        seen: set[tuple[str, ...]] = set()
        for key, one in found.items():
            if kind.endswith("_iam_member"):
                names = (one["role"], where(one), one["member"])
            elif kind in ("google_firestore_field", "google_firestore_index"):
                names = (one["collection"], str(one.get("field")), json.dumps(one.get("fields")))
            else:
                called = ("name", "account_id", "service", "display_name")
                names = (next((str(one[n]) for n in called if one.get(n)), key),)
            if kind in ("google_monitoring_alert_policy", "google_service_account"):
                names = (one.get("display_name") or "", one.get("account_id") or "")
            if names in seen:
                yield f"{kind} {key} is there twice"
            seen.add(names)


def archives(deployed: Deployed, code: Code) -> Problems:
    """An archive holds what `tests.sandbox.functions.build` lays out; its name has its digest."""
    objects = deployed.of("google_storage_bucket_object")
    for name, archive in deployed.data["archive_file"].items():
        function = name.partition("/")[2]
        inside = {one["filename"]: one["content"] for one in archive["source"]}
        for place, path in sorted(inside.items()):
            own = f"functions/{function}/{place}"
            if path not in (place if place.startswith("shared/") else own,):
                yield f"{function}: {place} holds {path}"
        lines = (
            f"{hashlib.sha256(inside[place].encode()).hexdigest()} {place}"
            for place in sorted(inside)
        )
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        if objects[function]["name"] != f"{function}/{digest}.zip":
            yield f"{function}: the object's name does not tell what is in it"


def first_post(deployed: Deployed, code: Code) -> Problems:
    """The commands that are printed for a first post are ones that a function takes."""
    text = deployed.outputs["first_post"].replace("\\\n", " ")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("curl")]
    routes = code.functions["schedule_post"].routes
    for command in commands:
        [url] = [word for word in command if word.startswith("$URL")]
        path = url.removeprefix("$URL").partition("?")[0]
        if path not in routes:
            yield f"{path} is no route"
            continue
        if "-d" in command:
            try:
                routes[path].body.model_validate_json(command[command.index("-d") + 1])  # type: ignore[union-attr]
            except ValidationError as error:
                yield f"{path}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
    if len(commands) < 3:
        yield "an account, a post and a look at it make three commands"


# --- reading ----------------------------------------------------------------------------------


def both(standing: Mapping[str, Any], known: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, values) for name, values in standing.items() if name in known]


def settings_of(function: Mapping[str, Any]) -> dict[str, str]:
    return dict(function["service_config"][0]["environment_variables"])


def secrets_of(function: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found = function["service_config"][0]["secret_environment_variables"]
    return {secret["key"]: secret for secret in found}


CHECKS: tuple[Check, ...] = (
    functions,
    callers_are_admitted,
    settings,
    uses,
    roles,
    doors,
    indexes,
    fields,
    queues,
    schedules,
    timeouts,
    events,
    figures,
    services,
    order,
    words,
    doubles,
    archives,
    first_post,
)
