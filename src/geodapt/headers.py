"""The header of a safetensors file, read and checked before any tensor."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from geodapt.errors import InputError
from geodapt.paths import regular

LARGEST = 16_000_000
"""Bytes of a header: those of about 100,000 tensors."""
LONGEST, DIMENSIONS = 1000, 32
"""Characters of a tensor's name, and dimensions of a tensor."""


class Entry(NamedTuple):
    """One tensor."""

    dtype: str
    """As safetensors writes it: F32, BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]


class Header(NamedTuple):
    """A file's tensors by name, and its metadata."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file.

    Raises :class:`InputError` when the file is missing, or its header is cut short, too large or
    of another form.
    """
    size = regular(path).stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise InputError(
                f"{path} is not a readable safetensors file (its header is not complete); "
                "it may be cut short: download or save it again"
            )
        if length > LARGEST:
            raise InputError(
                f"{path} has a header of {length:,} bytes; geodapt reads up to {LARGEST:,}, "
                "about 100,000 tensors"
            )
        text = file.read(length)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file (its header is not JSON: {error})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a readable safetensors file (its header is no mapping)")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is not a readable safetensors file (its metadata is no mapping)")
    return Header({name: _entry(path, name, value) for name, value in content.items()}, metadata)


def _entry(path: Path, name: str, value: Any) -> Entry:
    if len(name) > LONGEST or not name.isprintable():
        raise InputError(
            f"{path}: tensor {name[:80]!r} has {len(name):,} characters in its name; geodapt "
            f"reads names of up to {LONGEST:,} printable ones"
        )
    shape = value.get("shape") if isinstance(value, dict) else None
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"{path} is not a readable safetensors file (no shape of '{name}')")
    if len(shape) > DIMENSIONS:
        raise InputError(
            f"{path}: tensor '{name}' has {len(shape):,} dimensions; geodapt reads up to "
            f"{DIMENSIONS}"
        )
    return Entry(str(value.get("dtype"))[:20], tuple(shape))
