"""Checks of arguments, and the mode that checks their values too.

Types, shapes and plain numbers are checked in every call. Checking a tensor's values would wait for
the device, so bad values give NaN instead: never a plausible number.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from geodapt.checks import number
from geodapt.errors import InputError

POSITIVE = "a positive number (the space has curvature -c)"

_checking = False


@contextmanager
def checked() -> Iterator[None]:
    """Within the block, every function raises :class:`InputError` for an argument out of domain.

    It names the function's argument, how many rows are wrong and the first of them. Without it, a
    tensor's value outside the domain gives NaN, never a plausible number; the check costs a pass
    over the data and, on a GPU, a synchronisation.
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


def prepare(
    c: float | Tensor, *, pairs: bool = False, **vectors: Tensor
) -> tuple[float | Tensor, list[Tensor], torch.dtype]:
    """Curvature and vectors ready to compute with, and the type of the result.

    They must be floating-point vectors of one width whose batch dimensions broadcast, and a
    curvature that broadcasts with these without adding to them. The arithmetic is the inputs' own
    or float32, whichever is wider; the result has the vectors' type. With ``pairs`` each row of
    the first meets each row of the second.
    """
    first, *others = vectors.values()
    if (  # what most calls are: 2 us and not 15
        isinstance(first, Tensor)
        and first.dtype in (torch.float32, torch.float64)
        and first.dim() > pairs
        and type(c) is float
        and 0 < c < math.inf
        and not _checking
        and all(
            isinstance(x, Tensor) and x.dtype == first.dtype and x.shape == first.shape
            for x in others
        )
    ):
        return c, [first, *others], first.dtype
    for name, x in vectors.items():
        vector(name, x)
    widths = {name: x.shape[-1] for name, x in vectors.items()}
    if len(set(widths.values())) > 1:
        said = " and ".join(f"{name} is {width} wide" for name, width in widths.items())
        raise InputError(f"{said}; vectors of one space have one width, their last dimension")
    result = _common(x.dtype for x in vectors.values())
    c = positive("c", c, POSITIVE)
    wide = _common([result, torch.float32, *([c.dtype] if isinstance(c, Tensor) else [])])
    fits("c", c, _batch(vectors, pairs), "the points'")
    c = c.to(wide) if isinstance(c, Tensor) else c
    return c, [x.to(wide) for x in vectors.values()], result


def vector(name: str, x: Tensor) -> None:
    """Refuse anything but floating-point vectors."""
    if not isinstance(x, Tensor):
        raise InputError(f"{name} is a {type(x).__name__}; expected a tensor of vectors")
    if x.dim() == 0 or not x.is_floating_point():
        raise InputError(
            f"{name} has shape {tuple(x.shape)} and type {x.dtype}; expected floating-point "
            "vectors along the last dimension"
        )
    if _checking:
        require_values(torch.isfinite(x).all(-1), name, "finite", x)


def positive(name: str, c: float | Tensor, expected: str) -> float | Tensor:
    """A positive number, or a tensor of numbers with NaN in place of those that are not positive.

    Raises :class:`InputError` for a plain number that is not positive, and for anything but
    numbers.
    """
    if isinstance(c, Tensor):
        if not _real(c):
            raise InputError(f"{name} is of type {c.dtype}; expected floating-point numbers")
        valid = (c > 0) & (c < math.inf)
        if _checking:
            require_values(valid, name, f"positive ({expected.partition('(')[2]}", c)
        return torch.where(valid, c, math.nan)
    c = number(name, c, expected)
    if not 0 < c < math.inf:
        raise InputError(f"{name} is {c}; expected {expected}")
    return c


def nonnegative(name: str, w: float | Tensor) -> float | Tensor:
    """A weight, of which a sum of points needs 0 or more: else it may leave the light cone.

    A tensor's negative values become NaN.
    """
    if isinstance(w, Tensor):
        if not _real(w):
            raise InputError(f"{name} is of type {w.dtype}; expected real numbers")
        if _checking:
            require_values(w >= 0, name, "0 or more", w)
        return torch.where(w >= 0, w, math.nan)
    if not 0 <= w < math.inf:
        raise InputError(f"{name} is {w}; expected a number of 0 or more")
    return w


def row_number(name: str, value: float | Tensor, *vectors: Tensor) -> float | Tensor:
    """A plain finite number, or a tensor of one for each row of the vectors, in their type."""
    if isinstance(value, Tensor):
        if not _real(value):
            raise InputError(f"{name} is of type {value.dtype}; expected real numbers")
        shapes = {str(place): x.shape[:-1] for place, x in enumerate(vectors)}
        fits(name, value, broadcast(shapes), "the points'")
        return value.to(vectors[0].dtype)
    value = number(name, value, "a finite number")
    if not -math.inf < value < math.inf:
        raise InputError(f"{name} is {value}; expected a finite number")
    return value


def fits(name: str, value: object, batch: torch.Size, whose: str) -> None:
    """Refuse a tensor of one number per row that has more rows than the batch.

    A tensor (5, 1) with 5 points would broadcast to 25 results.
    """
    if not isinstance(value, Tensor):
        return
    shape = value.shape
    if len(shape) > len(batch) or any(
        a not in (1, b) for a, b in zip(shape[::-1], batch[::-1], strict=False)
    ):
        raise InputError(
            f"{name} has shape {tuple(shape)}, which does not broadcast into {whose} batch "
            f"{tuple(batch)}; expected one number, or one for each row of the batch"
        )


def broadcast(vectors: dict[str, torch.Size]) -> torch.Size:
    """The batch shapes' common one; raises :class:`InputError` where there is none."""
    try:
        return torch.broadcast_shapes(*vectors.values())
    except RuntimeError as error:
        said = " and ".join(f"{name} the batch {tuple(s)}" for name, s in vectors.items())
        raise InputError(f"{said}; expected batch dimensions that broadcast") from error


def _batch(vectors: dict[str, Tensor], pairs: bool) -> torch.Size:
    shapes = {name: x.shape[:-1] for name, x in vectors.items()}
    if not pairs:
        return broadcast(shapes)
    for name, x in vectors.items():
        if x.dim() < 2:
            raise InputError(f"{name} has shape {tuple(x.shape)}; expected rows of vectors, (n, d)")
    rows = [shape[-1] for shape in shapes.values()]
    return torch.Size((*broadcast({name: s[:-1] for name, s in shapes.items()}), *rows))


def _real(c: object) -> bool:
    return isinstance(c, Tensor) and not c.is_complex() and c.dtype != torch.bool


def _common(dtypes) -> torch.dtype:
    dtypes = list(dtypes)
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = torch.promote_types(result, dtype)
    return result


def require_values(holds: Tensor, name: str, expected: str, value: Tensor) -> None:
    """In the checked mode: refuse values for which a condition does not hold."""
    if not bool(holds.all()):
        wrong = (~holds).nonzero()
        first = tuple(wrong[0].tolist())
        raise InputError(
            f"{name}: {len(wrong)} of {holds.numel()} values are not {expected}; the first is "
            f"{name}{list(first) if first else ''} = {value[first].tolist()!r:.200}"
        )
