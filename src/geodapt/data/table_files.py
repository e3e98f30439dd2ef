"""Rows of a user's table: CSV, TSV, JSONL or Parquet, the text formats also as .gz."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from geodapt.data.text_files import BadRecord, existing, filled, json_object, records, rows
from geodapt.errors import InputError, reason_of
from geodapt.paths import regular
from geodapt.progress import bar
from geodapt.settings import repeated

SUFFIXES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet")


def table(
    path: str | Path, of: str, check: Callable[[Collection[str], str], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row by column, and its place for messages (``sales.csv, line 3``).

    ``of`` says what the table is of, for the error where the path is none. ``check`` is given the
    names of the columns, and where they stand, and refuses what will not do. Raises
    :class:`InputError` for a missing file, another kind of file, and a broken row.
    """
    file = existing(path)
    if not file.is_file() or not file.name.endswith(SUFFIXES):
        raise InputError(f"{file} is not a {', '.join(SUFFIXES)} file of {of}; give one")
    if file.name.removesuffix(".gz").endswith(".jsonl"):
        for number, record in enumerate(records(file, json_object, "a JSON object"), 1):
            place = f"{file}, record {number}"
            if check is not None:
                check(record, place)
            yield place, record
        return
    delimiter = "\t" if file.name.removesuffix(".gz").endswith(".tsv") else ","
    lines = ((f"{file}, line {number}", row) for number, row in rows(file, delimiter))
    found = parquet_rows(file) if file.name.endswith(".parquet") else lines
    for number, (place, row) in enumerate(found):
        if check is not None and not number:  # all rows have the header's columns
            check(row, str(file))
        yield place, row


def require_columns(wanted: Sequence[tuple[str, str]], names: Collection[str], place: str) -> None:
    """Raise :class:`InputError` for missing columns; each is given with its setting."""
    if missing := [(setting, column) for setting, column in wanted if column not in names]:
        settings, columns = zip(*missing, strict=True)
        raise InputError(
            f"{place}: no column {' and no column '.join(map(repr, columns))}; it has "
            f"{', '.join(map(str, names))}. Set {', '.join(dict.fromkeys(settings))} to the "
            "names of its columns"
        )


def cell(row: dict[str, Any], column: str, place: str) -> Any:
    """A cell that must hold a value; raises :class:`InputError` where it holds none or several."""
    try:
        return filled(row[column], f"column '{column}'")
    except BadRecord as error:
        raise InputError(f"{place}: {error}") from error


def parquet_rows(
    file: Path, only: str | None = None, said: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """As :func:`table` of a Parquet file; ``only`` one column, which ``said`` says how to name."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with (
            pyarrow.parquet.ParquetFile(regular(file)) as parquet,
            bar(f"reading {file.name}", parquet.metadata.num_rows) as progress,
        ):
            names = parquet.schema_arrow.names
            asked = names if only is None else [name for name in names if name == only]
            if twice := repeated(asked):
                raise InputError(
                    f"{file}: column '{twice[0]}' stands in it more than once; name one otherwise"
                )
            if only is not None and only not in names:
                there = ", ".join(names)
                raise InputError(f"{file} has no column '{only}'; it has {there}. {said}")
            for batch in parquet.iter_batches(1024, columns=None if only is None else [only]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
                progress.advance(batch.num_rows)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{file}, after row {number}: cannot be read as Parquet ({reason_of(error)}); "
            "write it again"
        ) from error


def named_among(names: Sequence[str] | None, found: Sequence[str], path: str | Path) -> list[str]:
    """The domains asked for, or all that were found, sorted.

    Raises :class:`InputError` for one that is not there.
    """
    for name in names or ():
        if name not in found:
            there = ", ".join(sorted(found)[:20])
            raise InputError(f"{path} has no domain '{name}'; it has {there or 'no rows'}")
    return list(names or sorted(found))
