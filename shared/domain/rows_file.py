"""The rows of a CSV or JSON Lines file, from its bytes: block by block, never the file as a whole.

What is wrong with the file itself, not with one row, is a `FileFaultError`: nothing of such a file
is taken in. That is an encoding that is none, a row without end, a file that breaks off in the
middle of one. The reader can begin at the offset of any row, so that the next attempt goes on where
the last one stood.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.domain.records import Value
from shared.domain.rows import COLUMNS, REPORTED, REQUIRED, undone

RECORD_BYTES = 512 * 1024  # of one row; a text of 100,000 characters fits in any script
HEAD_BYTES = RECORD_BYTES + 1024  # enough to see the first row, or that it has no end
DELIMITERS = ",;\t|"

csv.field_size_limit(RECORD_BYTES)  # the module's own limit lies below the longest text


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


class Fault(Value):
    """What is wrong with a file: where, as far as that is known, a stable code and a sentence."""

    row: int | None = None
    column: str | None = None
    code: str
    reason: str


class FileFaultError(Exception):
    def __init__(
        self, code: str, reason: str, *, row: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(reason)
        self.fault = Fault(row=row, column=column, code=code, reason=reason)


class Shape(Value):
    """How a file is to be read. `columns` are its header's, "" for one without a name; `begins` is
    the offset of the first row, which is number `first_row` as a spreadsheet counts."""

    format: Format
    encoding: str
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    begins: int = 0
    first_row: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stands in the file: its cells, or its line of JSON. `ends` is the offset
    behind it."""

    number: int
    cells: tuple[str, ...]
    ends: int


def shape(head: bytes, format: Format, *, whole: bool) -> Shape:
    """How a file begins. `head` is its first `HEAD_BYTES` bytes, or all of it (`whole`)."""
    encoding, begins = _encoding(head)
    if not head[begins:].strip(b"\r\n\t \0"):
        raise FileFaultError("empty", "The file is empty.")
    if format is Format.JSONL:
        return Shape(format=format, encoding=encoding, begins=begins)
    lines = _Lines(iter([head[begins:]]), encoding, begins, last_is_cut=not whole)
    lines.row = 1
    first = next(lines, "")
    delimiter = _delimiter(first)
    try:
        names = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise FileFaultError("not_csv", f"The header is not CSV: {error}.", row=1) from None
    columns = tuple(_column(name, index) for index, name in enumerate(names))
    _check(columns)
    return Shape(
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        columns=columns,
        begins=lines.offset,
        first_row=2,
    )


def _encoding(head: bytes) -> tuple[str, int]:
    """The encoding, and how many bytes of mark come before the text."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        sentence = "The file is UTF-32. Save it as UTF-8."
        raise FileFaultError("encoding_unknown", sentence, row=1)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8", 3
    if head.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le", 2
    if head.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be", 2
    # A header and JSON begin with ASCII: in UTF-16 every other byte of it is zero.
    if head[1:2] == b"\0" and head[:1] != b"\0":
        return "utf-16-le", 0
    if head[:1] == b"\0" and head[1:2] not in (b"\0", b""):
        return "utf-16-be", 0
    return "utf-8", 0


def _delimiter(header: str) -> str:
    try:
        return csv.Sniffer().sniff(header, delimiters=DELIMITERS).delimiter
    except csv.Error:
        return max(DELIMITERS, key=header.count)  # one column, or names that puzzle the sniffer


_NAMES = {name.lower(): name for name in (*COLUMNS, *REPORTED)}


def _column(name: str, index: int) -> str:
    """A known column, whatever way its name is written."""
    plain = undone(name).strip().lower().replace(" ", "").replace("_", "").replace("-", "")
    if not plain:
        return ""
    if plain not in _NAMES:
        known = ", ".join(COLUMNS)
        sentence = f"The column {name.strip()[:40]!r} is not one of {known}."
        raise FileFaultError("column_unknown", sentence, row=1, column=name.strip()[:100])
    return _NAMES[plain]


def _check(columns: tuple[str, ...]) -> None:
    named = [name for name in columns if name]
    for name in named:
        if named.count(name) > 1:
            sentence = f"The column {name} is there twice."
            raise FileFaultError("column_repeated", sentence, row=1, column=name)
    for name in REQUIRED:
        if name not in named:
            sentence = f"There is no column {name}. The first row must name the columns."
            raise FileFaultError("column_missing", sentence, row=1, column=name)


class _Lines:
    """Lines with their ends. `offset` is the byte behind the last one given."""

    def __init__(
        self, blocks: Iterator[bytes], encoding: str, offset: int, *, last_is_cut: bool = False
    ) -> None:
        self.offset = offset
        self.row = 0
        self.columns: tuple[str, ...] = ()
        self.delimiter = ","
        self.unfinished = False  # the last line given has no end
        self._blocks = blocks
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._ready: deque[str] = deque()
        self._rest = ""
        self._ended = False
        self._last_is_cut = last_is_cut
        self._fault: FileFaultError | None = None
        self._begun: list[str] = []  # lines of the row in work
        self._begun_bytes = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        while not self._ready:
            if self._fault is not None:
                raise self._located(self._fault)
            if self._begun_bytes + len(self._rest) > RECORD_BYTES:
                raise self._endless()
            if self._ended:
                return self._last()
            self._take(next(self._blocks, b""))
        return self._given(self._ready.popleft())

    def done(self) -> None:
        """The row in work is whole."""
        self._begun.clear()
        self._begun_bytes = 0

    def _last(self) -> str:
        if not self._rest:
            raise StopIteration
        if self._last_is_cut:
            raise self._endless()
        line, self._rest = self._rest, ""
        self.unfinished = True
        return self._given(line)

    def _given(self, line: str) -> str:
        size = len(line) if line.isascii() else len(line.encode("utf-8"))
        if self._encoding != "utf-8":
            size = len(line.encode(self._encoding))
        self.offset += size
        self._begun_bytes += size
        self._begun.append(line)
        if self._begun_bytes > RECORD_BYTES:
            raise self._endless()
        if "\0" in line:
            self._begun[-1] = line.partition("\0")[0]
            sentence = "There is a zero byte: this is not a text file."
            raise self._located(FileFaultError("not_text", sentence))
        return line

    def _take(self, block: bytes) -> None:
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=self._ended and not self._last_is_cut)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode(self._encoding)
            self._fault = self._undecodable(error)
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        self._ready.extend(line + "\n" for line in lines)

    def _undecodable(self, error: UnicodeDecodeError) -> FileFaultError:
        if self._ended:
            sentence = "The file ends in the middle of a character: it is cut off."
            return FileFaultError("truncated", sentence)
        name = "UTF-8" if self._encoding == "utf-8" else "UTF-16"
        byte = error.object[error.start]
        sentence = f"The byte 0x{byte:02x} is not {name}. Save the file as UTF-8."
        return FileFaultError("encoding_wrong", sentence)

    def _endless(self) -> FileFaultError:
        quoted = "".join(self._begun).count('"') % 2 == 1
        hint = " A quote that is opened and never closed looks like this." if quoted else ""
        sentence = f"The row is longer than {RECORD_BYTES} bytes.{hint}"
        return self._located(FileFaultError("row_too_long", sentence))

    def _located(self, error: FileFaultError) -> FileFaultError:
        """Row and column in which the reader stands."""
        fault = error.fault
        return FileFaultError(fault.code, fault.reason, row=self.row, column=self.column())

    def column(self) -> str | None:
        begun = "".join([*self._begun, self._rest])[: RECORD_BYTES // 2]
        try:
            cells = list(csv.reader(begun.splitlines(True), delimiter=self.delimiter))[-1]
        except (csv.Error, IndexError):
            return None
        return self.named(len(cells))

    def named(self, cells: int) -> str | None:
        """The column that the last of so many cells stands in."""
        index = min(max(cells, 1), len(self.columns)) - 1
        return (self.columns[index] or None) if self.columns else None


def records(blocks: Iterator[bytes], shape: Shape, *, offset: int, number: int) -> Iterator[Record]:
    """The rows from `offset` on, of which the first one has this number. Empty rows are counted
    and not given."""
    lines = _Lines(blocks, shape.encoding, offset)
    lines.row, lines.columns, lines.delimiter = number, shape.columns, shape.delimiter
    rows = _json_rows(lines) if shape.format is Format.JSONL else _csv_rows(lines, shape)
    for cells in rows:
        lines.done()
        if any(cell.strip() for cell in cells):
            yield Record(lines.row, cells, lines.offset)
        lines.row += 1


def _json_rows(lines: _Lines) -> Iterator[tuple[str, ...]]:
    for line in lines:
        if lines.unfinished and line.strip() and not _is_json(line):
            raise _cut_off(lines.row)
        yield (line.rstrip("\r\n"),)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _csv_rows(lines: _Lines, shape: Shape) -> Iterator[tuple[str, ...]]:
    reader = csv.reader(lines, delimiter=shape.delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                why = "a quote is opened and never closed"
                raise _cut_off(lines.row, why, lines.column()) from None
            what = str(error).partition(" - ")[0]  # the rest is advice to programmers
            sentence = f"The row is not CSV: {what}."
            raise FileFaultError("not_csv", sentence, row=lines.row) from None
        if cells is None:
            return
        if lines.unfinished and 0 < len(cells) < len(shape.columns):
            why = f"it has {len(cells)} of {len(shape.columns)} columns"
            raise _cut_off(lines.row, why, lines.named(len(cells)))
        yield tuple(cells)


def _cut_off(
    row: int, why: str = "its JSON breaks off", column: str | None = None
) -> FileFaultError:
    sentence = f"The file ends in the middle of row {row}: {why}."
    return FileFaultError("truncated", sentence, row=row, column=column)


def named(record_cells: tuple[str, ...], shape: Shape) -> dict[str, Any] | str:
    """The cells by column name, or a sentence about a row that does not fit its header."""
    if shape.format is Format.JSONL:
        return _object(record_cells[0])
    surplus = [cell for cell in record_cells[len(shape.columns) :] if cell.strip()]
    if surplus or len(record_cells) < len(shape.columns):
        return (
            f"The row has {len(record_cells)} columns, the header has {len(shape.columns)}. "
            "A text with the delimiter in it needs quotes."
        )
    pairs = zip(shape.columns, record_cells, strict=False)
    return {name: undone(cell) or None for name, cell in pairs if name}


def _object(line: str) -> dict[str, Any] | str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        return f"The line is not JSON{where}."
    if not isinstance(found, dict):
        return "The line is not a JSON object."
    unknown = sorted(set(found) - set(COLUMNS) - set(REPORTED))
    if unknown:
        return f"{unknown[0][:40]!r} is not one of {', '.join(COLUMNS)}."
    return found
