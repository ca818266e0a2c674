"""Imports point one way, `domain` is pure, and what is promised as a list is one.

Each rule is a function from sources to what breaks it; beside the code itself, each is given a
source that breaks it, so that a rule which sees nothing is seen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from shared.observability import EVENTS

ROOT = Path(__file__).parents[1]

ARROWS: Mapping[str, frozenset[str]] = {
    "functions": frozenset({"edge", "jobs"}),
    "edge": frozenset({"runtime", "security", "config", "observability", "domain"}),
    "jobs": frozenset(
        {
            "runtime",
            "store",
            "queue",
            "platforms",
            "storage",
            "security",
            "domain",
            "observability",
        }
    ),
    "runtime": frozenset(
        {
            "config",
            "domain",
            "observability",
            "platforms",
            "queue",
            "security",
            "storage",
            "store",
        }
    ),
    **{
        room: frozenset({"domain", "config", "observability"})
        for room in ("store", "queue", "platforms", "storage", "security")
    },
    "domain": frozenset(),
    "config": frozenset(),
    "observability": frozenset(),
}

# What the standard library offers `domain` in vain: clocks, chance, files, processes, the network.
IMPURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "ctypes",
        "ftplib",
        "getpass",
        "glob",
        "http",
        "importlib",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "random",
        "sched",
        "secrets",
        "select",
        "shutil",
        "signal",
        "smtplib",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uuid",
    }
)
PURE = sys.stdlib_module_names - IMPURE | {"pydantic", "shared"}
CLOCKS = frozenset({"now", "utcnow", "today"})
WORLDLY = frozenset({"open", "print", "input", "exec", "eval", "__import__"})

QUERYING = frozenset({"where", "collection_group"})
VAGUE = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "service", "misc"})

Sources = Mapping[str, str]  # path from the root, text


def sources() -> dict[str, str]:
    files = [*ROOT.glob("shared/**/*.py"), *ROOT.glob("functions/*/main.py")]
    return {str(file.relative_to(ROOT)): file.read_text() for file in files}


@cache
def nodes_of(text: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(text)))


def room(path: str) -> str:
    """shared/store/posts.py is of `store`, shared/config.py of `config`."""
    parts = path.split("/")
    return "functions" if parts[0] == "functions" else parts[1].removesuffix(".py")


def imports(text: str) -> Iterator[str]:
    """The modules that a source imports, wherever in it."""
    for node in nodes_of(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"relative import of {node.module}"
            elif node.module == "shared":
                yield from (f"shared.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def wrong_arrows(files: Sources) -> list[str]:
    wrong = []
    for path, text in files.items():
        here = room(path)
        for module in imports(text):
            top, _, rest = module.partition(".")
            if top.startswith("relative"):
                wrong.append(f"{path}: {module}")
            elif top in ("functions", "tests", "tools"):
                wrong.append(f"{path}: {here} -> {top}")
            elif top == "shared":
                there = rest.partition(".")[0]
                if there != here and there not in ARROWS.get(here, frozenset()):
                    wrong.append(f"{path}: {here} -> {there}")
    return wrong


def impurities(files: Sources) -> list[str]:
    wrong = []
    for path, text in files.items():
        if room(path) != "domain":
            continue
        for module in imports(text):
            if module in IMPURE or module.partition(".")[0] not in PURE:
                wrong.append(f"{path}: imports {module}")
        for node in nodes_of(text):
            if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                wrong.append(f"{path}: reads a clock by .{node.attr}")
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in WORLDLY:
                wrong.append(f"{path}: calls {called.id}()")
    return wrong


def stray_queries(files: Sources) -> list[str]:
    """Queries of Firestore that are built elsewhere than in the list that indexes are made from.

    Going on after a document's name needs no index, and may be added to a query of the list."""
    wrong = []
    for path, text in files.items():
        if path == "shared/store/queries.py":
            continue
        nodes = nodes_of(text)
        if room(path) != "store":
            strange = [module for module in imports(text) if "google.cloud.firestore" in module]
            wrong += [f"{path}: imports {module}" for module in strange]
            continue
        for node in nodes:
            if isinstance(node, ast.Call) and _is_order_by_another_field(node):
                wrong.append(f"{path}: order_by of its own")
            if isinstance(node, ast.alias) and node.name == "FieldFilter":
                wrong.append(f"{path}: imports FieldFilter")
            if isinstance(node, ast.Attribute) and node.attr in QUERYING:
                wrong.append(f"{path}: .{node.attr}")
    return wrong


def _is_order_by_another_field(call: ast.Call) -> bool:
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "order_by"):
        return False
    return [ast.unparse(argument) for argument in call.args] != ["'__name__'"]


def events(files: Sources) -> set[str]:
    """The names that code gives to `.event(...)`: at once, through a variable or a parameter, or
    from a table called `_EVENTS`."""
    found: set[str] = set()
    for text in files.values():
        nodes = nodes_of(text)
        tellers = {
            node.name
            for node in nodes
            if isinstance(node, ast.FunctionDef)
            and [argument.arg for argument in node.args.args[:1]] == ["event"]
        }
        for node in nodes:
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute) and node.func.attr == "event":
                    found |= _strings(node.args[0]) if node.args else set()
                if isinstance(node.func, ast.Name) and node.func.id in tellers:
                    found |= _strings(node.args[0])
                for keyword in node.keywords:
                    if keyword.arg == "event":
                        found |= _strings(keyword.value)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
                found |= _strings(node.value)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if ast.unparse(target) == "_EVENTS":
                    found = found.union(*map(_strings, node.value.values))
            elif isinstance(node, ast.arguments):
                found |= _defaults(node)
    return found


def _defaults(arguments: ast.arguments) -> set[str]:
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    given = [value for name, value in pairs if name.arg == "event" and value is not None]
    return set().union(*map(_strings, given))


def _strings(node: ast.expr) -> set[str]:
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return _strings(one) | _strings(other)
    return set()


def vague_names(files: Sources) -> list[str]:
    return [path for path in files if VAGUE & set(path.removesuffix(".py").split("/"))]


def test_imports_point_one_way() -> None:
    assert wrong_arrows(sources()) == []


def test_domain_is_pure() -> None:
    assert impurities(sources()) == []


def test_every_query_is_on_the_list() -> None:
    assert stray_queries(sources()) == []


def test_the_events_that_are_written_are_the_ones_that_are_promised() -> None:
    assert events(sources()) == EVENTS


def test_no_module_is_a_drawer_for_everything() -> None:
    assert vague_names(sources()) == []


@pytest.mark.parametrize(
    ("path", "text", "arrow"),
    [
        ("functions/f/main.py", "from shared.domain import keys", "functions -> domain"),
        ("functions/f/main.py", "from shared import store", "functions -> store"),
        ("shared/edge/serve.py", "from shared.jobs import publish", "edge -> jobs"),
        ("shared/edge/serve.py", "import shared.store.posts", "edge -> store"),
        ("shared/jobs/publish.py", "from shared.edge.answers import Answer", "jobs -> edge"),
        ("shared/jobs/publish.py", "from shared import config", "jobs -> config"),
        ("shared/store/posts.py", "from shared.queue.tasks import Wake", "store -> queue"),
        ("shared/queue/tasks.py", "from shared.store import posts", "queue -> store"),
        ("shared/platforms/x.py", "from shared.security import tokens", "platforms -> security"),
        ("shared/storage/media.py", "from shared.runtime import Runtime", "storage -> runtime"),
        ("shared/security/callers.py", "from shared.jobs import refresh", "security -> jobs"),
        ("shared/domain/keys.py", "def f():\n    from shared import config", "domain -> config"),
        ("shared/config.py", "from shared.domain import leases", "config -> domain"),
        ("shared/runtime.py", "from shared.jobs import publish", "runtime -> jobs"),
        ("shared/jobs/publish.py", "from tests.world import World", "jobs -> tests"),
        ("shared/jobs/publish.py", "from . import refresh", "relative import of None"),
    ],
)
def test_a_wrong_arrow_is_seen(path: str, text: str, arrow: str) -> None:
    assert wrong_arrows({path: text}) == [f"{path}: {arrow}"]


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import random",
        "import secrets",
        "import os",
        "import urllib.request",
        "import socket",
        "import logging",
        "from pathlib import Path",
        "from uuid import uuid4",
        "import httpx",
        "from google.cloud import firestore",
        "from datetime import datetime\nNOW = datetime.now()",
        "from datetime import date\nTODAY = date.today()",
        "from datetime import datetime as d\nclock = d.utcnow",
        "def read():\n    return open('f').read()",
        "__import__('os')",
    ],
)
def test_an_impure_domain_is_seen(text: str) -> None:
    assert len(impurities({"shared/domain/posts.py": text})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "db.collection('posts').where(filter=f)",
        "db.collection_group('rows')",
        "built.order_by('createdAt')",
        "built.order_by('createdAt', direction='DESCENDING')",
        "from google.cloud.firestore_v1.base_query import FieldFilter",
    ],
)
def test_a_stray_query_is_seen(text: str) -> None:
    assert len(stray_queries({"shared/store/posts.py": text})) == 1
    assert stray_queries({"shared/store/queries.py": text}) == []


@pytest.mark.parametrize("module", ["google.cloud.firestore", "google.cloud.firestore_v1.client"])
def test_firestore_elsewhere_than_in_the_store_is_seen(module: str) -> None:
    text = f"from {module} import Client"

    assert len(stray_queries({"shared/jobs/publish.py": text})) == 1
    assert stray_queries({"shared/store/firestore.py": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "log.event('new.event')",
        "def tell(event: str): ...\ntell('new.event')",
        "_EVENTS = {1: 'new.event'}",
        "rt.log.bind(None).event('new.event', severity='ERROR')",
        "after(change, rt, event='new.event')",
        "event = 'new.event' if bad else 'new.event'",
        "log.event('new.event' if bad else kind)",
        "def tell(failures, *, event: str = 'new.event'): ...",
    ],
)
def test_an_event_that_is_not_on_the_list_is_seen(text: str) -> None:
    assert events({"shared/jobs/new.py": text}) == {"new.event"}


@pytest.mark.parametrize(
    "path", ["shared/utils.py", "shared/jobs/helpers.py", "shared/common/text.py"]
)
def test_a_drawer_for_everything_is_seen(path: str) -> None:
    assert vague_names({path: ""}) == [path]
