"""`make demo` and `make up` as a newcomer meets them: what they say, and that nothing stays."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pip
import pytest

from tests.sandbox.terminal import Terminal
from tools import set_up

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 90.0
GUARD_SECONDS = 1.0
GONE_WITHIN_SECONDS = 5.0
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".build")
NO_NETWORK = {
    "PYTHON": sys.executable,
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_FIND_LINKS": "",
}
SLOW = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")


class Run:
    """A program in a session of its own, as in a terminal, writing under `temporary` alone."""

    def __init__(self, command: list[str], folder: Path, temporary: Path) -> None:
        temporary.mkdir(parents=True)
        self.temporary = temporary
        self.output = temporary.with_suffix(".txt")
        environment = {**outside_make(), "TMPDIR": str(temporary)}
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < end, f"it did not come true; it said:\n{self.said}"
            time.sleep(0.02)

    def says(self, words: str) -> None:
        self.until(lambda: words in self.said)

    def ends(self, within: float = PATIENCE_SECONDS) -> int:
        return self.process.wait(within)

    def interrupt(self, signum: int = signal.SIGINT) -> None:
        """As a terminal does it: to the whole group in front."""
        os.killpg(self.process.pid, signum)

    def processes(self) -> dict[int, str]:
        """What runs on its behalf: command lines by process id."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.temporary).encode() in (proc / "environ").read_bytes():
                    found[int(proc.name)] = (proc / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return {pid: command for pid, command in found.items() if command}

    def kill(self, words: str) -> None:
        """SIGKILL to the oldest process whose command line holds these words."""
        matching = [pid for pid, command in self.processes().items() if words in command]
        os.kill(min(matching), signal.SIGKILL)

    def is_gone(self) -> bool:
        """Nothing is left, a moment after its end: the guard outlives it by one look."""
        end = time.monotonic() + GUARD_SECONDS
        while time.monotonic() < end:
            if not self.processes() and not list(self.temporary.iterdir()):
                return True
            time.sleep(0.02)
        print(f"left: {self.processes()} {list(self.temporary.iterdir())}")
        return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_SECONDS)


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(story: str) -> Run:
        command = [sys.executable, "-m", "tests.sandbox", story]
        runs.append(Run(command, ROOT, tmp_path / f"run-{len(runs)}"))
        return runs[-1]

    yield begin
    for run in runs:
        run.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the clone under a path with a space, set up."""
    copy = tmp_path / "my projects" / "jobs"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    venv = copy / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    installed = {"folder": str(venv), "runtime": set_up.pins("runtime")}
    (venv / "installed.json").write_text(json.dumps(installed))
    return copy


@SLOW
def test_demo_and_up_run_side_by_side_and_do_what_they_say(
    start: Start, checkout: Path, tmp_path: Path
) -> None:
    demo = Run(["make", "demo"], checkout, tmp_path / "demo")
    up = start("up")

    up.says("\nLog\n")
    up.says("failed ig_2207052")
    answers = [answer_of(line) for line in up.said.splitlines() if line.startswith("curl ")]
    up.says("success https://www.instagram.com/")
    code = demo.ends()
    up.kill("functions-framework")
    up.says("starting it again.")
    up.interrupt()
    up_code = up.ends(GONE_WITHIN_SECONDS)

    assert code == 0, demo.said
    assert lines_with("published in", demo.said) == 3
    assert lines_with("refused for good: ig_2207052", demo.said) == 1
    assert lines_with("2 of 3 platforms published", demo.said) == 1
    assert lines_with("3 of 3 platforms published", demo.said) == 1
    assert lines_with("(sealed, ", demo.said) == 3
    assert "\033" not in demo.said
    assert demo.is_gone()
    assert [answer["success"] for answer in answers] == [True] * 7
    assert answers[3]["message"] == "0 of 1 platforms published"
    assert up_code == 130
    assert up.said.endswith("\nup: interrupted; everything is stopped.\n")
    assert up.is_gone()


@SLOW
def test_an_interrupt_while_things_start_leaves_nothing(start: Start) -> None:
    demo = start("demo")

    demo.until(lambda: any("CloudFirestore" in one for one in demo.processes().values()))
    demo.interrupt(signal.SIGTERM)
    code = demo.ends(GONE_WITHIN_SECONDS)

    assert code == 143
    assert demo.said.endswith("\ndemo: interrupted; everything is stopped.\n")
    assert "Traceback" not in demo.said
    assert demo.is_gone()


@SLOW
def test_a_process_that_is_killed_ends_the_demo_with_a_sentence(start: Start) -> None:
    demo = start("demo")

    demo.says("scheduled")
    demo.kill("CloudFirestore")
    code = demo.ends(GONE_WITHIN_SECONDS)

    assert code == 1
    assert demo.said.splitlines()[-1] == (
        "demo: the Firestore emulator has ended by itself; everything is stopped."
    )
    assert demo.is_gone()


@SLOW
def test_a_demo_that_is_killed_leaves_no_process(start: Start) -> None:
    demo = start("demo")

    demo.until(lambda: any("functions-framework" in one for one in demo.processes().values()))
    demo.process.kill()
    demo.ends()

    demo.until(lambda: not demo.processes())


def test_what_the_machine_lacks_is_said_in_one_sentence(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    old = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18 && exit\nexit 1\n'
    (tools / "python3").write_text(old)
    (tools / "python3").chmod(0o755)
    no_java = {"PATH": str(tools)}
    no_venv = {"PYTHONPATH": str(tmp_path / "broken")}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ensurepip.py").write_text("raise ModuleNotFoundError(name='ensurepip')")
    fresh = small_checkout(tmp_path / "fresh")

    told = {
        "python": set_up_in(fresh, no_java),
        "java": set_up_in(fresh, no_java | {"PYTHON": sys.executable}),
        "venv": set_up_in(fresh, no_venv | {"PYTHON": sys.executable}),
        "demo": said_by([sys.executable, "-m", "tests.sandbox", "demo"], ROOT, no_java),
    }

    assert told["python"].startswith("Python 3.11 or newer is needed and python3 is Python 3.9.18:")
    assert told["java"].startswith("The Firestore emulator needs Java and there is none: `apt-get")
    assert "has no ensurepip" in told["venv"]
    assert "`apt-get install python3-venv` installs it" in told["venv"]
    assert told["demo"].splitlines()[-1].startswith("demo: The Firestore emulator needs Java")
    assert not any(text.count("\n") > 1 for name, text in told.items() if name != "demo")
    assert not any("Traceback" in text for text in told.values())
    assert not (fresh / ".venv").exists()


def test_without_a_network_a_first_set_up_says_so_at_once(tmp_path: Path) -> None:
    fresh = small_checkout(tmp_path, "certainly-not-cached==1.0\n")
    made_with_pip(fresh / ".venv")

    said = set_up_in(fresh, NO_NETWORK)

    assert said.splitlines()[-1].startswith("The package index does not answer, and a first set-up")


def test_a_half_made_environment_is_made_anew_even_by_two_at_once(tmp_path: Path) -> None:
    fresh = small_checkout(tmp_path)
    (fresh / ".venv" / "bin").mkdir(parents=True)
    (fresh / ".venv" / "unfinished").touch()
    (fresh / ".venv" / "bin" / "python").symlink_to("nowhere")
    command = ["tools/set-up", "runtime"]
    offline = outside_make() | NO_NETWORK  # nothing of making an environment needs one

    both = [
        subprocess.Popen(command, cwd=fresh, stdout=subprocess.PIPE, text=True, env=offline)
        for _ in range(2)
    ]
    said = [one.communicate()[0] for one in both]
    again = said_by(command, fresh, {})

    assert [one.returncode for one in both] == [0, 0]
    assert sorted(text.count("Setting up .venv") for text in said) == [0, 1]
    assert again == ""


def test_colour_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    on_a_screen = Terminal(Screen()).paint("published", "green")
    piped = Terminal(io.StringIO()).paint("published", "green")
    monkeypatch.setenv("NO_COLOR", "1")
    unwanted = Terminal(Screen()).paint("published", "green")

    assert (on_a_screen, piped, unwanted) == (
        "\033[32mpublished\033[0m",
        "published",
        "published",
    )


def test_who_waits_for_a_pipe_hears_of_it_now_and_then() -> None:
    out, beside = io.StringIO(), io.StringIO()
    piped = Terminal(out, beside, every=0.2)

    for done in range(5):
        piped.note(f"{done} of 5 …")
    at_once = beside.getvalue()
    until(lambda: beside.getvalue().count("\n") == 2)
    piped.note("5 of 5 …")
    piped.say("All done.")
    time.sleep(0.5)

    assert at_once == "0 of 5 …\n"
    assert beside.getvalue() == "0 of 5 …\n4 of 5 …\n"
    assert out.getvalue() == "All done.\n"


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_target_of_the_makefile_is_listed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", makefile, re.MULTILINE)

    listed = said_by(["make"], ROOT, {})

    assert [line.split()[1] for line in listed.splitlines()] == targets


def answer_of(line: str) -> dict[str, object]:
    """Run a line as it is printed, as a person's shell would."""
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(ran.stdout)
    return answer


def lines_with(words: str, text: str) -> int:
    return sum(words in line for line in text.splitlines())


def small_checkout(folder: Path, requirements: str = "# nothing\n") -> Path:
    """As much of the clone as setting up needs."""
    (folder / "tests" / "sandbox").mkdir(parents=True)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=LEFT_OUT)
    for name in ("__init__.py", "children.py", "firestore.py"):
        shutil.copy(ROOT / "tests" / "sandbox" / name, folder / "tests" / "sandbox" / name)
    (folder / "requirements.txt").write_text(requirements)
    return folder


def made_with_pip(environment: Path) -> None:
    """An empty environment that borrows pip, which takes 4 s of CPU to install into it."""
    venv.create(environment, symlinks=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "pip").symlink_to(Path(pip.__file__).parent)


def outside_make() -> dict[str, str]:
    """The environment without what a `make` around the tests tells the ones inside."""
    told = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "PYTHON"}
    return {name: text for name, text in os.environ.items() if name not in told}


def set_up_in(folder: Path, environment: Mapping[str, str]) -> str:
    return said_by(["tools/set-up", "runtime"], folder, environment)


def said_by(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """All that it says, errors too."""
    kept = {name: text for name, text in outside_make().items() if name != "JAVA_HOME"}
    ran = subprocess.run(
        command,
        cwd=folder,
        env=kept | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return ran.stdout
