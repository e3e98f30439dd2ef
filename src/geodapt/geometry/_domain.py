"""What each argument must satisfy, and the mode that checks it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from geodapt.errors import InputError

_checking = False


@contextmanager
def checked() -> Iterator[None]:
    """Within the block, every function raises :class:`InputError` for an argument out of domain.

    It names the function's argument, how many rows are wrong and the first of them. Without it,
    an argument outside the domain gives NaN or infinity, never a plausible number; the check
    costs a pass over the data and, on a GPU, a synchronisation.
    """
    global _checking
    before, _checking = _checking, True
    try:
        yield
    finally:
        _checking = before


def checking() -> bool:
    """Whether the checked mode is on."""
    return _checking


def wide(x: Tensor) -> Tensor:
    """The tensor in the type that scalars are computed in."""
    return x.float() if x.device.type == "mps" else x.double()  # Apple's GPUs have no float64


def curvature(c: float | Tensor) -> float | Tensor:
    """``c`` ready to compute with; raises :class:`InputError` unless it is positive."""
    if isinstance(c, Tensor):
        if _checking:
            _require(torch.isfinite(c) & (c > 0), "c", "positive (the space has curvature -c)", c)
        return wide(c)
    if not 0 < c < float("inf"):
        raise InputError(f"c is {c}; expected a positive number (the space has curvature -c)")
    return float(c)


def vectors(**arguments: Tensor) -> None:
    """Check that vectors are finite, and always that they are floating point with dimensions."""
    for name, x in arguments.items():
        if x.dim() == 0 or not x.is_floating_point():
            raise InputError(
                f"{name} has shape {tuple(x.shape)} and type {x.dtype}; expected floating-point "
                "vectors along the last dimension"
            )
        if _checking:
            _require(torch.isfinite(x).all(-1), name, "finite", x)


def in_ball(c: float | Tensor, **arguments: Tensor) -> None:
    """Check that points lie inside the ball ``c |x|^2 < 1``."""
    vectors(**arguments)
    if _checking:
        for name, x in arguments.items():
            _require(c * wide(x).square().sum(-1) < 1, name, "inside the ball, c |x|^2 < 1", x)


def nonnegative(**arguments: Tensor | float) -> None:
    """Check that weights are not negative: otherwise a sum of points may leave the light cone."""
    if _checking:
        for name, value in arguments.items():
            value = torch.as_tensor(value)
            _require(value >= 0, name, "0 or more", value)


def _require(holds: Tensor, name: str, expected: str, value: Tensor) -> None:
    if not bool(holds.all()):
        wrong = (~holds).nonzero()
        first = tuple(wrong[0].tolist())
        raise InputError(
            f"{name}: {len(wrong)} of {holds.numel()} values are not {expected}; the first is "
            f"{name}{list(first) if first else ''} = {value[first].tolist()!r:.200}"
        )
