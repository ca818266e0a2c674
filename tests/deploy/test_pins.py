"""The requirement files say what `pyproject.toml` asks for, each package at one version."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import pins

TARGETS = sorted(pins.files())


@pytest.mark.parametrize("target", TARGETS)
def test_a_requirement_file_was_made_from_pyproject_as_it_is(target: str) -> None:
    assert pins.files()[target].read_text().startswith(pins.header(target))


@pytest.mark.parametrize("target", TARGETS)
def test_a_requirement_file_pins_all_that_is_asked_for(target: str) -> None:
    pinned = versions(pins.files()[target])

    asked = [Requirement(line) for lines in pins.wanted(target).values() for line in lines]
    missing = [
        str(requirement)
        for requirement in asked
        if not requirement.specifier.contains(pinned.get(name_of(requirement), "0"))
    ]

    assert missing == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_deployed_has_the_versions_that_are_tested(target: str) -> None:
    tested = versions(pins.files()["dev"])

    deployed = versions(pins.files()[target])

    assert deployed.items() <= tested.items()


def test_every_function_has_its_own_extra_and_file() -> None:
    functions = {folder.parent.name for folder in (pins.ROOT / "functions").glob("*/main.py")}

    assert functions == set(TARGETS) - {"all", "dev"}
    assert all((pins.ROOT / "functions" / name / "requirements.txt").exists() for name in functions)


def test_a_changed_pyproject_makes_the_files_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (pins.ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace('"httpx>=', '"httpx>=0.1,>='))
    shutil.copytree(pins.ROOT / "functions", tmp_path / "functions")
    before = {target: pins.header(target) for target in TARGETS}

    monkeypatch.setattr(pins, "ROOT", tmp_path)
    after = {target: pins.header(target) for target in TARGETS}

    assert all(before[target] != after[target] for target in TARGETS)


def versions(file: Path) -> Mapping[str, str]:
    """Version by package; a line that is no pin fails."""
    found = {}
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        [pin] = requirement.specifier
        assert pin.operator == "==", line
        assert Version(pin.version)
        found[name_of(requirement)] = pin.version
    return found


def name_of(requirement: Requirement) -> str:
    return str(canonicalize_name(requirement.name))
