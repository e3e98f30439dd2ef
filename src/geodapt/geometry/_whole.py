"""Whole functions in one pass: the kernels, wherever they can stand for the definition.

A function of rows reads its vectors, turns a few sums into coefficients and combines the vectors.
Written with operators that is a dozen passes, of which the small ones cost as much as the large.
:func:`one_pass` lets a call run the kernel of the same name instead (``lorentz_distance`` for
``lorentz.distance``) when the arguments are ordinary float32 tensors on the CPU; a second kernel
gives the gradients. In every other case (gradients of gradients, forward mode, ``vmap``, other
types, a GPU, checked mode, bad arguments) the function's own body runs, which is the definition.

Under ``torch.compile`` the same choice is made when a graph is traced: the kernels are operators
in it, ``geodapt::one_pass`` and ``geodapt::one_pass_backward``, since code that is generated from
the body in float64 is slower.
"""

import inspect
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from geodapt.geometry import _domain, _native

P = ParamSpec("P")
Scalar = float | Tensor

MEMORY = (Tensor, torch.nn.Parameter)  # not a tensor that only stands for another
VECTORS = ("x", "y", "v")  # the names that these arguments have in every function
WEIGHTS = ("w", "r")
ARGUMENTS = struct.Struct("12P2d4n")  # ``arguments`` of kernels/sums.hpp
UNUSED = (0, 0, 0)  # addresses of vectors

EMPTY = inspect.Parameter.empty
KERNELS: dict[str, "Kernel"] = {}


@dataclass(frozen=True)
class Kernel:
    """What is known of a kernel; ``definition(vectors, c, weight)`` computes the same."""

    name: str
    definition: Callable[[Sequence[Tensor], Scalar, Scalar], Tensor]
    gives: torch.dtype | None  # the type of one number a row, or None for a vector
    pairs: bool  # every row of the first vector meets every row of the second

    def batch(self, vectors: Sequence[Tensor], c: Scalar, w: Scalar) -> torch.Size:
        """The result's shape without the vector's dimension."""
        if self.pairs:
            return torch.Size((len(vectors[0]), len(vectors[1])))
        batch = vectors[0].shape[:-1]
        given = [v.shape[:-1] for v in vectors[1:]]
        given += [s.shape for s in (c, w) if isinstance(s, Tensor)]
        if all(shape == batch for shape in given):
            return batch
        return torch.broadcast_shapes(batch, *given)

    def empty(self, vectors: Sequence[Tensor], batch: torch.Size) -> Tensor:
        """The result's place."""
        x = vectors[0]
        if self.gives is None:
            return x.new_empty(*batch, x.shape[-1])
        if self.gives is x.dtype and batch:  # in half the time
            return x.new_empty(*batch)
        return x.new_empty(batch, dtype=self.gives)

    def values(self, vectors: Sequence[Tensor], c: Scalar, w: Scalar) -> Tensor:
        """What the function gives."""
        batch = self.batch(vectors, c, w)
        out = self.empty(vectors, batch)
        self._run(vectors, c, w, batch, out.data_ptr())
        return out

    def gradients(
        self,
        vectors: Sequence[Tensor],
        c: Scalar,
        w: Scalar,
        grad: Tensor,
        wanted: Sequence[bool],
    ) -> list[Tensor]:
        """Those of the vectors, of ``c`` and of the weight, as many as are wanted.

        A gradient has the shape of its argument.
        """
        batch = self.batch(vectors, c, w)
        x, given = vectors[0], (*vectors, c, w)
        shapes = [v.shape if self.pairs else (*batch, x.shape[-1]) for v in vectors]
        types = [torch.float32] * len(vectors) + [torch.float64] * 2
        by = [
            x.new_empty(shape, dtype=dtype) if want else None
            for shape, dtype, want in zip([*shapes, batch, batch], types, wanted, strict=True)
        ]
        at = [0 if b is None else b.data_ptr() for b in by]
        grad = _dense(grad)
        if not self.pairs:
            at[-2:-2] = UNUSED[len(vectors) :]
            self._run(vectors, c, w, batch, 0, grad.data_ptr(), at)
        else:  # the rows of x by all of y, then those of y by all of x
            self._run(vectors, c, w, batch, 0, grad.data_ptr(), [at[0], 0, 0, *at[2:]])
            if wanted[1]:
                c = c.expand(batch).mT if isinstance(c, Tensor) else c
                grad = _dense(grad.mT)
                self._run(vectors[::-1], c, w, batch[::-1], 0, grad.data_ptr(), [at[1], *[0] * 4])
        return [
            b.sum_to_size(s.shape).to(s.dtype)
            for b, s in zip(by, given, strict=True)
            if b is not None and isinstance(s, Tensor)
        ]

    def _run(
        self,
        vectors: Sequence[Tensor],
        c: Scalar,
        w: Scalar,
        batch: Sequence[int],
        out: int,
        grad: int = 0,
        by: Sequence[int] = (0,) * 5,
    ) -> None:
        """Run the kernel; numbers are addresses of where its results belong."""
        shape = (*batch, vectors[0].shape[-1])
        n, m = batch if self.pairs else (math.prod(batch), 1)
        rows = [v if self.pairs or v.shape == shape else v.expand(shape) for v in vectors]
        rows = [_dense(r) for r in rows]  # held until the kernel is done
        each_c, all_c = _numbers(c, batch)
        each_w, all_w = _numbers(w, batch)
        getattr(_native.library(), self.name)(
            ARGUMENTS.pack(
                *[r.data_ptr() for r in rows],
                *UNUSED[len(rows) :],
                out,
                grad,
                *by,
                0 if each_c is None else each_c.data_ptr(),
                0 if each_w is None else each_w.data_ptr(),
                all_c,
                all_w,
                n,
                m,
                shape[-1],
                1 if n * m * shape[-1] < _native.ALONE else torch.get_num_threads(),
            )
        )


def one_pass(*, gives: torch.dtype | None = None, pairs: bool = False) -> Callable:
    """Decorate a function of vectors, perhaps a weight, and last a curvature, that has a kernel.

    ``gives`` is the type of the number that a row gives, None where it gives a vector; ``pairs``
    says that every row of ``x`` meets every row of ``y``.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        signature = inspect.signature(function)
        names = tuple(signature.parameters)
        defaults = tuple(p.default for p in signature.parameters.values())
        needed = defaults.count(EMPTY)
        first = next(at for at, name in enumerate(names) if name in VECTORS)
        points = slice(first, first + sum(name in VECTORS for name in names))
        weight = next((at for at, name in enumerate(names) if name in WEIGHTS), None)

        body: Callable[..., Tensor] = function

        def definition(vectors: Sequence[Tensor], c: Scalar, w: Scalar) -> Tensor:
            if weight is None:
                return body(*vectors, c)
            return body(*((w, *vectors) if weight < first else (*vectors, w)), c)

        kernel = Kernel(
            f"{function.__module__.rpartition('.')[2].strip('_')}_{function.__name__.strip('_')}",
            definition,
            gives,
            pairs,
        )
        KERNELS[kernel.name] = kernel

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Tensor:
            every = args + defaults[len(args) :]
            fits = needed <= len(args) <= len(names)
            if kwargs:
                open_names = names[len(args) :]
                every = (*args, *map(kwargs.get, open_names, defaults[len(args) :]))
                fits = kwargs.keys() <= set(open_names) and all(a is not EMPTY for a in every)
            if fits:
                vectors, c = every[points], every[-1]
                w = 1.0 if weight is None else every[weight]
                if torch.compiler.is_compiling():
                    if _traceable(vectors, c, w, pairs):
                        scalars = (_as_tensor(s, vectors[0]) for s in (c, w))
                        return torch.ops.geodapt.one_pass(kernel.name, vectors, *scalars)
                elif _ordinary(vectors, c, w, pairs):
                    if torch.is_grad_enabled() and _recorded(vectors, c, w):
                        return _OnePass.apply(kernel, c, w, *vectors)
                    return kernel.values(vectors, c, w)
            return body(*args, **kwargs)

        return call

    return decorate


class _OnePass(Function):
    """A kernel's values, and its gradients when they are asked for."""

    @staticmethod
    def forward(ctx, kernel: Kernel, c: Scalar, w: Scalar, *vectors: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.numbers = [None if isinstance(s, Tensor) else s for s in (c, w)]
        ctx.save_for_backward(*vectors, *(s for s in (c, w) if isinstance(s, Tensor)))
        return kernel.values(vectors, c, w)

    @staticmethod
    def backward(ctx, grad: Tensor):
        *vectors, c, w = _saved(ctx)
        _, by_c, by_w, *by_vectors = ctx.needs_input_grad
        wanted = [*by_vectors, by_c, by_w]
        if torch.is_grad_enabled() or not _ordinary(vectors, c, w, ctx.kernel.pairs):
            found = _by_definition(ctx.kernel, vectors, c, w, grad, wanted)
        else:
            found = ctx.kernel.gradients(vectors, c, w, grad, wanted)
        remaining = iter(found)
        *of_vectors, of_c, of_w = [next(remaining) if want else None for want in wanted]
        return None, of_c, of_w, *of_vectors


def _saved(ctx) -> list:
    """Vectors, curvature and weight, of which the last two may be plain numbers."""
    saved = list(ctx.saved_tensors)
    for at, number in enumerate(ctx.numbers):
        if number is not None:
            saved.insert(len(saved) - ctx.numbers[at:].count(None), number)
    return saved


def _by_definition(kernel: Kernel, vectors, c, w, grad: Tensor, wanted) -> Sequence[Tensor]:
    """Gradients that can be differentiated again."""
    with torch.enable_grad():
        out = kernel.definition(vectors, c, w)
        given = [s for s, want in zip((*vectors, c, w), wanted, strict=True) if want]
        return torch.autograd.grad(out, given, grad, create_graph=True)


def _ordinary(vectors, c, w, pairs: bool) -> bool:
    """Whether all are what the kernels take: vectors of float32, with positive float curvature."""
    d = vectors[0].shape[-1:]
    for v in vectors:
        if (
            type(v) not in MEMORY
            or v.dtype is not torch.float32
            or not v.is_cpu
            or v.layout is not torch.strided
            or v.shape[-1:] != d
            or v.numel() == 0
            or (pairs and v.dim() != 2)
        ):
            return False
    for s in (c, w):
        if isinstance(s, Tensor) and (type(s) not in MEMORY or not s.is_cpu):
            return False
    return (
        bool(d)
        and (isinstance(c, Tensor) or 0 < c < float("inf"))
        and not _domain.checking()
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and _native.library() is not None
    )


def _recorded(vectors, c, w) -> bool:
    """Whether a gradient is recorded."""
    return any(isinstance(given, Tensor) and given.requires_grad for given in (*vectors, c, w))


def _dense(x: Tensor) -> Tensor:
    """The tensor as it lies in memory, row after row."""
    return x if x.is_contiguous() and not x.is_neg() else x.resolve_neg().contiguous()


def _numbers(s: Scalar, batch: Sequence[int]) -> tuple[Tensor | None, float]:
    """A scalar as one number a row, or as one for all rows."""
    if not isinstance(s, Tensor):
        return None, s
    if s.numel() == 1:
        return None, s.item()
    return s.detach().double().expand(batch).contiguous(), 0.0


def _as_tensor(s: Scalar, like: Tensor) -> Tensor:
    return s if isinstance(s, Tensor) else like.new_full((), s, dtype=torch.float64)


def _traceable(vectors, c: Scalar, w: Scalar, pairs: bool) -> bool:
    """What :func:`_ordinary` asks, of tensors that have no values yet."""
    return (
        (isinstance(c, Tensor) or c > 0)
        and not torch.compiler.is_exporting()  # an exported graph should not need this package
        and all(s.device.type == "cpu" for s in (c, w) if isinstance(s, Tensor))
        and all(
            v.dtype == torch.float32
            and v.device.type == "cpu"
            and v.shape[-1] == vectors[0].shape[-1]
            and (v.dim() == 2 if pairs else v.dim() > 0)
            for v in vectors
        )
        and _available()
    )


@torch.compiler.assume_constant_result
def _available() -> bool:
    """Asked while tracing: whether there are kernels, and no vmap or func.grad around the call."""
    return torch._C._functorch.peek_interpreter_stack() is None and _native.library() is not None


_OPERATORS = torch.library.Library("geodapt", "DEF")
_OPERATORS.define("one_pass(str kernel, Tensor[] vectors, Tensor c, Tensor w) -> Tensor")
_OPERATORS.define(
    "one_pass_backward(str kernel, Tensor[] vectors, Tensor c, Tensor w, Tensor grad, "
    "bool[] wanted) -> Tensor[]"
)


@torch.library.impl(_OPERATORS, "one_pass", "CPU")
def _(kernel: str, vectors: list[Tensor], c: Tensor, w: Tensor) -> Tensor:
    found = KERNELS[kernel]
    if _ordinary(vectors, c, w, found.pairs):
        return found.values(vectors, c, w)
    return found.definition(vectors, c, w).clone()


@torch.library.impl(_OPERATORS, "one_pass_backward", "CPU")
def _(kernel: str, vectors, c: Tensor, w: Tensor, grad: Tensor, wanted) -> list[Tensor]:
    found = KERNELS[kernel]
    if _ordinary(vectors, c, w, found.pairs):
        return found.gradients(vectors, c, w, grad, wanted)
    *vectors, c, w = [t.detach().requires_grad_() for t in (*vectors, c, w)]
    return list(_by_definition(found, vectors, c, w, grad, wanted))


@torch.library.register_fake("geodapt::one_pass", lib=_OPERATORS)
def _(kernel: str, vectors: list[Tensor], c: Tensor, w: Tensor) -> Tensor:
    found = KERNELS[kernel]
    return found.empty(vectors, found.batch(vectors, c, w))


@torch.library.register_fake("geodapt::one_pass_backward", lib=_OPERATORS)
def _(kernel: str, vectors, c: Tensor, w: Tensor, grad: Tensor, wanted) -> list[Tensor]:
    given = (*vectors, c, w)
    return [t.new_empty(t.shape) for t, want in zip(given, wanted, strict=True) if want]


def _keep(ctx, inputs, output: Tensor) -> None:
    ctx.kernel, vectors, c, w = inputs
    ctx.save_for_backward(*vectors, c, w)


def _operator_backward(ctx, grad: Tensor):
    *vectors, c, w = ctx.saved_tensors
    _, by_vectors, by_c, by_w = ctx.needs_input_grad
    wanted = [*by_vectors, by_c, by_w]
    found = iter(torch.ops.geodapt.one_pass_backward(ctx.kernel, vectors, c, w, grad, wanted))
    *of_vectors, of_c, of_w = (next(found) if want else None for want in wanted)
    return None, of_vectors, of_c, of_w


torch.library.register_autograd(
    "geodapt::one_pass", _operator_backward, setup_context=_keep, lib=_OPERATORS
)
