"""The kernels of ``kernels/``, which compute the functions of this folder in one pass."""

import ctypes
from functools import cache
from pathlib import Path

from geodapt import native

SOURCE = Path(__file__).parent / "kernels" / "kernels.cpp"
ALONE = 1 << 16  # numbers up to which one thread is faster than waking others


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels, or None where they cannot be had."""
    return native.library(SOURCE)
