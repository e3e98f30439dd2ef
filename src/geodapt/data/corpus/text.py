"""The user's own text: a file, or a folder of files; plain text, JSONL or Parquet."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from geodapt.data.corpus.corpus import SHARES, Corpus, document_split
from geodapt.data.corpus.settings import NAME_COLUMN, PLAIN, RECORDS, TextSettings
from geodapt.data.domain import uniform
from geodapt.data.table_files import parquet_rows
from geodapt.data.text_files import existing, json_object, lines, not_found, records
from geodapt.errors import InputError
from geodapt.files import short_hash
from geodapt.paths import regular

PIECE = 1 << 16
"""Characters after which a long file starts another document: far more than a model reads."""


def load_text(settings: TextSettings) -> Corpus:
    """The documents of files, streamed.

    Of plain text the first 85 % train, the next 5 % validate, the rest tests, cut where a line
    ends; a folder's files stand in an order by the seed. Records of JSONL and Parquet, and lines
    that are documents, are split by a hash of their text. Raises :class:`InputError` for a path
    without text files, and while reading for what :func:`documents` raises.
    """
    path = existing(settings.path)
    found = text_files(path)
    plain = [file for file in found if file.name.endswith(PLAIN) and not settings.lines]
    plain.sort(key=lambda file: uniform(file.relative_to(path).as_posix(), settings.seed))
    stated = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    depends = [settings.model_dump(mode="json"), str(path.resolve()), stated]

    def read() -> Iterator[tuple[str, str]]:
        yield from _plain(plain)
        for file in found:
            if file not in plain:
                for text in _each(file, settings.text):
                    yield document_split(text, settings.seed), text

    return Corpus(
        path.name,
        short_hash(depends),
        read,
        {"files": len(found)},
    )


def documents(path: str | Path, column: str = "text") -> Iterator[str]:
    """All documents of a file or a folder, unsplit; long plain files in several pieces.

    Raises :class:`InputError` for a path without text files, bytes that are no UTF-8, a broken
    archive, a line that is no JSON object, and a missing or empty column, with file and line.
    """
    for file in text_files(existing(path)):
        if file.name.endswith(PLAIN):
            yield from _pieces(line for _, line in lines(file))
        else:
            yield from _records(file, column)


def text_files(path: Path) -> list[Path]:
    """The file, or all text files in the folder and below."""
    if not path.is_dir():
        regular(path)
        if not path.name.endswith((*PLAIN, *RECORDS)):
            raise InputError(
                f"{path} is not a text file by its name; expected one of "
                f"{', '.join((*PLAIN[:3], *RECORDS))}"
            )
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.name.endswith((*PLAIN, *RECORDS)) and file.name[0] != "."
    )
    if not found:
        raise not_found(path, f"text file ({', '.join((*PLAIN[:3], *RECORDS))})")
    return found


def _plain(files: list[Path]) -> Iterator[tuple[str, str]]:
    """The documents of plain files laid end to end, with the split in which they lie."""
    total = sum(len(line) + 1 for file in files for _, line in lines(file))
    test = total * (1 - SHARES["test"])
    validation = test - total * SHARES["validation"]
    position = 0

    def placed(file: Path) -> Iterator[tuple[str, str]]:
        nonlocal position
        for _, line in lines(file):
            split = (
                "test" if position >= test else "validation" if position >= validation else "train"
            )
            yield split, line
            position += len(line) + 1

    for file in files:
        for split, of_split in groupby(placed(file), key=lambda found: found[0]):
            for text in _pieces(line for _, line in of_split):
                yield split, text


def _pieces(source: Iterable[str]) -> Iterator[str]:
    """Lines put together to documents of PIECE characters or a little more."""
    piece: list[str] = []
    size = 0
    for line in source:
        piece.append(line)
        size += len(line) + 1
        if size >= PIECE:
            yield "\n".join(piece)
            piece, size = [], 0
    if text := "\n".join(piece).strip():
        yield text


def _each(file: Path, column: str) -> Iterator[str]:
    """The documents of a file that has one per line or record."""
    if file.name.endswith(PLAIN):
        yield from (line.strip() for _, line in lines(file) if line.strip())
    else:
        yield from _records(file, column)


def _records(file: Path, column: str) -> Iterator[str]:
    if file.suffix != ".parquet":
        expected = f'a JSON object with a text under "{column}"'
        yield from records(file, lambda line: _text(json_object(line)[column]), expected)
        return
    for place, row in parquet_rows(file, column, NAME_COLUMN):
        if (text := row[column]) is not None and not isinstance(text, str):
            raise InputError(f"{place}: column '{column}' holds {type(text).__name__}, not text")
        if text:
            yield text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
