"""The weight of a compressed layer: a tensor that computes its own product.

A compressed layer stays the ``nn.Linear`` that it was, at its path in the model; only its weight
is of another kind, as torchao does it. So the model's code, ``generate``, PEFT and
:class:`geodapt.adapters.AdapterBank` see nothing new.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from geodapt.compress import quantization
from geodapt.compress.layer_format import LayerFormat
from geodapt.compress.quantization import narrow
from geodapt.compress.standin import StandIn, aten
from geodapt.compress.svd import SvdFactors, Whitening, truncated_svd
from geodapt.errors import InputError

ROUNDS = 4
"""How many times integers and correction are fitted in turn, each to what the other leaves."""


class Compressed(StandIn):
    """``W = B A``, ``W = integers``, or ``W = integers + B A``; ``linear`` computes with the parts.

    ``integers`` is a tensor of torchao's; with factors, one large product becomes two small ones.
    """

    A: Float[Tensor, "rank in"] | None
    B: Float[Tensor, "out rank"] | None
    integers: Tensor | None

    def __new__(
        cls, A: Tensor | None = None, B: Tensor | None = None, integers: Tensor | None = None
    ) -> "Compressed":
        if A is not None and B is not None:
            shape, like = (B.shape[0], A.shape[1]), A
        else:
            assert integers is not None
            shape, like = (integers.shape[0], integers.shape[1]), integers
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(
        self, A: Tensor | None = None, B: Tensor | None = None, integers: Tensor | None = None
    ) -> None:
        super().__init__()
        self.A, self.B, self.integers = A, B, integers

    def parts(self) -> dict[str, Tensor]:
        parts = {"A": self.A, "B": self.B, "integers": self.integers}
        return {name: part for name, part in parts.items() if part is not None}

    def dequantize(self) -> Float[Tensor, "out in"]:
        """The matrix that it stands for."""
        integers = None if self.integers is None else self.integers.dequantize()
        if self.A is None or self.B is None:
            assert integers is not None
            return integers
        low = self.B @ self.A
        return low if integers is None else low + integers

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is linear and isinstance(args[0], Tensor) and not isinstance(args[0], StandIn):
            return _linear(*args, **kwargs)
        return super().__torch_function__(func, types, args, kwargs)


def _linear(input: Tensor, weight: Compressed, bias: Tensor | None = None) -> Tensor:
    if weight.A is None or weight.B is None:
        assert weight.integers is not None
        return linear(input, weight.integers, bias)
    y = linear(linear(input, weight.A), weight.B, bias)
    return y if weight.integers is None else y + linear(input, weight.integers)


class Experts(StandIn):
    """The stacked weights of fused experts: one compressed matrix per expert.

    ``experts[i]`` is the dense matrix of expert i, so that a model that computes with one expert at
    a time has one in memory; other operations see the dense stack.
    """

    def __new__(cls, weights: Sequence[Compressed], transposed: bool = False) -> "Experts":
        out_features, in_features = weights[0].shape
        shape = (in_features, out_features) if transposed else (out_features, in_features)
        return torch.Tensor._make_wrapper_subclass(
            cls, (len(weights), *shape), dtype=weights[0].dtype, device=weights[0].device
        )

    def __init__(self, weights: Sequence[Compressed], transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        """Whether the model's stack is ``(expert, in, out)`` and not ``(expert, out, in)``."""
        self.count = len(weights)
        for number, weight in enumerate(weights):
            setattr(self, f"expert_{number}", weight)

    def parts(self) -> dict[str, Tensor]:
        return {f"expert_{number}": weight for number, weight in enumerate(self.weights)}

    @property
    def weights(self) -> list[Compressed]:
        """Each expert's weight, output by input."""
        return [getattr(self, f"expert_{number}") for number in range(self.count)]

    def rebuilt(self, parts: dict[str, Tensor]) -> "Experts":
        return Experts(cast(list[Compressed], list(parts.values())), self.transposed)

    def expert(self, number: int) -> Tensor:
        """The dense matrix of one expert, as the model's stack has it."""
        W = dense(self.weights[number])
        return W.T if self.transposed else W

    def dequantize(self) -> Tensor:
        return torch.stack([self.expert(number) for number in range(self.count)])

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return list(self.parts()), self.transposed

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], transposed: Any, *_: Any) -> "Experts":
        return cls(cast(list[Compressed], list(parts.values())), transposed)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is aten.select.int and args[1] == 0:
            return args[0].expert(int(args[2]) % args[0].count)
        if func is aten.index.Tensor and len(args[1]) == 1 and args[1][0].numel() == 1:
            number = args[1][0]
            return args[0].expert(int(number)).reshape(*number.shape, *args[0].shape[1:])
        return super().__torch_dispatch__(func, types, args, kwargs)


def build_compressed(
    W: Float[Tensor, "out in"], form: LayerFormat, whitening: Whitening
) -> Compressed:
    """Compress a weight to a format. Scales and factors are already rounded to 16 bits here.

    Where there are both, integers and factors are fitted in turn, each to what the other leaves,
    and the best pair is kept (the alternation of LoftQ, Li et al. 2023, under the inputs' weights
    as in CALDERA, Saha et al. 2024).
    """
    if form.width is None:
        return Compressed(*_rounded(truncated_svd(W, form.rank, whitening), W.dtype))
    if not form.rank:
        return Compressed(integers=quantization.quantise(W, form))
    best: Compressed | None = None
    least = float("inf")
    low: Tensor | float = 0.0
    for _ in range(ROUNDS):
        codes = quantization.quantise((W.double() - low).to(W.dtype), form)
        A, B = _rounded(truncated_svd(W - codes.dequantize(), form.rank, whitening), W.dtype)
        weight = Compressed(A, B, codes)
        error = whitening.energy(W - weight.dequantize())
        if best is None or error < least:
            best, least = weight, error
        low = B.double() @ A.double()
    assert best is not None
    return best


def dense(weight: Tensor) -> Tensor:
    """The dense matrix, or stack of matrices, of a weight, compressed or not."""
    return weight.dequantize() if is_compressed(weight) else weight.detach()


def is_compressed(weight: Any) -> bool:
    """Whether a weight is one that :func:`build_compressed` makes, or a stack of those."""
    return isinstance(weight, StandIn)


def format_of(weight: Compressed) -> LayerFormat:
    """The format of a weight that :func:`build_compressed` made."""
    base = (
        LayerFormat() if weight.integers is None else quantization.integer_format(weight.integers)
    )
    return LayerFormat(base.width, base.group, 0 if weight.A is None else weight.A.shape[0])


def take_apart(weight: Compressed) -> dict[str, Tensor]:
    """The tensors that a weight is stored as: ``codes`` and ``scale``, ``A`` and ``B``."""
    parts = {} if weight.integers is None else quantization.pack(weight.integers)
    if weight.A is not None and weight.B is not None:
        parts |= {name: weight.parts()[name].to(narrow(weight.dtype)) for name in ("A", "B")}
    for name, part in parts.items():
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise InputError(
                f"a compressed weight cannot be stored: its {name} is not finite in {part.dtype}; "
                "save the model in the float type in which it was compressed"
            )
    return parts


def put_together(
    parts: dict[str, Tensor], form: LayerFormat, shape: tuple[int, int], dtype: torch.dtype
) -> Compressed:
    """The weight that :func:`take_apart` took apart."""
    codes = None if form.width is None else quantization.unpack(parts, form, shape, dtype)
    if not form.rank:
        return Compressed(integers=codes)
    return Compressed(parts["A"].to(dtype), parts["B"].to(dtype), codes)


def _rounded(factors: SvdFactors, dtype: torch.dtype) -> SvdFactors:
    return SvdFactors(*(factor.to(narrow(dtype)).to(dtype) for factor in factors))
