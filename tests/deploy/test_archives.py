"""Each function's archive loads with its own requirements alone, and no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.platforms.registry import NAMES
from tests.sandbox.functions import build
from tools import imports, pins

FUNCTIONS = sorted(set(pins.files()) - {"all", "dev"})
# Imported inside functions of ours, never while loading; only these functions come to call them.
SLOW_TO_LOAD = ("google.cloud.storage", "google_crc32c", "twitter_text", "regex")
COUNTS_TEXT = ["twitter_text", "regex"]  # where posts are scheduled or corrected
COMES_TO_LOAD = {
    "publish_post": ["google.cloud.storage", "google_crc32c"],  # media are read when published
    "bulk": ["google.cloud.storage", *COUNTS_TEXT],
    "console": COUNTS_TEXT,
    "schedule_post": COUNTS_TEXT,
}
ADAPTERS = [f"shared.platforms.{name}" for name in NAMES]  # loaded by name, when asked for
OURS_AT_MOST = 70  # modules of ours in `publish_post`; each costs a few ms of every cold start
LOADER = """
import json, sys
archive, packages, later = sys.argv[1:]
sys.path[:0] = [archive, packages]
import main
loaded = sorted(sys.modules)
for statement in json.loads(later):
    exec(statement)
print(json.dumps({"loaded": loaded, "entry": main.__file__}))
"""


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_archive_loads_with_its_own_requirements_alone(function: str, tmp_path: Path) -> None:
    archive = build(function, tmp_path / "archives")
    packages = lay_out(pins.files()[function], tmp_path / "packages")
    later = [
        line
        for line in sorted(imports.of_function(function).later)
        if not dotted(line).startswith(SLOW_TO_LOAD)
    ]
    later += [f"import {module}" for module in [*ADAPTERS, *COMES_TO_LOAD.get(function, ())]]

    told = load(archive, packages, later)

    loaded = set(told["loaded"])
    ours = {name for name in loaded if name.startswith("shared.")}
    assert told["entry"] == str(archive / "main.py")
    assert not loaded & set(SLOW_TO_LOAD)
    assert function != "publish_post" or len(ours) <= OURS_AT_MOST
    assert not {name for name in loaded if name.startswith(("tests", "tools"))}


def test_a_package_that_is_not_required_cannot_be_imported(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "main.py").write_text("import twitter_text\n")
    packages = lay_out(pins.files()["maintain"], tmp_path / "packages")

    with pytest.raises(AssertionError, match="No module named 'twitter_text'"):
        load(archive, packages, [])


def dotted(statement: str) -> str:
    """`from a.b import c` is `a.b.c`."""
    _, module, *name = statement.split()
    return ".".join([module, *name[1:]])


def load(archive: Path, packages: Path, later: Sequence[str]) -> dict[str, Any]:
    """Import the archive's `main` where nothing else can be imported but these packages."""
    arguments = [str(archive), str(packages), json.dumps(later)]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADER, *arguments], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def lay_out(requirements: Path, into: Path) -> Path:
    """A folder that holds the installed packages of a requirement file, by links, and no other."""
    wanted = {
        canonicalize_name(requirement.name)
        for line in requirements.read_text().splitlines()
        if not line.startswith("#")
        and ((requirement := Requirement(line)).marker is None or requirement.marker.evaluate())
    }
    _link(installed(), wanted, site_packages(), into)
    return into


@dataclass
class Node:
    """A file or folder of site-packages, and whose it is: many packages share `google`."""

    owners: set[str] = field(default_factory=set)
    inside: dict[str, Node] = field(default_factory=dict)


def _link(folder: Node, wanted: set[str], source: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for name, node in folder.inside.items():
        if node.owners <= wanted:
            (into / name).symlink_to(source / name)
        elif node.owners & wanted and node.inside:
            _link(node, wanted, source / name, into / name)


@cache
def installed() -> Node:
    root = Node()
    for package in metadata.distributions(path=[str(site_packages())]):
        owner = canonicalize_name(package.metadata["Name"])
        for line in (package.read_text("RECORD") or "").splitlines():
            node = root
            for name in line.partition(",")[0].split("/"):
                node = node.inside.setdefault(name, Node())
                node.owners.add(owner)
    root.inside.pop("..", None)  # scripts
    return root


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))
