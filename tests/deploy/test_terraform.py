"""`terraform/` by itself: formatted, valid, and its own tests pass, with the real program.

Without network: a stand-in serves the providers' schemas, and mocks make up what Google would.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.deploy.terraform import cut_schema
from tests.deploy.terraform.deployed import OLDER_SCHEMA, ROOT, checked, terraform_or_skip

FOLDER = ROOT / "terraform"
older = pytest.mark.skipif(not OLDER_SCHEMA.exists(), reason="no schema of an older provider here")
VERSIONS = ["8.7.0", pytest.param("7.46.1", marks=older)]


def test_files_are_formatted() -> None:
    command = [terraform_or_skip(), "fmt", "-check", "-recursive", "-diff", str(FOLDER)]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_folder_is_valid(version: str) -> None:
    found = checked()[version]

    assert found.initialised.returncode == 0, found.initialised.stderr
    assert found.validated["diagnostics"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_run_passes(version: str) -> None:
    found = checked()[version]

    assert found.complaints == []
    assert set(found.runs.values()) == {"pass"}
    assert set(found.runs) == (runs() if version == "8.7.0" else {"whole"})


def test_every_validation_has_a_run_that_it_refuses() -> None:
    text = (FOLDER / "variables.tf").read_text()
    blocks = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL)
    refused = re.findall(
        r"expect_failures = \[var\.(\w+)\]", (FOLDER / "tests/variables.tftest.hcl").read_text()
    )

    short = {
        name: (body.count("validation {"), refused.count(name))
        for name, body in blocks
        if not 0 < body.count("validation {") <= refused.count(name)
    }

    assert short == {}


def test_every_variable_is_described_typed_and_never_null() -> None:
    text = (FOLDER / "variables.tf").read_text()
    blocks = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL)

    loose = [
        name
        for name, body in blocks
        for line in ("description = ", "type ", "nullable ")
        if f"\n  {line}" not in f"\n{body}"
    ]

    assert loose == []


def test_the_example_names_variables_that_exist_and_all_that_have_no_default() -> None:
    text = (FOLDER / "variables.tf").read_text()
    blocks = dict(re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL))
    example = (FOLDER / "terraform.tfvars.example").read_text()

    named = set(re.findall(r"^(?:# )?(\w+) +=", example, re.MULTILINE))

    assert named <= set(blocks)
    assert {name for name, body in blocks.items() if "\n  default " not in body} <= named


def test_the_committed_schema_holds_what_is_used_and_nothing_else() -> None:
    committed = json.loads(cut_schema.CUT.read_text())

    assert committed == cut_schema.cut(committed, cut_schema.used_types())
    for kind, types in cut_schema.used_types().items():
        assert types == {
            name for one in committed["provider_schemas"].values() for name in one.get(kind, {})
        }


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_program_fails_where_everything_has_to_be_checked(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="terraform is not installed"):
        terraform_or_skip()


def runs() -> set[str]:
    texts = [file.read_text() for file in (FOLDER / "tests").glob("*.tftest.hcl")]
    return set(re.findall(r'^run "(\w+)"', "\n".join(texts), re.MULTILINE))
