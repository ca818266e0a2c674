"""What a function imports when it is loaded, read from the source: ours and third parties'."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Imports:
    """`ours` are our modules by dotted name; `statements` the import lines of third parties that
    run when the function is loaded; `later` those inside functions, run when they are called."""

    ours: set[str] = field(default_factory=set)
    statements: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)

    def modules(self) -> set[str]:
        """The third-party modules that are named, at load or later."""
        named = set()
        for statement in self.statements | self.later:
            words = statement.split()
            named |= {words[1]} | ({f"{words[1]}.{words[3]}"} if words[0] == "from" else set())
        return named


def of_function(name: str, root: Path = ROOT) -> Imports:
    found = Imports()
    _read(root / "functions" / name / "main.py", root, found)
    return found


def _read(file: Path, root: Path, found: Imports) -> None:
    for statement, at_load in _statements(ast.parse(file.read_text()), at_load=True):
        for module, line in _lines(statement):
            top = module.partition(".")[0]
            if top == "shared":
                for name in (module, f"{module}.{line.split()[-1]}"):
                    _enter(name, root, found)
            elif top not in sys.stdlib_module_names:
                (found.statements if at_load else found.later).add(line)


def _enter(module: str, root: Path, found: Imports) -> None:
    file = root / Path(*module.split(".")).with_suffix(".py")
    if file.is_file() and module not in found.ours:
        found.ours.add(module)
        _read(file, root, found)


def _statements(
    node: ast.AST, *, at_load: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_load
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, at_load=at_load and not inside)


def _lines(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """A module and the line that imports it, one name a line."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.name, f"import {alias.name}"
    elif statement.module is not None and statement.level == 0:
        for alias in statement.names:
            yield statement.module, f"from {statement.module} import {alias.name}"
