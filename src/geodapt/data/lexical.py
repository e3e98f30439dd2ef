"""Pairs of words, scored by how much one is a kind of the other: HyperLex, and files like it."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from geodapt.data.text_files import existing, lines
from geodapt.errors import InputError

SPECIFIC, GENERAL, SCORE = (
    ("WORD1", "hyponym", "specific"),
    ("WORD2", "hypernym", "general"),
    ("AVG_SCORE", "score", "rating"),
)


@dataclass(frozen=True)
class LexicalPair:
    """How much people say that ``specific`` is a kind of ``general``."""

    specific: str
    general: str
    score: float


def load_lexical(path: str | Path) -> list[LexicalPair]:
    """Read HyperLex's own file, or any with a header and columns specific, general, score.

    Cells are separated by tabs, commas, or as in HyperLex by spaces, as the header's are; between
    commas, quotation marks hold a cell together. Raises :class:`InputError`
    with file and line for a missing column, a row of too few cells, or between tabs and commas too
    many, an empty word, and a score that is no number.
    """
    file = existing(path)
    pairs: list[LexicalPair] = []
    columns: list[int] = []
    mark, width = None, 0
    for number, line in lines(file):
        if not line.strip():
            continue
        if not columns:
            mark = next((mark for mark in ("\t", ",") if mark in line), None)
        cells = _cells(line, mark, f"{file}, line {number}")
        if not columns:
            width = len(cells)
            columns = [_column(file, cells, names) for names in (SPECIFIC, GENERAL, SCORE)]
            continue
        fits = len(cells) == width if mark else len(cells) > max(columns)
        if not fits or not all(cells[column] for column in columns):
            raise InputError(
                f"{file}, line {number}: expected two words and a score, found '{line[:80]}'"
            )
        specific, general, score = (cells[column] for column in columns)
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{file}, line {number}: the score '{score}' is not a number")
        pairs.append(LexicalPair(specific, general, value))
    if len(pairs) < 2:
        raise InputError(f"{file} has {len(pairs)} pairs; a correlation needs at least two")
    return pairs


def _cells(line: str, mark: str | None, place: str) -> list[str]:
    try:
        cells = next(csv.reader([line], strict=True)) if mark == "," else line.split(mark)
    except csv.Error as error:
        raise InputError(f"{place}: cannot be read: {error}") from error
    return [cell.strip() for cell in cells]


def _column(file: Path, header: list[str], names: tuple[str, ...]) -> int:
    lowered = [cell.lower() for cell in header]
    for name in names:
        if name.lower() in lowered:
            return lowered.index(name.lower())
    raise InputError(
        f"{file}: no column {' or '.join(names)} in its first line; it has {', '.join(header)}"
    )
