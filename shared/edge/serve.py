"""One request: verify who calls, parse what they say, run the job, answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import flask
from pydantic import BaseModel, ValidationError

from shared.config import SettingsError
from shared.domain import leases, slots
from shared.domain.failures import (
    BadRequestError,
    ConflictError,
    JobError,
    NotFoundError,
    Problem,
    RefusedError,
    UnavailableError,
)
from shared.edge.answers import Answer, problem
from shared.observability import Log, Trace, current_trace, trace_of
from shared.runtime import Runtime, runtime
from shared.security.callers import Caller, ForbiddenError, UnauthenticatedError

BODY_BYTES = 1024 * 1024

TASKS, BACKEND, SCHEDULER = "tasks", "backend", "scheduler"
PEOPLE = VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"  # each may what those before may


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows of the request beside its body. `ends_at` is monotonic; `call` is
    Scheduler's, where it was Scheduler who called: headers alone prove nothing."""

    rt: Runtime
    caller: Caller
    trace: Trace
    ends_at: float
    task_id: str | None
    call: slots.Call | None = None


Handler = Callable[[Any, Context], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """`body` is one model, or a function that picks the model for a body."""

    body: type[BaseModel] | Callable[[Any], type[BaseModel]]
    handle: Handler
    admits: frozenset[str]
    method: str = "POST"
    lasts: timedelta = leases.REQUEST


def admits(*roles: str) -> frozenset[str]:
    return frozenset(roles)


def at_least(role: str) -> frozenset[str]:
    """This person's role and those above it."""
    return frozenset(PEOPLE[PEOPLE.index(role) :])


def serve(request: flask.Request, function: str, routes: Mapping[str, Route]) -> flask.Response:
    """Answer a request; whatever goes wrong becomes problem JSON without internals."""
    started = time.monotonic()
    trace = trace_of(
        request.headers.get("traceparent"), request.headers.get("X-Cloud-Trace-Context")
    )
    current_trace.set(trace)
    try:
        rt = runtime(function)
    except SettingsError as error:
        Log("unknown").bug(error)
        return problem(500, "settings", "The function is not configured.").response()
    log = rt.log
    path = "/" + request.path.strip("/")
    try:
        answer = _answer(request, path, routes, rt, trace, started)
    except Exception as error:
        answer = _failure(error, log, path)
    event = "request.served" if answer.status < 500 else "request.failed"
    log.event(
        "request.refused" if answer.status in (401, 403) else event,
        f"{request.method} {path} {answer.status}",
        severity="INFO" if answer.status < 400 else "WARNING",
        path=path,
        httpStatus=answer.status,
        code=answer.body.get("code") if answer.status >= 400 else None,
        durationMs=int((time.monotonic() - started) * 1000),
        taskId=request.headers.get("X-CloudTasks-TaskName"),
    )
    return answer.response()


def _answer(
    request: flask.Request,
    path: str,
    routes: Mapping[str, Route],
    rt: Runtime,
    trace: Trace,
    started: float,
) -> Answer:
    caller = rt.callers.verify(
        request.headers.get("Authorization"), request.headers.get("X-Webhook-Secret")
    )
    route = routes.get(path)
    if route is None:
        raise NotFoundError(f"There is nothing at {path}. Known: {', '.join(sorted(routes))}.")
    # The webhook secret alone says nothing of who a person is.
    anybody = caller.role == "any" and route.admits.isdisjoint(PEOPLE)
    if not anybody and caller.role not in route.admits:
        raise ForbiddenError(f"{path} is not for this caller.")
    if request.method != route.method:
        message = f"{path} takes {route.method}."
        return _with(problem(405, "method", message), Allow=route.method)
    context = Context(
        rt=rt,
        caller=caller,
        trace=trace,
        ends_at=started + route.lasts.total_seconds(),
        task_id=request.headers.get("X-CloudTasks-TaskName"),
        call=_call(request, caller),
    )
    raw = _raw(request, route)
    try:
        body = _parse(raw, route)
        return route.handle(body, context)
    except (RefusedError, ConflictError) as error:  # and would be, however often it came back
        from_queue = caller.role == TASKS or (caller.role == "any" and context.task_id)
        if not from_queue:
            raise
        return _bury(raw, error, context)


def _call(request: flask.Request, caller: Caller) -> slots.Call | None:
    if caller.role not in (SCHEDULER, "any"):
        return None
    job = request.headers.get("X-CloudScheduler-JobName")
    return slots.heard(job, request.headers.get("X-CloudScheduler-ScheduleTime"))


def _raw(request: flask.Request, route: Route) -> bytes:
    """The body, or the query string as one. One byte more than allowed is enough to know."""
    if route.method == "GET":
        return json.dumps(request.args.to_dict()).encode()
    return request.stream.read(BODY_BYTES + 1)


def _parse(raw: bytes, route: Route) -> BaseModel:
    if len(raw) > BODY_BYTES:
        sentence = f"The body exceeds {BODY_BYTES} bytes."
        raise BadRequestError([Problem("body", "too_large", sentence)])
    try:
        given = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        sentence = "The body is not JSON."
        raise BadRequestError([Problem("body", "not_json", sentence)]) from error
    if not isinstance(given, dict):
        sentence = "The body must be a JSON object."
        raise BadRequestError([Problem("body", "not_an_object", sentence)])
    model = cast(type[BaseModel], route.body)
    if not isinstance(route.body, type):
        model = route.body(given)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadRequestError(_problems(error)) from None


def _problems(error: ValidationError) -> list[Problem]:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        Problem(
            ".".join(map(str, fault["loc"])) or "body",
            fault["type"],
            fault["msg"].removeprefix("Value error, "),
        )
        for fault in faults
        if not _only_follows(fault["loc"], fault["type"], [other["loc"] for other in faults])
    ]


def _only_follows(
    where: tuple[int | str, ...], kind: str, others: list[tuple[int | str, ...]]
) -> bool:
    """A list that lost its wrong items is reported as too short besides."""
    inside = (other for other in others if len(other) > len(where))
    return kind == "too_short" and any(other[: len(where)] == where for other in inside)


def _bury(raw: bytes, error: RefusedError | ConflictError, context: Context) -> Answer:
    """A task that nobody can read or grant would come back until the queue threw it away: it
    becomes a dead letter, once."""
    problems = error.problems if isinstance(error, RefusedError) else []
    evidence = {"errors": [f"{p.field}: {p.message}" for p in problems][:20]}
    if context.task_id:
        evidence["taskName"] = [context.task_id]
    letter = context.rt.store.dead_letters.bury_malformed(raw, error.message, evidence)
    context.rt.log.event("task.malformed", error.message, severity="ERROR", deadLetterId=letter)
    context.rt.queue.announce(letter, traceparent=context.trace.traceparent)
    return Answer(200, {"success": False, "deadLetter": letter, "message": error.message})


def _failure(error: Exception, log: Log, path: str) -> Answer:
    match error:
        case UnauthenticatedError():
            refused = problem(401, "unauthenticated", str(error))
            return _with(refused, **{"WWW-Authenticate": "Bearer"})
        case ForbiddenError():
            return problem(403, "forbidden", str(error))
        case NotFoundError():
            return problem(404, "not_found", error.message)
        case ConflictError():
            return problem(409, error.code, error.message, more=error.details)
        case BadRequestError():
            status = 413 if error.code == "too_large" else 400
            return problem(status, error.code, error.message, problems=error.problems)
        case RefusedError():
            return problem(422, error.code, error.message, problems=error.problems)
        case UnavailableError():
            return problem(503, error.code, error.message, retry_after=5)
        case JobError():
            return problem(400, error.code, error.message)
    log.bug(error, path=path)
    return problem(500, "internal", "Something went wrong on our side. It has been noted.")


def _with(answer: Answer, **headers: str) -> Answer:
    return Answer(answer.status, answer.body, {**answer.headers, **headers})
