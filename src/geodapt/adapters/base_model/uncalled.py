"""Weights that a model reads itself instead of calling the module that holds them.

Nothing can be added to the output of such a layer: Mamba's ``dt_proj`` and WavLM's projections
are some. Where a model's code says so (:func:`never_called`), "all-linear" leaves them out; what
its code does not say is seen when the model runs (:class:`WeightReads`).
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ENCODERS = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
HANDLED = (nn.MultiheadAttention, *ENCODERS)
"""Classes whose adapted layers act although they are not called (``execution.torch_layers``)."""
SETUP = {"__init__", "_init_weights", "reset_parameters", "_reset_parameters"}
"""Methods that may read weights without computing an output."""
ABOUT = "dtype|device|shape|requires_grad|data_ptr|numel|size|ndim|is_quantized"
"""Attributes that describe a weight without reading its numbers."""
ASKING = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_complex"}
"""Functions that query a tensor without using its numbers."""
CASTS = {
    *("to", "float", "half", "bfloat16", "double", "type", "type_as", "clone", "detach"),
    *("_has_compatible_shallow_copy_type", "__set__", "requires_grad_"),  # of Module.to
}
"""Functions that convert a weight to another tensor, before it is used or to replace it."""
DERIVED_FROM = {"weight_orig", "bias_orig", "weight_g", "weight_v"}
"""Of what torch's pruning, spectral and weight norms make a layer's weight, in a hook before each
call."""
_called: ContextVar[frozenset[str]] = ContextVar("called", default=frozenset())


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
    """The source of a class's methods, without those that construct it or query types."""
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
def calling(path: str) -> Iterator[None]:
    """Inside of the block a watched module is called, and may read its weights."""
    token = _called.set(_called.get() | {path})
    try:
        yield
    finally:
        _called.reset(token)


class _EagerParts:
    """Lets parts that were compiled run as they are, while any thread watches one."""

    def __init__(self) -> None:
        self._lock, self._watching = Lock(), 0
        self._stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._watching:
                self._stance = torch.compiler.set_stance("force_eager")
            self._watching += 1

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._watching -= 1
            if not self._watching:
                self._stance.__exit__(None, None, None)


_eager_parts = _EagerParts()


def _has_compiled(model: nn.Module) -> bool:
    return any(
        part._compiled_call_impl is not None or hasattr(part.forward, "_torchdynamo_orig_callable")
        for part in model.modules()
    )


class WeightReads(TorchFunctionMode):
    """Notes, while a model runs, whose weights are read other than by calling their module.

    A module is known to be called by :func:`calling` and :attr:`called`. Parts that were compiled
    run as they are meanwhile, since what a graph reads cannot be seen.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
        """``modules`` are those to watch, by the paths that are noted."""
        super().__init__()
        owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
        self._kept: list[Tensor] = []  # so that no other tensor gets one of the ids
        self._watched: dict[int, list[str]] = {}
        for path, module in modules.items():
            for weight in _weights(module):
                # One that modules share may be read by any of them.
                if owners[id(weight)] == 1:
                    self._kept.append(weight)
                    self._watched.setdefault(id(weight), []).append(path)
        self._eager = (
            nullcontext()
            if torch.compiler.is_compiling() or not _has_compiled(model)
            else _eager_parts
        )
        self._used: set[str] = set()
        self._cast: set[str] = set()
        self.called: set[str] = set()
        self.compiled: set[str] = set()
        """Modules whose call is a part of what was compiled, which may show as a reading."""

    def __enter__(self) -> "WeightReads":
        self._eager.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._eager.__exit__(*error)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in ASKING:
            seen, called = self._cast if name in CASTS else self._used, _called.get()
            for value in _leaves((args, kwargs or {})):
                seen.update(p for p in self._watched.get(id(value), ()) if p not in called)
        return func(*args, **(kwargs or {}))

    @property
    def passed_over(self) -> frozenset[str]:
        """Modules whose weight or bias was used; one that is called may also be cast."""
        return frozenset((self._used | (self._cast - self.called)) - self.compiled)


def _weights(module: nn.Module) -> list[Tensor]:
    """What is watched of a module: its parameters, and a quantized layer's weight."""
    found: list[Any] = [
        p for name, p in module.named_parameters() if name.split(".")[-1] not in DERIVED_FROM
    ]
    found += [getattr(module, name, None) for name in ("weight", "bias")]
    return list({id(each): each for each in found if isinstance(each, Tensor)}.values())


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
