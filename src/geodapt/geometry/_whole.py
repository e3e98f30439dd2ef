"""Whole functions in one pass: the kernels, where nothing but values is asked for.

A function of rows reads its vectors, turns a few sums into coefficients and combines the vectors.
Written with operators that is a dozen passes, of which the small ones cost as much as the large.
:func:`one_pass` lets a call run the C function of the same name instead (``lorentz_distance`` for
``lorentz.distance``) when the arguments are ordinary float32 tensors on the CPU and no gradient is
recorded. In every other case (gradients, ``vmap``, other types, a GPU, checked mode, bad
arguments) the function's own body runs, which is the definition.

Under ``torch.compile`` the same choice is made when a graph is traced: the kernel is one operator
in it, ``geodapt::one_pass``, since code that is generated from the body in float64 is slower.
"""

import ctypes
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.autograd import forward_ad

from geodapt.geometry import _domain, _native
from geodapt.geometry._rows import MEMORY

P = ParamSpec("P")
Scalar = float | Tensor

VECTORS = ("x", "y", "v")  # the names that these arguments have in every function
WEIGHTS = ("w", "r")


# By the kernel's name: its function as one of (vectors, c, weight); whether it gives a number a
# row; whether it takes all pairs of rows.
BODIES: dict[str, tuple[Callable[..., Tensor], bool, bool]] = {}


def one_pass(*, number: bool = False, pairs: bool = False) -> Callable:
    """Decorate a function of vectors and a curvature that has a kernel.

    ``number`` says that a row gives one number, not a vector; ``pairs`` that every row of ``x``
    meets every row of ``y``.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        parameters = inspect.signature(function).parameters
        names = tuple(parameters)
        defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
        kernel = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"

        vector_names = [name for name in names if name in VECTORS]
        weight_names = [name for name in names if name in WEIGHTS]

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            given: dict[str, Any] = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
            if len(args) <= len(names) and all(name in given for name in names):
                vectors = [given[name] for name in vector_names]
                weight = given[weight_names[0]] if weight_names else 1.0
                if not torch.compiler.is_compiling():
                    out = run(kernel, vectors, given["c"], weight, number=number, pairs=pairs)
                    if out is not None:
                        return out
                elif _traceable(vectors, given["c"], weight, pairs):
                    return _operator(kernel, vectors, given["c"], weight)
            return function(*args, **kwargs)

        definition: Callable[..., Tensor] = function

        def body(vectors: Sequence[Tensor], c: float, weight: float) -> Tensor:
            named = dict(zip(vector_names, vectors, strict=True))
            return definition(**named, c=c, **dict.fromkeys(weight_names, weight))

        BODIES[kernel] = body, number, pairs
        return call

    return decorate


def run(
    kernel: str,
    vectors: list[Tensor],
    c: Scalar,
    w: Scalar = 1.0,
    *,
    number: bool = False,
    pairs: bool = False,
    into: Tensor | None = None,
) -> Tensor | None:
    """The kernel's result, written ``into`` a tensor or a new one; None where it must not run."""
    scalars = [s for s in (c, w) if isinstance(s, Tensor)]
    if not all(map(_ordinary, vectors)) or not all(map(_plain, scalars)) or _domain.checking():
        return None
    if not isinstance(c, Tensor) and not 0 < c < float("inf"):
        return None  # the function's own body says what is wrong
    x, d, m = vectors[0], vectors[0].shape[-1], 0
    if any(v.shape[-1] != d for v in vectors) or (library := _native.library()) is None:
        return None
    if pairs:
        if any(v.dim() != 2 for v in vectors):
            return None
        n, m = len(x), len(vectors[1])
        batch = torch.Size((n, m))
    else:
        batch = x.shape[:-1]
        if scalars or any(v.shape != x.shape for v in vectors):
            shapes = [v.shape[:-1] for v in vectors] + [s.shape for s in scalars]
            batch = torch.broadcast_shapes(*shapes)
            vectors = [v.expand(*batch, d) for v in vectors]
        n = batch.numel()
    if batch.numel() * d == 0:
        return None
    if into is not None and (batch != into.shape[:-1] or not into.is_contiguous()):
        return None
    rows = [v.resolve_neg().contiguous() for v in vectors]
    out = x.new_empty(batch if number else (*batch, d)) if into is None else into
    try:
        points = [v.data_ptr() for v in rows] + [None] * (3 - len(rows))
        # the last of each holds the numbers until the kernel has run
        (c_at, c_step, _c), (w_at, w_step, _w) = _numbers(c, batch), _numbers(w, batch)
        arguments = _native.Arguments(
            *points, out.data_ptr(), c_at, w_at, c_step, w_step, n, m, d,
            _native.threads(n * max(1, m) * d),
        )  # fmt: skip
    except RuntimeError:  # vmap's tensors and fake ones have no memory; the shapes do not fit
        return None
    getattr(library, kernel)(ctypes.byref(arguments))
    return out


@torch.library.custom_op("geodapt::one_pass", mutates_args=(), device_types="cpu")
def _operator(kernel: str, vectors: Sequence[Tensor], c: float, weight: float) -> Tensor:
    body, number, pairs = BODIES[kernel]
    out = run(kernel, list(vectors), c, weight, number=number, pairs=pairs)
    return body(vectors, c, weight) if out is None else out


@_operator.register_fake
def _(kernel: str, vectors: Sequence[Tensor], c: float, weight: float) -> Tensor:
    _, number, pairs = BODIES[kernel]
    if pairs:
        return vectors[0].new_empty(vectors[0].shape[0], vectors[1].shape[0])
    shape = torch.broadcast_shapes(*(v.shape for v in vectors))
    return vectors[0].new_empty(shape[:-1] if number else shape)


def _traceable(vectors: list[Tensor], c: Scalar, weight: Scalar, pairs: bool) -> bool:
    """What :func:`run` asks, of tensors that have no values yet."""
    return (
        isinstance(c, float | int)
        and c > 0
        and isinstance(weight, float | int)
        and not torch.compiler.is_exporting()  # an exported graph should not need this package
        and all(
            v.dtype == torch.float32
            and v.device.type == "cpu"
            and v.shape[-1] == vectors[0].shape[-1]
            and (v.dim() == 2 if pairs else v.dim() > 0)
            and not (v.requires_grad and torch.is_grad_enabled())
            for v in vectors
        )
        and _available()
    )


@torch.compiler.assume_constant_result
def _available() -> bool:
    """Asked while tracing: whether there are kernels, and no vmap or func.grad around the call."""
    return torch._C._functorch.peek_interpreter_stack() is None and _native.library() is not None


def _ordinary(x: Tensor) -> bool:
    """A float32 vector in the CPU's memory of which only the value is wanted."""
    return (
        type(x) in MEMORY
        and x.dtype == torch.float32
        and x.dim() > 0
        and x.layout == torch.strided
        and _plain(x)
    )


def _plain(x: Tensor) -> bool:
    """On the CPU, and no gradient of any kind is recorded."""
    return (
        x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and forward_ad.unpack_dual(x).tangent is None
    )


def _numbers(s: Scalar, batch: torch.Size) -> tuple[int, int, object]:
    """Address of a scalar's values in float64, their step from row to row, and what holds them."""
    if not isinstance(s, Tensor):
        value = ctypes.c_double(s)
        return ctypes.addressof(value), 0, value
    if s.numel() == 1:
        values, step = s.detach().double(), 0
    else:
        values, step = s.detach().double().expand(batch).contiguous(), 1
    return values.data_ptr(), step, values
