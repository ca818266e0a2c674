"""How `demo` and `up` live and end: whatever ends them, nothing that they started stays.

The story is told in a thread; the main thread waits for its end, for a signal, and for a process
that ended by itself. Then every child is killed, the one folder that everything was written to is
removed, one line says why, and the process is gone, whatever the story was in the middle of. After
`kill -9` there is nobody left to do that: `children` has a guard for it, and the next start removes
the folder.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests.sandbox.children import SandboxError

if TYPE_CHECKING:
    from tests.sandbox.stack import Stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOKS_EVERY_SECONDS = 0.1
FOLDER = "tendsocial-"


class StoryError(Exception):
    """Something is not as it was told; one sentence says what."""


class Program:
    """What the main thread knows: the system to be stopped and watched, once there is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack: Stack | None = None
        self._watches = False
        self._first: Callable[[], None] | None = None
        self._ends: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def run(self, story: Callable[[Program], int]) -> NoReturn:
        """Tell the story and end the process with what it returns."""
        for signum in SIGNALS:
            signal.signal(signum, self._interrupted)
        _clear_leftovers()
        # Everything that is written, by us or by our children, lies in one folder.
        folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        threading.Thread(target=self._tell, args=(story,), name="story", daemon=True).start()
        code, sentence = self._wait()
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        if self._stack is not None:
            self._stack.children.close()
        with suppress(OSError):
            sys.stdout.flush()
        if sentence:
            with suppress(OSError):
                print(sentence, file=sys.stderr, flush=True)
        _remove(Path(folder))
        os._exit(code)  # threads of gRPC and of the story may be anywhere

    def start(self, stack: Stack, *, watch: bool = True) -> Stack:
        """Start the system; from then on a process of it that ends by itself ends the program."""
        self._stack = stack
        stack.start()
        self._watches = watch
        return stack

    def on_first_interrupt(self, act: Callable[[], None]) -> None:
        """Have the story end itself when it is asked to; asked again, everything ends at once."""
        self._first = act

    def end(self, code: int, sentence: str = "") -> None:
        """End now, from any thread; the first one to say so decides."""
        self._ends.put((code, sentence))

    def _interrupted(self, signum: int, _: object) -> None:
        if self._first is not None:
            act, self._first = self._first, None
            act()
            return
        self.end(128 + signum, f"\n{self.name}: interrupted; everything is stopped.")

    def _wait(self) -> tuple[int, str]:
        while True:
            with suppress(queue.Empty):
                return self._ends.get(timeout=LOOKS_EVERY_SECONDS)
            lost = self._stack.lost() if self._stack is not None and self._watches else ""
            if lost:
                return 1, f"{self.name}: {lost}; everything is stopped."

    def _tell(self, story: Callable[[Program], int]) -> None:
        try:
            self.end(story(self))
        except BrokenPipeError:
            self.end(128 + signal.SIGPIPE)  # whoever read what we print has gone
        except (StoryError, SandboxError) as error:
            self._fail(str(error))
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            self._fail(f"{type(error).__name__}: {error} ({where})")

    def _fail(self, why: str) -> None:
        """Say what is behind it: a process that ended by itself fails whoever talks to it."""
        time.sleep(2 * LOOKS_EVERY_SECONDS)
        self.end(1, f"{self.name}: {why}")


def _clear_leftovers() -> None:
    """Remove the folders of those that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        if pid.isdigit() and not _exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _remove(folder: Path) -> None:
    """Once more if need be: the story's thread may be writing to it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)
