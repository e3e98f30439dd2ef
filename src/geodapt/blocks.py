"""Context managers that say so where their block was forgotten.

A call without ``with`` does nothing, which nobody would notice.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, ParamSpec

from geodapt.errors import InputWarning

P = ParamSpec("P")


class Block(AbstractContextManager[None]):
    """A context manager that warns when it goes without ever having been entered."""

    def __init__(self, inner: Any, name: str) -> None:
        self._inner, self._name, self._used = inner, name, False

    def __enter__(self) -> None:
        self._used = True
        self._inner.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)

    def __call__(self, function: Callable) -> Callable:
        """The function, in a block of its own at each call."""
        self._used = True
        return self._inner(function)

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"{self._name}(...) was called without a block and did nothing; write "
                f"with {self._name}(...): and what it is for below",
                InputWarning,
                stacklevel=2,
            )


def block_manager(name: str) -> Callable[[Callable[P, Iterator[None]]], Callable[P, Block]]:
    """As ``contextlib.contextmanager``, for users; ``name`` is what they write."""

    def decorate(function: Callable[P, Iterator[None]]) -> Callable[P, Block]:
        manager = contextmanager(function)

        @wraps(function)
        def made(*args: P.args, **kwargs: P.kwargs) -> Block:
            return Block(manager(*args, **kwargs), name)

        return made

    return decorate
