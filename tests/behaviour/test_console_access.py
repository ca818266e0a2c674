"""Who may do what in the console, and that nobody does anything without a name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from shared.edge.serve import Route
from tests.console import Console
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
RANKS = ("viewer", "operator", "admin")


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_a_viewer_looks_and_changes_nothing(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    letter_id = console.letter_of(post_id, twitter)
    before = console.stack.record("deadLetters", letter_id)

    seen = console.look("/dead-letters")["deadLetters"]
    answers = [
        console.act(path, body, "viewer")
        for path, body in (
            ("/dead-letters/redrive", {"ids": [letter_id]}),
            ("/sync/dead-letters/discard", {"ids": [letter_id], "reason": "because"}),
            ("/pause", {"scope": "platform", "name": "twitter", "reason": "because"}),
            ("/queues/purge", {"queue": "publish-twitter", "reason": "because"}),
        )
    ]

    assert [one["deadLetterId"] for one in seen] == [letter_id]
    assert {answer.status_code for answer in answers} == {403}
    assert console.stack.record("deadLetters", letter_id) == before
    assert console.audit("action") == []


def test_each_route_refuses_whoever_stands_just_below_it(console: Console) -> None:
    answers = {
        path: ask(console, path, route, just_below(route)).status_code
        for path, route in ROUTES.items()
    }

    assert set(answers.values()) == {403}
    assert {path for path, route in ROUTES.items() if route.admits == {"admin"}} == {
        *("/queues/purge", "/jobs/queue", "/retention"),
        *("/sync/queues/purge", "/sync/jobs/queue", "/sync/retention"),
    }


def test_whatever_changes_something_is_post(console: Console) -> None:
    changes = {path for path, route in ROUTES.items() if "viewer" not in route.admits}

    answer = console.stack.get("console", "/pause", "admin")

    assert {path for path, route in ROUTES.items() if route.method == "POST"} == changes
    assert answer.status_code == 405


def test_the_audit_log_is_read_by_company_person_and_action(console: Console) -> None:
    world = console.world
    one, other = world.account("twitter"), world.account("linkedin")
    for account in (one, other):
        scope = {"scope": "account", "name": account.id, "reason": f"for {account.id}"}
        console.done("/pause", scope)
    console.done("/resume", {"scope": "account", "name": one.id}, "admin")

    newest = console.look("/audit", limit=1)
    rest = console.look("/audit", cursor=newest["nextCursor"])
    pauses = console.look("/audit", action="pause", by=console.stack.email("operator"))

    assert [entry["action"] for entry in newest["entries"]] == ["resume"]
    assert [entry["why"] for entry in rest["entries"]] == [f"for {other.id}", f"for {one.id}"]
    assert pauses["entries"] == rest["entries"]
    assert rest["entries"][0]["at"] > rest["entries"][1]["at"]


def just_below(route: Route) -> str:
    """The highest person who is not admitted; the backend, where every person is."""
    return next((role for role in reversed(RANKS) if role not in route.admits), "backend")


def ask(console: Console, path: str, route: Route, role: str) -> Any:
    if route.method == "GET":
        return console.stack.get("console", path, role)
    return console.act(path, {}, role)


def _routes() -> dict[str, Route]:
    file = ROOT / "functions" / "console" / "main.py"
    spec = importlib.util.spec_from_file_location("main_of_console", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.ROUTES)


ROUTES = _routes()
