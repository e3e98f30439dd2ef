"""Files of numbers or edges, read with a clear word about what is wrong in them."""

import csv
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from geodapt.errors import InputError
from geodapt.files import PICKLES, read_tensors

SUFFIXES = {".npy", ".safetensors", ".csv", ".tsv", ".txt", ".edges"}


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
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npy file of numbers: {error}") from error
    if not np.issubdtype(numbers.dtype, np.number) or np.iscomplexobj(numbers):
        raise InputError(f"{path} holds {numbers.dtype}; expected real numbers")
    return numbers


def _read_safetensors(path: Path, tensor: str | None) -> np.ndarray:
    _must_fit(path, 3)
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
    _must_fit(path, 12)
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} is empty")
    if kind == "edges" or (kind is None and _looks_like_edges(rows)):
        for line, row in rows:
            if len(row) != 2:
                raise InputError(f"{path}, line {line}: {len(row)} fields; an edge has two nodes")
        header = {"parent", "child", "source", "target", "from", "to"}
        start = int({field.strip().lower() for field in rows[0][1]} <= header)
        return Table("edges", edges=[(a, b) for _, (a, b) in rows[start:]])
    if len(rows) > 1 and not any(_is_number(a) for a in rows[0][1][1:]):
        rows = rows[1:]  # the columns' names
    width = len(rows[0][1])
    labelled = width > 1 and not all(_is_number(row[0]) for _, row in rows)
    labels, numbers = [], np.empty((len(rows), width - labelled))
    for place, (line, row) in enumerate(rows):
        if len(row) != width:
            raise InputError(
                f"{path}, line {line}: {len(row)} fields where the first row has {width}"
            )
        if labelled:
            labels.append(row[0])
        try:
            numbers[place] = [float(a) for a in row[int(labelled) :]]
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}") from error
    return _numbers(numbers, labels or None, kind)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not empty or a comment."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head = "".join(islice(file, 20))
            file.seek(0)
            delimiter = next((mark for mark in ("\t", ",", ";") if mark in head), None)
            lines = (
                (n, line) for n, line in enumerate(file, 1) if line.strip()[:1] not in ("", "#")
            )
            if delimiter is None:
                return [(n, line.split()) for n, line in lines]
            return [(n, next(csv.reader([line], delimiter=delimiter))) for n, line in lines]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}") from error


def _looks_like_edges(rows: list[tuple[int, list[str]]]) -> bool:
    """Two fields a row, and the second is no number (two numbers are a vector of the plane)."""
    return all(len(row) == 2 for _, row in rows) and not any(
        _is_number(row[1]) for _, row in rows[1:]
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _must_fit(path: Path, times: float) -> None:
    """Raise :class:`InputError` where the file, read, takes more memory than is free."""
    needed, free = times * path.stat().st_size, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{path} needs about {needed / 2**30:.1f} GiB of memory to read, and "
            f"{free / 2**30:.1f} GiB are free; save it as .npy, of which only the sample is read"
        )
