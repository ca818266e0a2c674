"""The archives that Terraform makes: what is in them, and that it runs as it is deployed."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.terraform import checks
from tests.deploy.terraform.deployed import ROOT, Deployed, deployed
from tests.sandbox.children import Children, free_port
from tests.sandbox.functions import FunctionProcess, build, start_all

SERVED = ("maintain", "publish_post")  # one that Scheduler calls, one that Cloud Tasks calls
EXECUTABLE = 0o111
FIXED_TIME = (2049, 1, 1, 0, 0, 0)
SECRET = "s" * 43
SECRETS = {"TOKEN_KEYS": f"k1:{base64.b64encode(b'k' * 32).decode()}"}


@pytest.fixture(scope="module")
def stands() -> Deployed:
    return deployed()


@pytest.fixture(scope="module")
def running(
    stands: Deployed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, FunctionProcess]]:
    """Each function unpacked from its archive, with the environment that it is deployed with."""
    place = tmp_path_factory.mktemp("archives")
    children = Children()
    processes = {}
    for name in SERVED:
        with zipfile.ZipFile(archive(name, stands, place)) as packed:
            packed.extractall(place / name)
        function = stands.of("google_cloudfunctions2_function")[name]
        secrets = {key: SECRETS.get(key, SECRET) for key in checks.secrets_of(function)}
        processes[name] = FunctionProcess(
            name,
            place / name,
            free_port(),
            checks.settings_of(function) | secrets,
            threads=int(checks.settings_of(function)["THREADS"]),
            children=children,
        )
    start_all(processes.values())
    yield processes
    children.stop_all()


def archive(function: str, stands: Deployed, into: Path) -> Path:
    """The zip as `archive_file` writes it: sorted, one mode and one time for all files."""
    made = stands.data["archive_file"][f"source/{function}"]
    file = into / f"{function}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for one in sorted(made["source"], key=lambda one: one["filename"]):
            entry = zipfile.ZipInfo(one["filename"], FIXED_TIME)
            entry.external_attr = int(made["output_file_mode"], 8) << 16
            packed.writestr(entry, (ROOT / one["content"]).read_bytes())
    return file


def test_an_archive_holds_what_the_sandbox_runs(stands: Deployed, tmp_path: Path) -> None:
    for name in stands.of("google_cloudfunctions2_function"):
        laid_out = build(name, tmp_path)

        with zipfile.ZipFile(archive(name, stands, tmp_path)) as packed:
            inside = {entry: packed.read(entry) for entry in packed.namelist()}

        files = [file for file in laid_out.rglob("*") if file.is_file()]
        assert inside == {str(file.relative_to(laid_out)): file.read_bytes() for file in files}


def test_an_archive_holds_no_tests_no_tools_and_nothing_executable(
    stands: Deployed, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive("publish_post", stands, tmp_path)) as packed:
        entries = packed.infolist()

    rooms = {Path(entry.filename).parts[0] for entry in entries}
    assert rooms == {"main.py", "requirements.txt", "shared"}
    assert not [entry for entry in entries if entry.external_attr >> 16 & EXECUTABLE]


@pytest.mark.parametrize(
    ("function", "caller", "path"),
    [("maintain", "scheduler/", "/sweep"), ("publish_post", "tasks/", "/")],
)
def test_a_function_runs_from_its_archive_and_knows_its_callers(
    running: dict[str, FunctionProcess], stands: Deployed, function: str, caller: str, path: str
) -> None:
    url = f"http://127.0.0.1:{running[function].port}{path}"
    email = stands.resources["google_service_account"][caller]["email"]
    audience = stands.outputs["function_urls"][function]

    nobody = httpx.get(url)
    stranger = httpx.get(url, headers=headers("nobody@example.com", audience))
    elsewhere = httpx.get(url, headers=headers(email, f"{audience}-2"))
    known = httpx.get(url, headers=headers(email, audience))

    assert [nobody.status_code, stranger.status_code, elsewhere.status_code] == [401, 403, 401]
    assert known.status_code == 405  # it was let in: the route takes POST alone
    assert known.json()["detail"] == f"{path} takes POST."


def headers(email: str, audience: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {checks.handed_on(email, audience)}",
        "X-Webhook-Secret": SECRET,
    }
