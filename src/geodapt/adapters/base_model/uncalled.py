"""Weights that a model reads itself instead of calling the module that holds them.

Nothing can be added to the output of such a layer: Mamba's ``dt_proj`` and WavLM's projections
are some. Where a model's code says so (:func:`never_called`), "all-linear" leaves them out; what
its code does not say is seen when the model runs (:class:`WeightReads`).
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ENCODERS = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
HANDLED = (nn.MultiheadAttention, *ENCODERS)
"""Classes whose adapted layers act although they are not called (``execution.torch_layers``)."""
SETUP = {"__init__", "_init_weights", "reset_parameters", "_reset_parameters"}
"""Methods that may read weights without computing an output."""
ABOUT = "dtype|device|shape|requires_grad|data_ptr|numel|size|ndim|is_quantized"
"""What says something about a weight, but not its numbers."""
ASKING = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_complex"}
"""Functions that ask about a tensor and do not use its numbers."""
CASTS = {
    *("to", "float", "half", "bfloat16", "double", "type", "type_as", "clone", "detach"),
    *("_has_compatible_shallow_copy_type", "__set__", "requires_grad_"),  # of Module.to
}
"""Functions that make another tensor of a weight, before it is used or to replace it."""
_calling: ContextVar[int] = ContextVar("calling", default=0)


def never_called(model: nn.Module) -> set[str]:
    """The paths of layers whose weight the code of their owner reads and does not call."""
    found = set()
    for path, owner in model.named_modules():
        if isinstance(owner, HANDLED):
            continue
        for name, child in owner.named_children():
            kind: Any = type(owner)
            if isinstance(child, nn.Linear) and _reads(kind, name):
                found.add(f"{path}.{name}".lstrip("."))
    return found


@cache
def _reads(owner: Any, name: str) -> bool:
    code = _code(owner)
    read = re.search(rf"self\.{name}\.weight\b(?!\.({ABOUT})\b)", code)
    if read is None:
        return False
    multiplied = re.search(rf"self\.{name}\.weight\s*@", code)
    return multiplied is not None or re.search(rf"self\.{name}\(", code) is None


@cache
def _code(owner: Any) -> str:
    """The source of a class's methods, without what sets it up or asks for types."""
    parts = []
    for kind in owner.__mro__:
        if kind in (nn.Module, object):
            continue
        for name, method in vars(kind).items():
            if name in SETUP or not inspect.isfunction(method):
                continue
            try:
                parts.append(inspect.getsource(method))
            except (OSError, TypeError):
                continue
    return re.sub(r"isinstance\([^)]*\)", "", "\n".join(parts))


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


class WeightReads(Reads):
    """Notes, while a model runs, whose weights are read other than by calling the layer."""

    aside = CASTS

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
        self._tensors = {  # keeps the ids
            (path, name): tensor
            for path, layer in layers.items()
            for name in ("weight", "bias")
            if (tensor := getattr(layer, name, None)) is not None
        }
        # What modules share may be read by any of them.
        super().__init__({id(t): p for (p, _), t in self._tensors.items() if owners[id(t)] == 1})
        self.called: set[str] = set()
        self.compiled: set[str] = set()
        """Layers whose call is a part of what was compiled, which may show as a reading."""

    @property
    def passed_over(self) -> frozenset[str]:
        """Layers whose weight or bias was used; one that is called may also be cast."""
        return frozenset((self.found | (self.set_aside - self.called)) - self.compiled)


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
