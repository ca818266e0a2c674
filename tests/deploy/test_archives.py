"""Each function's archive loads with its own requirements alone, and no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.sandbox.functions import build
from tools import imports, pins

FUNCTIONS = sorted(set(pins.files()) - {"all", "dev"})
# Imported inside functions of ours, never while loading; only these functions come to call them.
SLOW_TO_LOAD = ("google.cloud.storage", "google_crc32c", "twitter_text")
COMES_TO_LOAD = {
    "publish_post": ["google.cloud.storage", "google_crc32c"],  # media are read when published
    "schedule_post": ["twitter_text"],  # text is counted when scheduled
}
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
    later += [f"import {module}" for module in COMES_TO_LOAD.get(function, ())]

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
    for path, owners in sorted(installed().items()):
        linked = any((into / parent).is_symlink() for parent in path.parents)
        if owners <= wanted and not linked:
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).symlink_to(site_packages() / path)
    return into


@cache
def installed() -> Mapping[Path, frozenset[str]]:
    """Every file and folder of site-packages, and whose it is: many share the folder `google`."""
    owners: defaultdict[Path, set[str]] = defaultdict(set)
    for package in metadata.distributions(path=[str(site_packages())]):
        for file in package.files or ():
            if ".." not in file.parts:  # a script
                path = Path(file)
                for part in (path, *path.parents[:-1]):
                    owners[part].add(canonicalize_name(package.metadata["Name"]))
    return {path: frozenset(names) for path, names in owners.items()}


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))
