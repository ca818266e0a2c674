"""The real terraform on a copy of the tree, and what it says would stand.

In the copy, each file of code holds its own path: what Terraform packs where can be read off the
archives, and a run takes a third of the time that it takes with 300 KB of code in it.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.terraform.cut_schema import CUT, cut, used_types
from tests.deploy.terraform.schema_provider import serving

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
COMMITTED_SCHEMA = CUT
# The last 7.x, where the checkout lies beside it: too big to be committed twice.
OLDER_SCHEMA = ROOT.parent / "shared" / "terraform" / "provider-schema-7.46.1.json"
# A graph is drawn of a folder whose backend is there; the real one needs credentials.
LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'
WHOLE = "-filter=tests/whole.tftest.hcl"


@dataclass(frozen=True)
class Deployed:
    """Resources by type and key ("" for a single one), outputs by name, as after an apply."""

    resources: Mapping[str, Mapping[str, dict[str, Any]]]
    data: Mapping[str, Mapping[str, dict[str, Any]]]
    outputs: Mapping[str, Any]
    topology: Mapping[str, Any]
    waits: Mapping[str, set[str]]  # which resource is made after which, directly

    def of(self, kind: str, name: str | None = None) -> dict[str, dict[str, Any]]:
        """By key, of all resources of this type or of those called `name`. Where several are
        called differently, the key says which."""
        found = {
            address: values
            for address, values in self.resources.get(kind, {}).items()
            if name is None or address.partition("/")[0] == name
        }
        if len({address.partition("/")[0] for address in found}) > 1:
            return found
        return {address.partition("/")[2]: values for address, values in found.items()}

    def copy(self) -> Deployed:
        """One to break."""
        return copy.deepcopy(self)

    def waits_for(self, resource: str) -> set[str]:
        """Everything that is made before it."""
        before: set[str] = set()
        todo = [resource]
        while todo:
            for earlier in self.waits.get(todo.pop(), set()) - before:
                before.add(earlier)
                todo.append(earlier)
        return before

    def holder(self, identity: str) -> str:
        """Whose e-mail or `member` this is: `function/publish_post`, `tasks/`, or itself."""
        for address, account in self.resources["google_service_account"].items():
            if identity in (account["email"], account["member"]):
                return address
        return identity


@dataclass
class Checked:
    """What terraform made of the folder with one schema."""

    version: str
    initialised: subprocess.CompletedProcess[str]
    validated: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    topology: dict[str, Any] = field(default_factory=dict)
    waits: dict[str, set[str]] = field(default_factory=dict)

    def deployed(self) -> Deployed:
        resources: dict[str, dict[str, dict[str, Any]]] = {}
        data: dict[str, dict[str, dict[str, Any]]] = {}
        for one in self.state["root_module"]["resources"]:
            kinds = data if one["mode"] == "data" else resources
            address = f"{one['name']}/{one.get('index', '')}"
            kinds.setdefault(one["type"], {})[address] = one["values"]
        outputs = {k: v["value"] for k, v in self.state.get("outputs", {}).items()}
        return Deployed(resources, data, outputs, self.topology, self.waits)


def terraform_or_skip() -> str:
    """The program; its absence is a failure where everything has to be checked."""
    found = shutil.which("terraform")
    if found is None:
        sentence = "terraform is not installed: https://developer.hashicorp.com/terraform/install"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


def copy_tree(into: Path) -> Path:
    """`terraform/` as it is, and each file of code as a file that holds its own path."""
    shutil.copytree(
        ROOT / "terraform", into / "terraform", ignore=shutil.ignore_patterns(".*", "*.tfstate*")
    )
    for file in code_files():
        place = into / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(file))
    return into / "terraform"


def code_files() -> Iterator[Path]:
    for pattern in ("shared/**/*", "functions/**/*"):
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT)


@functools.cache
def checked() -> Mapping[str, Checked]:
    """Both schemas, or the committed one alone where the other is not at hand; once per run."""
    terraform = terraform_or_skip()
    schemas = {"8.7.0": COMMITTED_SCHEMA, "7.46.1": OLDER_SCHEMA}
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
        doing = {
            version: pool.submit(check, terraform, schema, Path(place) / version, version)
            for version, schema in schemas.items()
            if schema.exists()
        }
        return {version: done.result() for version, done in doing.items()}


def deployed() -> Deployed:
    """What stands after an apply, with the committed schema."""
    newest = checked()["8.7.0"]
    assert newest.state, newest.complaints
    return newest.deployed()


def check(terraform: str, schema: Path, into: Path, version: str) -> Checked:
    """init, validate and test, in a copy of its own. What variables refuse and change is not the
    provider's: it is tested with the newest one alone."""
    folder = copy_tree(into)
    cut_schema = into / "schema.json"
    cut_schema.write_text(json.dumps(cut(json.loads(schema.read_text()), used_types(folder))))
    filters = [f"-filter=tests/{file.name}" for file in sorted((folder / "tests").glob("*.hcl"))]
    filters.remove(WHOLE)
    with serving(cut_schema) as env:
        own = {"TF_DATA_DIR": str(into / "data"), "TF_IN_AUTOMATION": "1"}
        own["GOGC"] = "400"  # a fifth of its time is collecting garbage
        variables = os.environ | env | own

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [terraform, f"-chdir={folder}", *arguments]
            return subprocess.run(
                command, env=variables, capture_output=True, text=True, timeout=300
            )

        found = Checked(version, run("init", "-backend=false", "-input=false", "-no-color"))
        if found.initialised.returncode == 0:
            found.validated = json.loads(run("validate", "-json").stdout)
            if found.validated["valid"]:
                found.topology = json.loads((folder / "topology.json").read_text())
                # What would stand is half of the work to tell, and of interest once.
                _read(run("test", "-json", "-verbose", WHOLE).stdout, found)
                if schema == COMMITTED_SCHEMA:
                    _read(run("test", "-json", *filters).stdout, found)
        if found.state:
            (folder / "backend_override.tf").write_text(LOCAL_BACKEND)
            run("init", "-input=false", "-no-color")
            for later, earlier in re.findall(r'"([\w.]+)" -> "([\w.]+)"', run("graph").stdout):
                found.waits.setdefault(later, set()).add(earlier)
    return found


def _read(lines: str, into: Checked) -> None:
    for line in map(json.loads, lines.splitlines()):
        match line["type"]:
            case "test_run" if line["test_run"]["progress"] == "complete":
                into.runs[line["test_run"]["run"]] = line["test_run"]["status"]
            case "diagnostic" if line["diagnostic"]["severity"] == "error":
                said = line["diagnostic"]
                run = line.get("@testrun", "")
                into.complaints.append(f"{run}: {said['summary']}: {said['detail']}")
            case "test_state" if line.get("@testrun") == "whole":
                into.state = line["test_state"]
