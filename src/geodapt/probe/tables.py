"""Files of numbers or edges, read with clear errors about what is wrong in them."""

import math
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from geodapt.data.edge_files import read_edges
from geodapt.errors import InputError
from geodapt.files import PICKLES, read_tensors
from geodapt.paths import regular
from geodapt.probe.arrays import must_fit, read_npy, read_safetensors
from geodapt.probe.table_columns import Choice, Columns, choose, has_header, is_number
from geodapt.probe.table_rows import QUOTED, RowText, TextRows, find_rows

SUFFIXES = {".npy", ".safetensors", ".csv", ".tsv", ".txt", ".edges"}
NUMBERS, EDGES = 4, 70  # bytes of memory that a byte of such text takes, paths of a graph included


@dataclass(frozen=True)
class Table:
    """A file's content: ``numbers`` with labels, or ``edges``."""

    kind: str
    numbers: np.ndarray | None = None
    labels: list[str] | None = None
    edges: list[tuple[str, str]] | None = None
    notes: tuple[str, ...] = ()  # how the file was read


def read_table(
    path: Path,
    kind: str | None = None,
    tensor: str | None = None,
    choice: Choice = Choice(),  # noqa: B008  (frozen)
) -> Table:
    """Read a file; without ``kind``, decide what it holds.

    A square matrix with a zero diagonal holds distances; rows of two words hold edges; other
    numbers are vectors, with a column of words taken for labels. ``choice`` is of a text table.
    """
    if choice.any and path.suffix in {".npy", ".safetensors", *PICKLES}:
        raise InputError(
            f"{path} is no text table; --columns, --drop, --labels and --header are for .csv, "
            ".tsv and .txt"
        )
    if path.suffix in PICKLES:
        read_tensors(path)  # says why pickles are refused
    regular(path)
    if path.suffix == ".npy":
        return _numbers(read_npy(path), None, kind)
    if path.suffix == ".safetensors":
        return _numbers(read_safetensors(path, tensor), None, kind)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is of no known kind; expected {', '.join(sorted(SUFFIXES))}, or the name or "
            "folder of a model"
        )
    return _read_text(path, kind, choice)


def _numbers(numbers: np.ndarray, labels: list[str] | None, kind: str | None) -> Table:
    square = numbers.ndim == 2 and numbers.shape[0] == numbers.shape[1]
    if kind is None:
        kind = "distances" if square and not np.any(np.diagonal(numbers)) else "vectors"
    if kind == "edges":
        if numbers.ndim != 2 or numbers.shape[1] != 2:
            raise InputError(f"edges are rows of two nodes; this has the shape {numbers.shape}")
        return Table("edges", edges=[(str(a), str(b)) for a, b in numbers.tolist()])
    return Table(kind, numbers, labels)


def _read_text(path: Path, kind: str | None, choice: Choice) -> Table:
    if kind == "edges":
        return _read_edges(path)
    found = find_rows(path)
    if not found.head:
        raise InputError(f"{path} is empty")
    rows = [row for _, row in found.head]
    if kind is None and not choice.any and _looks_like_edges(rows):
        return _read_edges(path)
    must_fit(str(path), NUMBERS * path.stat().st_size, "save it as .npy, of which no copy is made")
    named = has_header(str(path), rows, found.total, choice.header)
    names = [field.strip() for field in rows[0]] if named else []
    if named and found.delimiter not in QUOTED:  # marks about names that R writes
        names = [name[1:-1] if re.fullmatch('".+"', name) else name for name in names]
    rows = rows[named:]
    if not rows:
        raise InputError(f"{path} holds a header and no row")
    names = names or [str(i + 1) for i in range(len(rows[0]))]
    columns = choose(str(path), names, rows, named, choice)
    texts = {*columns.left_out, *([] if columns.labels is None else [columns.labels])}
    asked = 0 in columns.kept and columns.automatic and columns.labels is None and len(names) > 1
    if asked:  # words may follow after numbers
        texts.add(0)
    types = ["category" if i in columns.left_out else str if i in texts else float
             for i in range(len(names))]  # fmt: skip
    frame = _frame(found, named, types, texts)
    by_name = columns.left_out if named and columns.automatic else []
    named_by = columns.labels if columns.labels is not None else next(iter(by_name), None)
    labels = None if named_by is None else frame[named_by].astype(str).tolist()
    if columns.labels is not None and choice.labels is None:
        _no_broken_numbers(path, frame[columns.labels], columns)
    if asked:
        labels = _labels_or_numbers(path, frame, columns) or labels
    kept = [i for i in columns.kept if i in frame]
    numbers = frame[kept].to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        _explain(found, named, len(names), texts - {0} if asked else texts)
    if columns.automatic and kind != "distances" and len(kept) != len(numbers):
        counted = [i for place, i in enumerate(kept) if _counting(numbers[:, place])]
        if counted and len(counted) < len(kept):
            numbers = numbers[:, [place for place, i in enumerate(kept) if i not in counted]]
            columns = replace(columns, left_out=sorted([*columns.left_out, *counted]))
            kept = [i for i in kept if i not in counted]
    table = _numbers(numbers, labels, kind)
    notes = _notes(table, columns, kept, numbers, named)
    return replace(table, notes=(*notes, *found.notes()))


def _read_edges(path: Path) -> Table:
    must_fit(str(path), EDGES * path.stat().st_size, "take a part of the graph")
    edges = read_edges(path)
    if not edges:
        raise InputError(f"{path} is empty: it has no edges")
    return Table("edges", edges=edges)


def _frame(found: TextRows, named: bool, types: list, texts: set[int]) -> pd.DataFrame:
    try:
        return pd.read_csv(
            RowText(found) if found.comments else found.path,
            sep=found.delimiter or r"\s+",
            header=0 if named else None,
            names=range(len(types)),
            index_col=False,
            dtype=dict(enumerate(types)),
            quoting=found.quoting,
            keep_default_na=False,  # a token may be called NA
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{found.path} is not text in UTF-8: {error}") from error
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        _explain(found, named, len(types), texts)
        raise InputError(f"{found.path} is not a readable table: {error}") from error


def _labels_or_numbers(path: Path, frame: pd.DataFrame, columns: Columns) -> list[str] | None:
    """The first column's words as labels, or nothing where all are numbers, which it then holds."""
    try:
        frame[0] = frame[0].astype(float)
    except ValueError:
        _no_broken_numbers(path, frame[0], columns)
        return frame.pop(0).tolist()
    return None


def _no_broken_numbers(path: Path, column: pd.Series, columns: Columns) -> None:
    """Refuse a column of numbers that one bad cell would turn into a column of labels."""
    good = column.map(is_number)
    if good.sum() >= max(1, len(column) / 2) and not good.all():
        row = int((~good).to_numpy().argmax())
        name = columns.name(int(str(column.name)))
        raise InputError(
            f"{path}: {name} holds numbers but for {len(good) - good.sum():,} of {len(good):,} "
            f"cells, the first of them {column.iloc[row]!r:.60} in row {row + 1}; correct it, or "
            f"say --labels {columns.names[int(str(column.name))] or 1} if the column names the rows"
        )


def _counting(column: np.ndarray) -> bool:
    """Whether whole numbers rise in steps of one, as a column that counts the rows does."""
    if len(column) < 4 or column[0] != round(column[0]):
        return False
    steps = np.diff(column)
    return bool(steps[0] == round(steps[0]) != 0 and (steps == steps[0]).all())


def _notes(
    table: Table, columns: Columns, kept: list[int], numbers: np.ndarray, named: bool
) -> tuple[str, ...]:
    """How the columns were read, and what else might be meant."""
    said = f"{len(numbers):,} rows x {numbers.shape[1]:,} columns"
    said += "; the first line holds their names" if named else "; no header"
    if table.labels is not None and columns.labels is not None:
        said += f"; labels: {columns.name(columns.labels)}"
    if columns.left_out:
        said += f"; left out: {', '.join(columns.name(i) for i in columns.left_out)}"
    notes = [said]
    if columns.automatic and table.kind == "vectors" and numbers.shape[1] > 1:
        whole = (numbers == np.round(numbers)).all(0)
        if not whole.all():
            for place in np.flatnonzero(whole):
                values = len(np.unique(numbers[:, place]))
                if values > 1 and (values <= 20 or values == len(numbers)):
                    name = columns.name(kept[place])
                    notes.append(
                        f"{name} holds {values:,} different whole numbers, the other columns "
                        f"fractions: if it is a label, leave it out with --drop {name.split()[-1]}"
                    )
    return tuple(notes)


def _explain(found: TextRows, named: bool, width: int, texts: set[int]) -> None:
    """Raise :class:`InputError` for the first line that is not like the others."""
    for number, row in islice(found.each(), int(named), None):
        where = f"{found.path}, line {number}"
        if len(row) != width:
            raise InputError(f"{where}: {len(row)} fields; the first row has {width}")
        for place, field in enumerate(row):
            if place in texts:
                continue
            if not is_number(field):
                raise InputError(
                    f"{where}: '{field}' is not a number; correct it, or leave column {place + 1} "
                    f"out with --drop {place + 1}"
                )
            if not math.isfinite(float(field)):
                raise InputError(f"{where}: {field.strip()}; leave the row out")


def _looks_like_edges(rows: list[list[str]]) -> bool:
    """Two fields a row, and the second is no number (two numbers are a vector of the plane)."""
    return len(rows[0]) == 2 and not any(
        is_number(field) or not field.strip() for row in rows[1:] or rows for field in row[1:]
    )
