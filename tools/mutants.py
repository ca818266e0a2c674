"""Take one guard away at a time and show which test notices: `make mutants`.

A test that cannot fail proves nothing. Each entry names a guard of the protocol, the lines that
make it, what stands there without it, and tests that must fail then. The change is made in a copy;
the checkout is not touched. Exit code 1 when a guard could be removed unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    guard: str
    file: str
    lines: str
    instead: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "the guard on the log",
        "shared/store/deliveries.py",
        "difference(before, after), guard=guard)]",
        "difference(before, after))]",
        (
            "tests/behaviour/test_once_only.py::test_two_processes_that_read_the_same_record_post_once",
        ),
    ),
    Mutant(
        "the random owner",
        "shared/jobs/publish.py",
        "owner=fresh_id(),",
        'owner="worker",',
        ("tests/behaviour/test_late.py",),
    ),
    Mutant(
        "committing",
        "shared/domain/claims.py",
        "        if log.committing is not None:\n            return Moved(unknown(",
        "        if False:\n            return Moved(unknown(",
        ("tests/behaviour/test_crashes.py",),
    ),
    Mutant(
        "sendBy",
        "shared/platforms/driver.py",
        "if now() >= permit.send_by or time.monotonic() >= permit.send_by_monotonic:",
        "if False:",
        ("tests/behaviour/test_late.py::test_an_attempt_past_send_by_does_not_send",),
    ),
    Mutant(
        "the 5xx rule",
        "shared/platforms/driver.py",
        "return status is not None and (status in platform.refusals or 200 <= status < 300)",
        "return status is not None",
        ("tests/behaviour/test_unknown_outcome.py",),
    ),
    Mutant(
        "the generation check",
        "shared/domain/claims.py",
        "if knock.generation is not None and knock.generation != log.generation:",
        "if False:",
        ("tests/domain/test_claims.py", "tests/behaviour/test_rescheduling.py"),
    ),
    Mutant(
        "the dueAt check",
        "shared/domain/claims.py",
        "elif now < log.due_at - leases.EARLY:",
        "elif False:",
        ("tests/behaviour/test_once_only.py",),
    ),
    Mutant(
        "hops recorded first",
        "shared/domain/deliveries.py",
        "hop=log.hop + 1,",
        "hop=log.hop,",
        ("tests/behaviour/test_retries.py",),
    ),
    Mutant(
        "evidence that belongs to one delivery (remoteIds)",
        "shared/store/deliveries.py",
        "return bool(owners - {log.id})",
        "return False",
        ("tests/behaviour/test_reconcile.py::test_a_post_of_another_delivery_is_no_evidence",),
    ),
    Mutant(
        "tokenVersion",
        "shared/store/accounts.py",
        "if account.token_version != version or account.status not in statuses:",
        "if account.status not in statuses:",
        ("tests/behaviour/test_tokens.py",),
    ),
    Mutant(
        "the roll-up's last finisher",
        "shared/store/deliveries.py",
        "(written[1].transformed == 0 or _corrects(held.log, after))",
        "False",
        ("tests/behaviour/test_once_only.py",),
    ),
    Mutant(
        "the sweep",
        "shared/jobs/sweep.py",
        "        if not overdue:\n",
        "        if True:\n",
        ("tests/behaviour/test_sweep.py",),
    ),
)


def copy_into(folder: Path) -> None:
    """The files that git knows, and those it does not ignore, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def killers(mutant: Mutant) -> list[str]:
    """The tests that fail without the guard."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy_into(folder)
        place = folder / mutant.file
        text = place.read_text()
        if text.count(mutant.lines) != 1:
            sys.exit(
                f"{mutant.file} has changed: the lines of {mutant.guard!r} are not there once."
            )
        place.write_text(text.replace(mutant.lines, mutant.instead))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *mutant.tests],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    return [
        line.split(" ")[1]
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED ", "ERROR "))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", help="guards to take away, by a part of their name")
    only = parser.parse_args().only
    wanted = [m for m in MUTANTS if not only or any(part in m.guard for part in only)]
    unnoticed = 0
    for mutant in wanted:
        failed = killers(mutant)
        unnoticed += not failed
        print(f"without {mutant.guard}: {', '.join(failed) or 'NOBODY NOTICED'}", flush=True)
    print(f"{len(wanted) - unnoticed} of {len(wanted)} noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
