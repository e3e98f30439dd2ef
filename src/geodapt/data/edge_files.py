"""Edge lists in files: two nodes per line."""

import csv
from pathlib import Path

from geodapt.data.text_files import existing, lines
from geodapt.errors import InputError

EDGE_NAMES = {"parent", "child", "hypernym", "hyponym", "source", "target", "from", "to"}
"""Names of the two columns, in a header that is no edge."""


def read_edges(path: str | Path) -> list[tuple[str, str]]:
    """The two nodes of each line, the general one first where the edges are a hierarchy's.

    They are separated by a tab, a comma, a semicolon or blanks: the first of these by which the
    file's first edge has two. Between commas and semicolons, quotation marks hold a node together.
    Comments (``#`` and a blank), blank lines and a header of :data:`EDGE_NAMES` are skipped.

    Raises :class:`InputError` with file and line for anything but two nodes with a name, for a
    first edge that has two by comma and by semicolon, and for two nodes behind a ``#`` without a
    blank, which may be a comment.
    """
    file = existing(path)
    edges: list[tuple[str, str]] = []
    delimiter: str | None = None
    for number, line in lines(file):
        place = f"{file}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            _no_edge(line.strip(), delimiter, place)
            continue
        if not edges:
            delimiter = _delimiter(line, place)
        nodes = _nodes(line, delimiter, place)
        if edges or not {node.lower() for node in nodes} <= EDGE_NAMES:
            edges.append(nodes)
    return edges


def _delimiter(line: str, place: str) -> str | None:
    present = [mark for mark in ("\t", ",", ";") if mark in line]
    fitting = [mark for mark in present if len(_cells(line, mark, place)) == 2]
    if fitting == [",", ";"]:
        raise InputError(
            f"{place}: a comma or a semicolon may separate its nodes; put quotation marks about "
            "them, or a tab between"
        )
    return next(iter(fitting or present), None)


def _no_edge(line: str, delimiter: str | None, place: str) -> None:
    """Refuse a line that begins with ``#`` and may be an edge."""
    if not line[1:2].strip():
        return
    nodes = _cells(line, delimiter or _delimiter(line, place), place)
    names = {node.lower().strip("# ") for node in nodes}
    if len(nodes) == 2 and all(nodes) and not names <= EDGE_NAMES:
        raise InputError(
            f"{place}: '{line[:60]}' may be a comment or an edge; put a blank behind the # of a "
            "comment, and commas and quotation marks about nodes"
        )


def _cells(line: str, delimiter: str | None, place: str) -> list[str]:
    try:
        if delimiter is None or delimiter == "\t":
            cells = line.split(delimiter)
        else:
            cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{place}: cannot be read: {error}") from error
    return [cell.strip() for cell in cells]


def _nodes(line: str, delimiter: str | None, place: str) -> tuple[str, str]:
    nodes = _cells(line, delimiter, place)
    if len(nodes) != 2:
        raise InputError(f"{place}: {len(nodes)} fields; an edge has two nodes, with a tab between")
    if not all(nodes):
        raise InputError(f"{place}: a node without a name")
    return nodes[0], nodes[1]
