"""Files of numbers or edges, read with a clear word about what is wrong in them."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from geodapt.errors import InputError
from geodapt.files import PICKLES, read_tensors
from geodapt.paths import regular

SUFFIXES = {".npy", ".safetensors", ".csv", ".tsv", ".txt", ".edges"}
EDGE_NAMES = {"parent", "child", "source", "target", "from", "to"}  # a header over edges
HEAD = 50  # rows from which it is told what a text file holds
NUMBERS, EDGES = 4, 70  # bytes of memory that a byte of such text takes, paths of a graph included


@dataclass(frozen=True)
class Table:
    """A file's content: ``numbers`` with labels, or ``edges``."""

    kind: str
    numbers: np.ndarray | None = None
    labels: list[str] | None = None
    edges: list[tuple[str, str]] | None = None


def read(path: Path, kind: str | None = None, tensor: str | None = None) -> Table:
    """Read a file; without ``kind``, decide what it holds.

    A square matrix with a zero diagonal holds distances; rows of two words hold edges; other
    numbers are vectors, with a first column of words taken for labels.
    """
    if path.suffix in PICKLES:
        read_tensors(path)  # says why pickles are refused
    regular(path)
    if path.suffix == ".npy":
        return _numbers(_read_npy(path), None, kind)
    if path.suffix == ".safetensors":
        return _numbers(_read_safetensors(path, tensor), None, kind)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is of no known kind; expected {', '.join(sorted(SUFFIXES))}, or the name or "
            "folder of a model"
        )
    return _read_text(path, kind)


def _numbers(numbers: np.ndarray, labels: list[str] | None, kind: str | None) -> Table:
    square = numbers.ndim == 2 and numbers.shape[0] == numbers.shape[1]
    if kind is None:
        kind = "distances" if square and not np.any(np.diagonal(numbers)) else "vectors"
    if kind == "edges":
        if numbers.ndim != 2 or numbers.shape[1] != 2:
            raise InputError(f"edges are rows of two nodes; this has the shape {numbers.shape}")
        return Table("edges", edges=[(str(a), str(b)) for a, b in numbers.tolist()])
    return Table(kind, numbers, labels)


def _read_npy(path: Path) -> np.ndarray:
    try:
        numbers = np.load(path, mmap_mode="r", allow_pickle=False)  # rows are read as sampled
    except Exception as error:  # whatever numpy raises over a broken header
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable .npy file of numbers: {reason}") from error
    if not isinstance(numbers, np.ndarray):
        raise InputError(f"{path} holds several arrays (.npz); save the one to probe as .npy")
    if not np.issubdtype(numbers.dtype, np.number) or np.iscomplexobj(numbers):
        raise InputError(f"{path} holds {numbers.dtype}; expected real numbers")
    return numbers


def _read_safetensors(path: Path, tensor: str | None) -> np.ndarray:
    must_fit(str(path), 3 * path.stat().st_size, "save the matrix alone, as .npy")
    tensors = read_tensors(path)
    matrices = [name for name, value in tensors.items() if value.dim() == 2]
    name = tensor or (matrices[0] if len(matrices) == 1 else None)
    if name is None:
        raise InputError(
            f"{path} holds {len(matrices)} matrices; choose one with --tensor: "
            f"{', '.join(matrices[:10]) or '(there is none)'}"
        )
    if name not in tensors:
        raise InputError(f"{path} has no tensor '{name}'; it has {', '.join(list(tensors)[:10])}")
    return tensors[name].float().numpy()


def _read_text(path: Path, kind: str | None) -> Table:
    try:
        skipped, delimiter, head = _beginning(path)
        if not head:
            raise InputError(f"{path} is empty")
        edges = kind == "edges" or (kind is None and _looks_like_edges(head))
        size = path.stat().st_size
        if edges:
            must_fit(str(path), EDGES * size, "take a part of the graph")
            has_names = {field.strip().lower() for field in head[0][1]} <= EDGE_NAMES
        else:
            must_fit(str(path), NUMBERS * size, "save it as .npy, of which no copy is made")
            has_names = len(head) > 1 and not any(_is_number(a) for a in head[0][1][1:])
        if has_names:
            skipped.append(head[0][0])
        width = 2 if edges else len(head[int(has_names)][1])
        texts = 2 if edges else int(width > 1)  # columns read as they are: nodes, perhaps labels
        try:
            frame = pd.read_csv(
                path,
                sep=delimiter or r"\s+",
                header=None,
                names=range(width),
                index_col=False,
                dtype={i: str if i < texts else float for i in range(width)},
                skiprows=[line - 1 for line in skipped],
                keep_default_na=False,  # a token may be called NA
            )
        except (ValueError, OverflowError, pd.errors.ParserError) as error:
            _explain(path, delimiter, set(skipped), width, texts)
            raise InputError(f"{path} is not a readable table: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a readable table: {error}") from error
    if edges:
        if (frame == "").any(axis=None):  # as too short a row reads, too
            _explain(path, delimiter, set(skipped), width, texts)
        return Table("edges", edges=list(zip(frame[0], frame[1], strict=True)))
    labels = None
    if texts:
        try:
            frame[0] = frame[0].astype(float)
        except ValueError:
            labels = frame.pop(0).tolist()
    numbers = frame.to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        _explain(path, delimiter, set(skipped), width, texts)
    return _numbers(numbers, labels, kind)


def _beginning(path: Path) -> tuple[list[int], str | None, list[tuple[int, list[str]]]]:
    """The numbers of the lines that are comments, the delimiter, and the first rows' fields."""
    comments: list[int] = []
    first: list[tuple[int, str]] = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            mark = line.lstrip()[:1]
            if mark == "#":
                comments.append(number)
            elif mark and len(first) < HEAD:
                first.append((number, line))
    text = "".join(line for _, line in first)
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in text), None)
    return comments, delimiter, [(number, _fields(line, delimiter)) for number, line in first]


def _fields(line: str, delimiter: str | None) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()


def _explain(path: Path, delimiter: str | None, skipped: set[int], width: int, texts: int) -> None:
    """Raise :class:`InputError` for the first line that is not like the others."""
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or number in skipped:
                continue
            row = _fields(line, delimiter)
            if len(row) != width:
                wanted = "an edge has two nodes" if texts == 2 else f"the first row has {width}"
                raise InputError(f"{path}, line {number}: {len(row)} fields; {wanted}")
            if texts == 2 and not all(field.strip() for field in row):
                raise InputError(f"{path}, line {number}: a node without a name")
            for field in row[texts:]:
                if not _is_number(field):
                    raise InputError(f"{path}, line {number}: '{field}' is not a number")
                if not math.isfinite(float(field)):
                    raise InputError(f"{path}, line {number}: {field.strip()}; leave the row out")


def _looks_like_edges(rows: list[tuple[int, list[str]]]) -> bool:
    """Two fields a row, and the second is no number (two numbers are a vector of the plane)."""
    fields = [row for _, row in rows]
    return len(fields[0]) == 2 and not any(
        _is_number(field) or not field.strip() for row in fields[1:] or fields for field in row[1:]
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def must_fit(name: str, needed: float, advice: str) -> None:
    """Raise :class:`InputError` where ``needed`` bytes are more than are free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{name} needs about {needed / 2**30:,.1f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free; {advice}"
        )
