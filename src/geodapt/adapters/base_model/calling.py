"""Weights that a model reads itself instead of calling the module that holds them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

ASKING = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_complex"}
"""Functions that ask about a tensor and do not use its numbers."""
_calling: ContextVar[int] = ContextVar("calling", default=0)


@contextmanager
def calling() -> Iterator[None]:
    """Inside of the block a module that holds watched weights is called, and may read them."""
    token = _calling.set(_calling.get() + 1)
    try:
        yield
    finally:
        _calling.reset(token)


class Reads(TorchFunctionMode):
    """Notes which watched tensors PyTorch's functions get outside of :func:`calling`."""

    aside: Collection[str] = ()
    """Functions whose readings are noted apart."""

    def __init__(self, watched: Mapping[int, str]) -> None:
        """``watched`` are names by the ``id`` of tensors that stay alive."""
        super().__init__()
        self.watched = watched
        self.found: set[str] = set()
        self.set_aside: set[str] = set()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if not _calling.get() and name not in ASKING:
            seen = self.set_aside if name in self.aside else self.found
            for value in _leaves((args, kwargs or {})):
                if id(value) in self.watched:
                    seen.add(self.watched[id(value)])
        return func(*args, **(kwargs or {}))


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
