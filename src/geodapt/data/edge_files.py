"""Edge lists in files: two nodes per line."""

import csv
from pathlib import Path

from geodapt.data.text_files import existing, lines
from geodapt.errors import InputError

EDGE_NAMES = {"parent", "child", "hypernym", "hyponym", "source", "target", "from", "to"}
"""Names of the two columns, in a header that is no edge."""


def read_edges(path: str | Path) -> list[tuple[str, str]]:
    """The two nodes of each line, the general one first where the edges are a hierarchy's.

    They are separated by a tab, a comma, a semicolon or blanks: the first of these that the
    file's first edge has. Between commas and semicolons, quotation marks hold a node together.
    Comments (``#``), blank lines and a header of :data:`EDGE_NAMES` are skipped.

    Raises :class:`InputError` with file and line for anything but two nodes with a name.
    """
    file = existing(path)
    edges: list[tuple[str, str]] = []
    delimiter: str | None = None
    for number, line in lines(file, "utf-8-sig"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not edges:
            delimiter = next((mark for mark in ("\t", ",", ";") if mark in line), None)
        nodes = _nodes(line, delimiter, f"{file}, line {number}")
        if edges or not {node.lower() for node in nodes} <= EDGE_NAMES:
            edges.append(nodes)
    return edges


def _nodes(line: str, delimiter: str | None, place: str) -> tuple[str, str]:
    try:
        if delimiter is None or delimiter == "\t":
            cells = line.split(delimiter)
        else:
            cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{place}: cannot be read: {error}") from error
    nodes = [cell.strip() for cell in cells]
    if len(nodes) != 2:
        raise InputError(f"{place}: {len(nodes)} fields; an edge has two nodes, with a tab between")
    if not all(nodes):
        raise InputError(f"{place}: a node without a name")
    return nodes[0], nodes[1]
