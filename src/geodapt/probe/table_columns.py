"""Which line of a text table is a header, and which columns are coordinates.

A header read as a point, or a label read as a coordinate, changes every figure, and no figure shows
it. So what is recognised is reported, and where both readings are possible the user is asked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from geodapt.errors import InputError

# Names of columns that say which row it is or what it belongs to, and not where it lies.
NO_COORDINATE = re.compile(
    r"(.*[\s_.-])?(ids?|idx|index|labels?|targets?|class(es)?|category|cluster|group|species|key)"
    r"|words?|tokens?|names?|titles?|texts?"
    r"|unnamed: *\d+|",
    re.IGNORECASE,
)
FEW = 3  # columns up to which a first row of 0, 1, 2 over whole numbers can be a point


@dataclass(frozen=True)
class Choice:
    """What a user says about a text table: columns by name or by number from 1, or ``"2-5"``."""

    columns: Sequence[str] | None = None
    drop: Sequence[str] = ()
    labels: str | None = None
    header: bool | None = None

    @property
    def any(self) -> bool:
        return self != Choice()


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their place: coordinates, one of labels, and those left out."""

    names: list[str]
    kept: list[int]
    left_out: list[int]
    labels: int | None
    automatic: bool  # what is kept was not chosen by the user

    def name(self, place: int) -> str:
        return self.names[place] or f"column {place + 1}"


def has_header(source: str, rows: Sequence[Sequence[str]], total: int, said: bool | None) -> bool:
    """Whether the first of the rows holds names; ``total`` counts all rows of the file.

    It does where it has words above numbers, and where it counts 0, 1, 2, as pandas names columns.
    Raises :class:`InputError` where it can be either.
    """
    if said is not None or len(rows) < 2:
        return bool(said)
    first, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    columns = [i for i in range(len(first)) if not is_wordy(body, i)]
    numbers = [first[i] for i in columns if is_number(first[i])]
    words = [first[i] for i in columns if not is_number(first[i])]
    if not numbers:
        return True
    start = _counted_from(numbers)
    if start not in (0, 1):
        if words:
            raise InputError(
                f"{source}, line 1: '{words[0]}' is not a number and '{numbers[0]}' is one; say "
                "--header if the line holds the columns' names, else correct it"
            )
        if start is None or len(numbers) < FEW:
            return False
        raise InputError(
            f"{source}, line 1: {numbers[0]}, {numbers[1]} and so on may be the columns' names or "
            "a point; say --header or --no-header"
        )
    if words:
        return True
    if total == len(columns):
        return False  # with this row it is square: distances from the first of points in a row
    whole = all(re.fullmatch(r"\s*[+-]?\d+\s*", row[i]) for row in body for i in columns)
    if whole and len(columns) <= FEW:
        raise InputError(
            f"{source}, line 1: {', '.join(numbers)} may be the columns' names or a point; say "
            "--header or --no-header" + (", or --kind edges" if len(columns) == 2 else "")
        )
    return True


def choose(
    source: str, names: Sequence[str], rows: Sequence[Sequence[str]], named: bool, choice: Choice
) -> Columns:
    """The roles of the columns of which these are the first rows, without the header."""
    width = len(names)
    kept = list(range(width))
    if choice.columns is not None:
        kept = list(dict.fromkeys(i for ref in choice.columns for i in _find(source, ref, names)))
    dropped = {i for ref in choice.drop for i in _find(source, ref, names)}
    labels = None
    if choice.labels is not None:
        labels = _find(source, choice.labels, names)[0]
    else:
        wordy = [i for i in range(width) if i not in dropped and rows and is_wordy(rows, i)]
        if width > 1 and wordy and (choice.columns is None or wordy[0] in kept):
            labels = wordy[0]
    kept = [i for i in kept if i not in dropped and i != labels]
    if choice.columns is None and named:
        likely = [i for i in kept if not is_coordinate(names[i], names)]
        if len(likely) < len(kept):
            kept = [i for i in kept if i not in likely]
    if not kept:
        raise InputError(f"{source}: no column is left; choose with --columns")
    left_out = [i for i in range(width) if i not in kept and i != labels]
    return Columns(list(names), kept, left_out, labels, choice.columns is None)


def is_coordinate(name: str, names: Sequence[str]) -> bool:
    """Whether a column of this name, beside the others, can be one of the points' coordinates."""
    if name.strip().lower() == "y":  # what is to be predicted, or what follows x
        return any(other.strip().lower() == "x" for other in names) or len(names) == 1
    return NO_COORDINATE.fullmatch(name.strip()) is None


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_wordy(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column has cells, and each is a word: neither empty nor a number."""
    cells = [row[column] for row in rows if column < len(row)]
    return bool(cells) and not any(is_number(cell) or not cell.strip() for cell in cells)


def _counted_from(names: Sequence[str]) -> int | None:
    """The first of names that are whole numbers, each the next after the one before; else None."""
    if not all(re.fullmatch(r"\s*\d{1,9}\s*", name) for name in names):
        return None
    values = [int(name) for name in names]
    return values[0] if values == list(range(values[0], values[0] + len(values))) else None


def _find(source: str, reference: str, names: Sequence[str]) -> list[int]:
    """The places of a column's name, of its number from 1, or of a range of numbers."""
    reference = reference.strip()
    if reference in names:
        return [list(names).index(reference)]
    if found := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", reference):
        first = int(found[1])
        last = int(found[2] or first)
        if 1 <= first <= last <= len(names):
            return list(range(first - 1, last))
    known = ", ".join(name or "(no name)" for name in names[:20])
    raise InputError(
        f"{source} has no column '{reference}'; it has {len(names)}, by number from 1 or by name: "
        f"{known}"
    )
