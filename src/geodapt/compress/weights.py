"""The weight of a compressed layer: a tensor that computes its own product.

A compressed layer stays the ``nn.Linear`` that it was, at its path in the model; only its weight
is of another kind, as torchao does it. So the model's code, ``generate``, PEFT and
:class:`geodapt.adapters.AdapterBank` see nothing new.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear
from torchao.utils import TorchAOBaseTensor

from geodapt.compress import integers
from geodapt.compress.forms import Form
from geodapt.compress.integers import narrow
from geodapt.compress.svd import Factors, Whitening, truncate

ROUNDS = 4
"""How often integers and correction are fitted to what the other leaves."""


class LowRank(TorchAOBaseTensor):
    """``W = B A``, or ``W = integers + B A``: two thin linear products in place of a thick one."""

    tensor_data_names = ["A", "B"]
    tensor_attribute_names: list[str] = []
    optional_tensor_data_names = ["integers"]

    A: Float[Tensor, "rank in"]
    B: Float[Tensor, "out rank"]
    integers: Tensor | None

    def __new__(cls, A: Tensor, B: Tensor, integers: Tensor | None = None) -> "LowRank":
        return torch.Tensor._make_wrapper_subclass(
            cls, (B.shape[0], A.shape[1]), dtype=A.dtype, device=A.device
        )

    def __init__(self, A: Tensor, B: Tensor, integers: Tensor | None = None) -> None:
        super().__init__()
        self.A, self.B, self.integers = A, B, integers

    def dequantize(self) -> Float[Tensor, "out in"]:
        """The matrix that it stands for."""
        low = self.B @ self.A
        return low if self.integers is None else low + self.integers.dequantize()


@LowRank.implements(torch.ops.aten.linear.default)
@LowRank.implements_torch_function(linear)
def _linear(func: Any, types: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, weight, *rest = args
    bias = rest[0] if rest else kwargs.get("bias")
    y = linear(linear(x, weight.A), weight.B, bias)
    return y if weight.integers is None else y + linear(x, weight.integers)


@LowRank.implements(torch.ops.aten._to_copy.default)
def _to_copy(func: Any, types: Any, args: tuple, kwargs: dict[str, Any]) -> LowRank:
    """Another device or float type (torchao's own version knows devices alone)."""
    weight = args[0]
    to = weight._get_to_kwargs(*args[1:], **kwargs)
    return weight._apply_fn_to_data(lambda part: part.to(device=to["device"], dtype=to["dtype"]))


def build(W: Float[Tensor, "out in"], form: Form, whitening: Whitening) -> Tensor:
    """The weight in a form; scales and factors are rounded to their 16 bits here already.

    With integers and factors both, each is fitted in turn to what the other leaves, and the best
    pair is kept (the alternation of LoftQ, Li et al. 2023, under the inputs' weights as in
    CALDERA, Saha et al. 2024).
    """
    if form.width is None:
        return LowRank(*_rounded(truncate(W, form.rank, whitening), W.dtype))
    if not form.rank:
        return integers.quantise(W, form)
    best: Tensor | None = None
    least = float("inf")
    low: Tensor | float = 0.0
    for _ in range(ROUNDS):
        codes = integers.quantise((W.double() - low).to(W.dtype), form)
        A, B = _rounded(truncate(W - codes.dequantize(), form.rank, whitening), W.dtype)
        weight = LowRank(A, B, codes)
        error = whitening.energy(W - weight.dequantize())
        if error < least:
            best, least = weight, error
        low = B.double() @ A.double()
    assert best is not None
    return best


def dense(weight: Tensor) -> Float[Tensor, "out in"]:
    """The matrix that a weight of any kind stands for."""
    return weight.dequantize() if is_compressed(weight) else weight.detach()


def is_compressed(weight: Tensor) -> bool:
    """Whether a weight is one that :func:`build` makes."""
    return isinstance(weight, LowRank) or integers.is_integers(weight)


def form_of(weight: Tensor) -> Form:
    """The form of a weight that :func:`build` made."""
    if not isinstance(weight, LowRank):
        return integers.form_of(weight)
    base = Form() if weight.integers is None else integers.form_of(weight.integers)
    return Form(base.width, base.group, weight.A.shape[0])


def take_apart(weight: Tensor) -> dict[str, Tensor]:
    """The tensors that a weight is stored as: ``codes`` and ``scale``, ``A`` and ``B``."""
    if not isinstance(weight, LowRank):
        return integers.pack(weight)
    parts = {} if weight.integers is None else integers.pack(weight.integers)
    return {**parts, "A": weight.A.to(narrow(weight.dtype)), "B": weight.B.to(narrow(weight.dtype))}


def put_together(
    parts: dict[str, Tensor], form: Form, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """The weight that :func:`take_apart` took apart."""
    codes = None if form.width is None else integers.unpack(parts, form, shape, dtype)
    if not form.rank:
        assert codes is not None
        return codes
    return LowRank(parts["A"].to(dtype), parts["B"].to(dtype), codes)


def _rounded(factors: Factors, dtype: torch.dtype) -> Factors:
    return Factors(*(factor.to(narrow(dtype)).to(dtype) for factor in factors))
