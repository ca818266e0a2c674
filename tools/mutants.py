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
import time
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
        (
            "tests/behaviour/test_late.py::test_a_stale_attempt_does_not_settle_the_one_that_took_over",
        ),
    ),
    Mutant(
        "committing",
        "shared/domain/claims.py",
        "        if log.committing is not None:\n            return Moved(unknown(",
        "        if False:\n            return Moved(unknown(",
        (
            "tests/behaviour/test_crashes.py"
            "::test_a_crash_after_the_platform_accepted_where_nothing_can_be_read_stays_unknown",
        ),
    ),
    Mutant(
        "sendBy",
        "shared/platforms/driver.py",
        "if now() >= permit.send_by or time.monotonic() >= permit.send_by_monotonic:",
        "if False:",
        (
            "tests/behaviour/test_late.py"
            "::test_an_attempt_frozen_between_its_mark_and_the_call_does_not_send_when_it_wakes",
        ),
    ),
    Mutant(
        "the 5xx rule",
        "shared/platforms/driver.py",
        "return status is not None and (status in platform.refusals or 200 <= status < 300)",
        "return status is not None",
        (
            "tests/behaviour/test_unknown_outcome.py"
            "::test_where_nothing_can_be_looked_up_it_is_unknown_and_never_sent_again",
        ),
    ),
    Mutant(
        "the generation check",
        "shared/domain/claims.py",
        "if knock.generation is not None and knock.generation != log.generation:",
        "if False:",
        (
            "tests/behaviour/test_rescheduling.py"
            "::test_a_task_of_before_the_move_is_void_even_when_the_new_time_has_come",
        ),
    ),
    Mutant(
        "the dueAt check",
        "shared/domain/claims.py",
        "elif now < log.due_at - leases.EARLY:",
        "elif False:",
        (
            "tests/behaviour/test_once_only.py"
            "::test_a_task_that_comes_early_publishes_nothing_and_is_made_again",
        ),
    ),
    Mutant(
        "hops recorded first",
        "shared/domain/deliveries.py",
        "hop=log.hop + 1,",
        "hop=log.hop,",
        (
            "tests/behaviour/test_retries.py"
            "::test_three_errors_before_the_commit_and_then_success_publishes_with_four_attempts",
        ),
    ),
    Mutant(
        "the window of a native key",
        "shared/jobs/publish.py",
        "if not guarantee.earliest <= age <= guarantee.latest:",
        "if False:",
        ("tests/behaviour/test_windows.py::test_a_key_is_used_again_inside_its_window_alone",),
    ),
    Mutant(
        "evidence that belongs to one delivery (remoteIds)",
        "shared/store/deliveries.py",
        "return bool(owners - {log.id})",
        "return False",
        (
            "tests/behaviour/test_unknown_outcome.py"
            "::test_a_found_post_that_belongs_to_another_delivery_proves_nothing",
        ),
    ),
    Mutant(
        "tokenVersion",
        "shared/store/accounts.py",
        "if account.token_version != version or account.status not in statuses:",
        "if account.status not in statuses:",
        (
            "tests/behaviour/test_tokens.py"
            "::test_connecting_again_while_a_refresh_is_under_way_wins",
        ),
    ),
    Mutant(
        "the roll-up's last finisher",
        "shared/store/deliveries.py",
        "(written[1].transformed == 0 or _corrects(held.log, after))",
        "False",
        (
            "tests/behaviour/test_once_only.py"
            "::test_the_last_delivery_of_a_post_costs_six_round_trips_and_five_writes",
        ),
    ),
    Mutant(
        "the version of a file",
        "shared/storage/media.py",
        "int(item.version) if item.version else None",
        "None",
        (
            "tests/behaviour/test_videos.py"
            "::test_a_video_that_is_replaced_between_two_requests_is_never_posted",
        ),
    ),
    Mutant(
        "the sweep",
        "shared/jobs/sweep.py",
        "        if not overdue:\n",
        "        if True:\n",
        ("tests/behaviour/test_sweep.py::test_a_task_deleted_behind_our_back_is_made_again",),
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
    told = done.stdout.splitlines()
    failed = [line.split(" ")[1] for line in told if line.startswith("FAILED ")]
    if done.returncode and not failed:  # a system that does not start notices nothing
        sys.exit(f"{mutant.guard!r} could not be tried:\n" + "\n".join(told[-5:]))
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", help="guards to take away, by a part of their name")
    only = parser.parse_args().only
    wanted = [m for m in MUTANTS if not only or any(part in m.guard for part in only)]
    unnoticed = 0
    for mutant in wanted:
        started = time.monotonic()
        failed = killers(mutant)
        unnoticed += not failed
        seen = ", ".join(failed) or "NOBODY NOTICED"
        print(f"without {mutant.guard} ({time.monotonic() - started:.0f} s): {seen}", flush=True)
    print(f"{len(wanted) - unnoticed} of {len(wanted)} noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
