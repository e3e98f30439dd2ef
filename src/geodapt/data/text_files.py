"""Reading lines of other people's files, with errors that say which file and which line."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from geodapt.errors import InputError
from geodapt.paths import given, regular
from geodapt.progress import bar
from geodapt.settings import repeated

T = TypeVar("T")


class BadRecord(ValueError):
    """The reason why a record is not as expected, where the record alone does not show it."""


LONGEST_LINE = 1 << 24
"""Characters: a document of a few thousand pages, and what is read at once of a compressed file."""


def existing(path: str | Path) -> Path:
    """The path, with ``~`` expanded; raises :class:`InputError` when nothing is there."""
    path = given(path)
    if not path.exists():
        raise InputError(f"data path '{path}' does not exist; give a folder or file that does")
    return path


def on_hub(path: str, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether a path is a name on the hub instead: nothing is there, and no path looks like it."""
    local = path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(suffixes)
    return not local and not given(path).exists()


def find(folder: Path, *names: str) -> Path | None:
    """The first of these files that the folder has, as it is or with ``.gz``."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None


def not_found(folder: Path, wanted: str) -> InputError:
    """The error for a folder without the expected files: what was looked for, what is there."""
    there = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    return InputError(f"{folder} has no {wanted}; it has {listed or 'nothing'}")


def lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """Numbered lines from 1, without their ends or a byte order mark, with a progress bar.

    Raises :class:`InputError` when the file is no text in this encoding, a broken gzip file, no
    file but a pipe or a pointer, or has a line without end.
    """
    number = 0
    with (
        regular(path).open("rb") as raw,
        bar(f"reading {path.name}", path.stat().st_size) as progress,
    ):
        stream = gzip.open(raw) if path.suffix == ".gz" else raw  # noqa: SIM115 - raw is closed
        position = 0
        try:
            text = io.TextIOWrapper(stream, encoding, newline="\n")
            for number, line in enumerate(iter(lambda: text.readline(LONGEST_LINE), ""), 1):
                if len(line) == LONGEST_LINE:
                    raise InputError(
                        f"{path}, line {number}: more than {LONGEST_LINE:,} characters; break the "
                        "line, if the file is what its name says"
                    )
                if number % 10_000 == 0:
                    before, position = position, raw.tell()
                    progress.advance(position - before)
                yield number, line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            wanted = encoding.removesuffix("-sig")
            raise InputError(
                f"{path}, line {number + 1} or soon after: not {wanted} text ({error.reason}); "
                "save the file in that encoding"
            ) from error
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path}, after line {number}: {error}; the file may be cut short: fetch it again"
            ) from error


def records(
    path: Path,
    parse: Callable[[str], T],
    expected: str,
    encoding: str = "utf-8-sig",
) -> Iterator[T]:
    """``parse`` of each line that is not blank.

    Where it raises ValueError, KeyError, IndexError or TypeError, raises :class:`InputError` with
    the file, the line and what was ``expected``.
    """
    for number, line in lines(path, encoding):
        if not line.strip():
            continue
        try:
            yield parse(line)
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            shown = line if len(line) <= 80 else line[:77] + "..."
            reason = f" ({error})" if isinstance(error, BadRecord) else ""
            raise InputError(
                f"{path}, line {number}: expected {expected}, found '{shown}'{reason}"
            ) from error


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, which writers of tables put for it, or blanks."""
    return value is None or value != value or not str(value).strip()


def filled(value: T, called: str) -> T:
    """A cell that must hold one value; raises :class:`BadRecord` where it holds none or several."""
    if isinstance(value, list | dict | tuple | bytes):
        raise BadRecord(f"{called} holds a {type(value).__name__}; give a text or a number")
    if is_empty(value):
        raise BadRecord(f"{called} is empty; fill it or leave the row out")
    return value


def json_object(line: str) -> dict[str, Any]:
    """A line of a JSONL file; raises ValueError where it is no JSON object, or has a key twice."""
    try:
        value = json.loads(line, object_pairs_hook=_once)
    except RecursionError as error:
        raise BadRecord("its brackets are nested too deep to be read") from error
    if "\\u" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BadRecord(
                "it holds a lone surrogate, half of a character written as two; write the file "
                "again with both halves, or without"
            ) from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRecord(f"'{repeated([name for name, _ in pairs])[0]}' stands in it more than once")
    return found


def rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Numbered rows of a table with a header: column to text. CSV, or without quotes with tabs.

    Raises :class:`InputError` where a row has more or fewer cells than the header.
    """
    reader = csv.reader(
        (line + "\n" for _, line in lines(path)),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
    )
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = cells
                if twice := repeated([name for name in cells if name]):
                    raise InputError(
                        f"{path}: column '{twice[0]}' stands in its header more than once; name "
                        "one otherwise"
                    )
            elif cells and len(cells) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells "
                    f"({', '.join(header)}), found {len(cells)}"
                )
            elif cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not a row ({error}); a quotation mark may be open "
            "there, and longer texts can be given as JSONL"
        ) from error
