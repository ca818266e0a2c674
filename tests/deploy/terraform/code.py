"""What the code names (routes, settings, queries, queues, events) and what a function touches."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from shared import config, domain
from shared.domain import keys, leases
from shared.domain.records import Record
from shared.edge.serve import Route
from shared.observability import EVENTS
from shared.platforms.registry import NAMES
from shared.queue import tasks
from shared.store.queries import QUERIES, Query

ROOT = Path(__file__).resolve().parents[3]
# What the handles of `Runtime` need of Google; those without a line need nothing of their own.
USES = {
    ("queue", "wake"): "createTasks",
    ("queue", "create"): "createTasks",
    ("queue", "bury"): "createTasks",
    ("queue", "announce"): "createTasks",
    ("queue", "forget"): "deleteTasks",
    ("queue", "unbury"): "deleteTasks",
    ("queue", "pause"): "orderQueues",
    ("queue", "resume"): "orderQueues",
    ("queue", "purge"): "orderQueues",
    ("queue", "info"): "watchQueues",
    ("queue", "queues"): "watchQueues",
    ("vault", ""): "tokens",
    ("driver", ""): "platforms",
    ("driver", "publish"): "media",  # what else it does sends none
    ("media", ""): "media",
    ("files", ""): "files",
}
FREE = {
    "callers", "clock", "environment", "function", "jitter", "log", "now", "platforms", "store",
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """One folder under `functions/`."""

    name: str
    routes: Mapping[str, Route]
    entry_points: frozenset[str]
    uses: frozenset[str]

    @property
    def callers(self) -> set[str]:
        return {role for route in self.routes.values() for role in route.admits}


@dataclass(frozen=True)
class Code:
    functions: Mapping[str, Function]
    settings: frozenset[str]
    queries: tuple[Query, ...]
    collections: frozenset[str]
    records: Mapping[str, tuple[type[Record], ...]]
    platforms: tuple[str, ...]
    queues: frozenset[str]
    events: frozenset[str]
    line_fields: Mapping[str, frozenset[str]]
    dispatch_deadline: timedelta
    lease: timedelta
    request: timedelta


@functools.cache
def read() -> Code:
    folders = sorted(file.parent for file in (ROOT / "functions").glob("*/main.py"))
    settings = {str(field.alias) for field in config.Settings.model_fields.values()}
    default = config.Settings.model_fields["default_queue"].default
    return Code(
        functions={folder.name: _function(folder) for folder in folders},
        settings=frozenset(settings),
        queries=QUERIES,
        collections=frozenset(_collections()),
        records=_records(),
        platforms=NAMES,
        queues=frozenset({keys.queue(name) for name in NAMES} | {default} | set(_queues())),
        events=EVENTS,
        line_fields=_line_fields(),
        dispatch_deadline=tasks.DISPATCH_DEADLINE,
        lease=leases.LEASE,
        request=leases.REQUEST,
    )


def _function(folder: Path) -> Function:
    main = _load(folder / "main.py")
    entries = {name for name, value in vars(main).items() if _is_entry_point(value, main)}
    return Function(folder.name, main.ROUTES, frozenset(entries), frozenset(_uses(folder.name)))


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deployed_{file.parent.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_entry_point(value: Any, main: ModuleType) -> bool:
    """`functions_framework.http` wraps what it decorates."""
    return callable(value) and hasattr(value, "__wrapped__") and value.__module__ == main.__name__


# --- what a function touches ------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """Where names lead: definitions of its own, and imports as (module, name or None)."""

    definitions: Mapping[str, ast.AST]
    imports: Mapping[str, tuple[str, str | None]]
    tree: ast.Module


@functools.cache
def _module(name: str) -> _Module | None:
    """A module of the rooms that use handles: the functions themselves, jobs and edge."""
    if not name.startswith(("functions.", "shared.jobs.", "shared.edge.")):
        return None
    file = ROOT / (name.replace(".", "/") + ".py")
    if not file.exists():
        return None
    tree = ast.parse(file.read_text())
    definitions: dict[str, ast.AST] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                definitions[node.name] = node
            case ast.Assign():
                definitions |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
            case ast.ImportFrom(module=source) if source:
                for alias in node.names:
                    whole = f"{source}.{alias.name}"
                    is_module = (ROOT / (whole.replace(".", "/") + ".py")).exists()
                    target = (whole, None) if is_module else (source, alias.name)
                    imports[alias.asname or alias.name] = target
    return _Module(definitions, imports, tree)


def _uses(function: str) -> Iterator[str]:
    """What is reachable from the function's routes, by name, and needs access to something."""
    main = f"functions.{function}.main"
    module = _module(main)
    assert module is not None
    seen: set[tuple[str, str]] = set()
    todo = [(main, name) for name in module.definitions]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        mentions, touches = _known(*place)
        todo += mentions
        yield from touches


@functools.cache
def _known(name: str, symbol: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What one definition mentions and touches; nothing for what lies in other rooms."""
    module = _module(name)
    node = module.definitions.get(symbol) if module else None
    if module is None or node is None:
        return [], []
    return list(_mentions(node, name, module)), list(_touches(node))


def _mentions(node: ast.AST, name: str, module: _Module) -> Iterator[tuple[str, str]]:
    own = set(_bound(node))
    for child in ast.walk(node):
        match child:
            case ast.Name(id=used) | ast.Attribute(value=ast.Name(id=used)) if used in own:
                continue  # a variable that is called as something else is
            case ast.Name(id=used) if used in module.definitions:
                yield name, used
            case ast.Name(id=used) if used in module.imports and module.imports[used][1]:
                source, symbol = module.imports[used]
                yield source, symbol or ""
            case ast.Attribute(value=ast.Name(id=used), attr=symbol) if used in module.imports:
                yield module.imports[used][0], symbol


def _bound(node: ast.AST) -> Iterator[str]:
    """The parameters and variables of a function."""
    if not isinstance(node, ast.FunctionDef):
        return
    for child in ast.walk(node):
        match child:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def _touches(node: ast.AST) -> Iterator[str]:
    """`rt.queue.wake_all` is ("queue", "wake_all"); a handle nobody knows is told by its name."""
    inner = {id(c.value): c.attr for c in ast.walk(node) if isinstance(c, ast.Attribute)}
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and child.attr == "alert_webhook_secret":
            yield "alerts"
        if not isinstance(child, ast.Attribute) or not _is_runtime(child.value):
            continue
        if child.attr in FREE:
            continue
        verb = inner.get(id(child), "")
        found = [
            use
            for (handle, prefix), use in USES.items()
            if handle == child.attr and verb.startswith(prefix)
        ]
        yield from found or [f"{child.attr}.{verb}"]


def _is_runtime(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="rt") | ast.Attribute(attr="rt" | "_rt"):
            return True
    return False


# --- what is kept and what is told ------------------------------------------------------------


def _trees(room: str, saying: str = "") -> Iterator[ast.Module]:
    """Of the files below `shared/room` that say this at all."""
    for file in sorted((ROOT / "shared" / room).rglob("*.py")):
        text = file.read_text()
        if saying in text:
            yield ast.parse(text)


def _queues() -> Iterator[str]:
    """Constants that say so in their name: `QUEUE`, `DEAD_LETTER_QUEUE`."""
    for tree in _trees("", saying="QUEUE"):
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=queue)):
                    if name.endswith("QUEUE"):
                        yield queue


def _collections() -> Iterator[str]:
    """What references and queries name, at the top and below a document."""
    yield from (query.collection for query in QUERIES)
    for tree in _trees("store"):
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(attr="ref" | "below" | "collection"), args=args):
                    yield from (arg.value for arg in args if isinstance(arg, ast.Constant))


def _records() -> dict[str, tuple[type[Record], ...]]:
    """By collection. A record's docstring begins with where it is kept."""
    for found in pkgutil.iter_modules(domain.__path__, "shared.domain."):
        importlib.import_module(found.name)
    kept: dict[str, tuple[type[Record], ...]] = {}
    todo = list(Record.__subclasses__())
    while todo:
        record = todo.pop()
        todo += record.__subclasses__()
        path = re.match(r"`([^`]+)`", record.__doc__ or "")
        if path is not None:
            collection = path[1].split("/")[-2]
            kept[collection] = (*kept.get(collection, ()), record)
    return kept


def _line_fields() -> dict[str, frozenset[str]]:
    """The fields of each event's lines. Under "*": of those whose event is a parameter."""
    found: dict[str, set[str]] = {}
    for tree in _trees("", saying=".event("):
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        dictionaries = {function.name: set(_dictionary_keys(function)) for function in functions}
        for function in functions:
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(attr="event"), args=[first, *_]):
                        name = first.value if isinstance(first, ast.Constant) else "*"
                        fields = found.setdefault(str(name), set())
                        fields |= set(_keyword_fields(call, function.name, dictionaries))
    return {event: frozenset(fields) for event, fields in found.items()}


def _keyword_fields(
    call: ast.Call, function: str, dictionaries: Mapping[str, set[str]]
) -> Iterator[str]:
    for keyword in call.keywords:
        match keyword:
            case ast.keyword(arg=str(name)):
                yield name
            case ast.keyword(value=ast.Call(func=ast.Name(id=builder))):
                yield from dictionaries.get(builder, set())
            case _:
                yield from dictionaries[function]


def _dictionary_keys(node: ast.AST) -> Iterable[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Dict):
            yield from (key.value for key in child.keys if isinstance(key, ast.Constant))
