"""What `demo` and `up` print: lines that appear one by one, in columns, with little colour.

Colour only on a terminal, and none where NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TextIO

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Terminal:
    """Prints whole lines from any thread. A passing note is wiped by what comes next; where the
    output is no terminal it is a line beside it, one in `every` seconds."""

    def __init__(
        self, out: TextIO | None = None, beside: TextIO | None = None, every: float = 5.0
    ) -> None:
        self._out = out or sys.stdout
        self._beside = beside or sys.stderr
        self._every = every
        self._waiting = ""  # the note to be told when the time for another one has come
        self._rests = False
        self.lively = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self.lively and not os.environ.get("NO_COLOR")
        self._noted = False
        self._lock = threading.Lock()

    def say(self, line: str = "") -> None:
        with self._lock:
            self._wipe()
            self._waiting = ""
            self._out.write(line.rstrip() + "\n")
            self._out.flush()

    def note(self, text: str) -> None:
        """Shown until the next line comes."""
        with self._lock:
            if not self.lively:
                self._waiting = text
                if not self._rests:
                    self._tell()
                return
            self._wipe()
            self._out.write(text)
            self._out.flush()
            self._noted = True

    def _tell(self) -> None:
        """The newest note; after that, none for a while."""
        self._beside.write(self._waiting + "\n")
        self._beside.flush()
        self._waiting, self._rests = "", True
        timer = threading.Timer(self._every, self._rested)
        timer.daemon = True  # nobody waits for a note
        timer.start()

    def _rested(self) -> None:
        with self._lock:
            self._rests = False
            if self._waiting:
                self._tell()

    def paint(self, text: str, style: str) -> str:
        return f"\033[{STYLES[style]}m{text}\033[0m" if self._colours and style else text

    def title(self, text: str) -> None:
        self.say()
        self.say(self.paint(text, "bold"))

    def table(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Columns as wide as what they hold, under their names."""
        names = list(rows[0])
        cells = [names, *([str(row[name]) for name in names] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
        for index, row in enumerate(cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  " + (self.paint(line.rstrip(), "dim") if index == 0 else line))

    def _wipe(self) -> None:
        if self._noted:
            self._out.write("\r\033[K")
            self._noted = False


def moment(at: datetime) -> str:
    """The time of day here, to the millisecond."""
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def short(identifier: str, chars: int = 9) -> str:
    return identifier if len(identifier) <= chars else identifier[:chars] + "…"


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
