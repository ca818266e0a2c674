"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from shared.config import Settings
from shared.platforms import linkedin
from shared.platforms.registry import NAMES, platform_class
from tools import tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def main_of(function: str) -> ModuleType:
    place = ROOT / "functions" / function / "main.py"
    spec = importlib.util.spec_from_file_location(f"main_{function}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_route_and_its_callers_are_in_the_table(function: str) -> None:
    rows = [row for row in section("Routes").splitlines() if row.startswith(f"| `{function}`")]

    routes = main_of(function).ROUTES
    below_sync = {path for path in routes if path.removeprefix("/sync") in routes.keys() - {path}}
    for path, route in routes.items():
        if path in below_sync:
            continue
        said = [row for row in rows if re.search(rf"`(?:POST |GET )?{re.escape(path)}[`?]", row)]
        assert said, f"{function} {path} is not in the table"
        callers = {name.strip() for name in said[0].rsplit("|", 2)[1].split(",")}
        assert callers == set(route.admits)


def test_every_setting_is_in_the_table_and_none_in_vain() -> None:
    table = section("Settings")
    said = {name for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", table) if "_" in name}

    known = {str(field.alias) for field in Settings.model_fields.values()}

    assert known <= said
    by_rule = {"WEBHOOK_URL_PUBLISH_POST", "_AUTH_URL", "_CLIENT_ID", "_CLIENT_SECRET"}
    by_rule |= {"LINKEDIN_API_VERSION"}
    theirs = {
        "GOOGLE_APPLICATION_CREDENTIALS",
        "FIRESTORE_EMULATOR_HOST",
        "STORAGE_EMULATOR_HOST",
    }
    assert said - known <= by_rule | theirs
    assert f"| {linkedin.VERSION} |" in table


def test_its_tables_of_platforms_are_what_the_adapters_declare() -> None:
    assert tables.written(README) == README, "`make tables` writes them"


def test_every_platform_is_in_the_tables() -> None:
    rows = section("What it promises, and what that costs")

    assert set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", rows, re.M)) == set(NAMES)
    for name in NAMES:
        assert f"| {platform_class(name).label}" in rows.split("<!-- limits -->")[0]


@pytest.mark.parametrize("row", tables.guarantees()[1:], ids=lambda row: row[0])
def test_every_guarantee_says_what_it_rests_on_and_what_may_go_wrong(row: list[str]) -> None:
    _, kind, rests_on, risk = row

    assert kind
    assert len(rests_on) > 20
    assert len(risk) > 20
    assert not rests_on.endswith(".")


def test_every_file_it_names_exists() -> None:
    for name in re.findall(r"`((?:shared|functions|tests|terraform|tools)/[\w/]+\.\w+)`", README):
        assert (ROOT / name).exists(), name


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))

    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
