"""A command's imports, of which torch and transformers take seconds."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Around the first imports, which Python would look through for garbage again and again.

    That is a fifth of their time. What they bring stays, so that no later collection, such as each
    training begins with, looks through it either.
    """
    first, collects = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        if collects:
            gc.enable()
