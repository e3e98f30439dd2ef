"""Which lines of a text table are rows, and how their cells are separated.

A comment begins with ``#``, and so may a label: a line is a row where its cells are those of a row.
Quotation marks are read between commas and semicolons, as they hold a cell together there; between
blanks and tabs they are a token like another.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import mode

from geodapt.errors import InputError
from geodapt.probe.table_columns import is_number, is_wordy

HEAD = 50  # rows by which the content of a text file is recognised
MARKS = ("\t", ",", ";")
QUOTED = (",", ";")
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


@dataclass(frozen=True)
class TextRows:
    """The rows of a text table; ``head`` is the first of them, by line and cells."""

    path: Path
    delimiter: str | None
    """None: blanks, however many."""
    comments: list[int]
    """Lines that are left out."""
    hashed: list[int]
    """Lines that begin with ``#``, and are rows."""
    head: list[tuple[int, list[str]]]
    total: int

    @property
    def quoting(self) -> int:
        return csv.QUOTE_MINIMAL if self.delimiter in QUOTED else csv.QUOTE_NONE

    def each(self) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of each row."""
        left_out = set(self.comments)
        for number, text in _records(self.path, self.delimiter):
            if number not in left_out:
                yield number, _fields(text, self.delimiter, self.path)

    def notes(self) -> list[str]:
        """What is said of lines that begin with ``#``."""
        said = []
        if self.comments:
            said.append(f"left out as comments: {_listed(self.comments)}")
        if self.hashed:
            said.append(
                f"read as rows, as they have a row's cells, though they begin with #: "
                f"{_listed(self.hashed)}"
            )
        return said


class RowText(io.TextIOBase):
    """A table's text without its comments, to be read in pieces."""

    def __init__(self, rows: TextRows) -> None:
        left_out = set(rows.comments)
        self._lines = (
            text for number, text in _records(rows.path, rows.delimiter) if number not in left_out
        )

    def read(self, size: int | None = -1, /) -> str:
        return "".join(islice(self._lines, 1000) if size and size > 0 else self._lines)


def find_rows(path: Path) -> TextRows:
    """Recognise the separator by the first rows, and the rows by theirs.

    Raises :class:`InputError` where two separators are as likely, for decimal commas, for rows
    between two stray quotation marks, and for no text.
    """
    try:
        first = _plain(path)
        delimiter = _delimiter(path, first)
        shape = _shape([_fields(line, delimiter, path) for line in first])
        comments: list[int] = []
        hashed: list[int] = []
        head: list[tuple[int, list[str]]] = []
        total = 0
        for number, text in _records(path, delimiter):
            if text.lstrip().startswith("#"):
                if shape.is_comment(_fields(text, delimiter, path)):
                    comments.append(number)
                    continue
                hashed.append(number)
            elif "\n" in text[:-2] and shape.swallows(_fields(text, delimiter, path), delimiter):
                raise InputError(
                    f"{path}, line {number}: a quotation mark opens a cell that holds numbers of "
                    "the table; double the mark and set the cell between two more, or leave it out"
                )
            total += 1
            if len(head) < HEAD:
                head.append((number, _fields(text, delimiter, path)))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}") from error
    return TextRows(path, delimiter, comments, hashed, head, total)


@dataclass(frozen=True)
class _Shape:
    """What the cells of a row are like."""

    width: int
    numeric: list[int]
    """Columns of numbers, but for the first, where there may be words among them."""
    counted: bool
    """The first is of numbers, too."""

    def is_comment(self, cells: list[str]) -> bool:
        """Whether a line that begins with ``#`` is no row.

        It is a row where it has as many cells, more than one, and numbers where rows do; but with a
        number after the ``#``, in a column of numbers, it is a row that was commented out.
        """
        if len(cells) < 2 or len(cells) != self.width:
            return True
        if not all(is_number(cells[i]) for i in self.numeric):
            return True
        return self.counted and is_number(cells[0].lstrip("# "))

    def swallows(self, cells: list[str], delimiter: str | None) -> bool:
        """Whether a cell of several lines holds the end of its first row, or the start of its last.

        So it does between two quotation marks that are no pair.
        """
        numeric = [*([0] if self.counted else []), *self.numeric]
        for place, cell in enumerate(cells):
            if "\n" not in cell:
                continue
            lines = cell.split("\n")
            if place < self.width - 1:
                found = lines[0].split(delimiter)[1:]
                first, whole = place + 1, len(found) == self.width - 1 - place
            else:
                found = lines[-1].split(delimiter)[:-1]
                first, whole = 0, len(found) == place
            numbers = [found[i - first] for i in numeric if 0 <= i - first < len(found)]
            if whole and numbers and all(map(is_number, numbers)):
                return True
        return False


def _shape(rows: Sequence[list[str]]) -> _Shape:
    """The shape that most rows have."""
    width = mode(map(len, rows)) if rows else 0
    body = [row for row in rows[1:] or rows if len(row) == width]
    numeric = [i for i in range(1, width) if not is_wordy(body, i)]
    return _Shape(width, numeric, all(is_number(row[0]) for row in body))


def _plain(path: Path) -> list[str]:
    """The first lines that are no comment for certain; of a file without, those that may be."""
    plain: list[str] = []
    hashed: list[str] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                into = hashed if line.lstrip().startswith("#") else plain
                if len(into) < HEAD:
                    into.append(line)
            if len(plain) == HEAD:
                break
    return plain or hashed


def _records(path: Path, delimiter: str | None) -> Iterator[tuple[int, str]]:
    """First line and text of each row or comment, which a quoted line break does not end."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        number = 0
        for line in file:
            taken = [line]
            if delimiter in QUOTED and '"' in line and not line.lstrip().startswith("#"):
                rest = (taken.append(more) or more for more in file)  # type: ignore[func-returns-value]
                _first_row(chain(taken[:1], rest), delimiter, path)
            if line.strip():
                yield number + 1, "".join(taken)
            number += len(taken)


def _fields(text: str, delimiter: str | None, path: Path) -> list[str]:
    if delimiter not in QUOTED:
        text = text.rstrip("\r\n")  # as pandas, which takes no other blanks for such
        return text.split(delimiter) if delimiter else re.split(r"[ \t]+", text.strip(" \t"))
    return _first_row(io.StringIO(text, newline=""), delimiter, path)


def _first_row(lines: Iterator[str], delimiter: str | None, path: Path) -> list[str]:
    first = next(lines)
    try:
        return next(csv.reader(chain([first], lines), delimiter=delimiter or ","))
    except csv.Error as error:
        raise InputError(
            f"{path}: a line that begins with {first[:40]!r} cannot be read: {error}; a "
            "quotation mark may be open there"
        ) from error


def _delimiter(path: Path, lines: Sequence[str]) -> str | None:
    """What separates the cells: the mark that leaves most numbers, best in rows of one length."""
    text = "".join(lines)
    found = [mark for mark in MARKS if mark in text]
    if not found:
        return None
    rows = {mark: [_fields(line, mark, path) for line in lines] for mark in (*found, None)}
    numbers = {
        mark: sum(is_number(cell) for row in cells for cell in row) for mark, cells in rows.items()
    }
    for mark, cells in rows.items() if "," in found else ():
        if mark != "," and (cell := _decimal_comma(cells)):
            raise InputError(
                f"{path}: {cell!r} may be a number with a decimal comma, or two cells; write "
                "numbers with a point"
            )
    even = {mark: _even(rows[mark]) for mark in found}
    likely = {mark: (even[mark] and numbers[mark] > 0, numbers[mark], even[mark]) for mark in found}
    best = max(found, key=likely.__getitem__)
    if numbers[best] and sum(likely[mark] == likely[best] for mark in found) > 1:
        raise InputError(
            f"{path}: its cells may be separated by any of {', '.join(map(repr, found))}; leave "
            "one in the file"
        )
    if _even(rows[None]) and numbers[None] > numbers[best] and not even[best]:
        return None
    return best


def _even(rows: Sequence[Sequence[str]]) -> bool:
    """Whether all rows have as many cells, and more than one."""
    return len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows)


def _decimal_comma(rows: Sequence[Sequence[str]]) -> str | None:
    """A cell of a column in which, below a header, all are numbers and some have such a comma."""
    body = rows[1:] or rows
    if not _even(body):
        return None
    for column in zip(*body, strict=True):
        found = [cell for cell in column if DECIMAL_COMMA.fullmatch(cell)]
        if found and len(found) + sum(map(is_number, column)) == len(column):
            return found[0]
    return None


def _listed(lines: Sequence[int]) -> str:
    shown = ", ".join(f"{line:,}" for line in lines[:5])
    more = f" and {len(lines) - 5:,} more" if len(lines) > 5 else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"
