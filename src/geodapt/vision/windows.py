"""Pictures of any size through a model of one size: overlapping windows, averaged."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.errors import InputError


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows of ``size`` start, ``stride`` apart, so that they cover ``length`` exactly.

    The last one is moved back to end with the picture. Raises :class:`InputError` where the stride
    would leave gaps.
    """
    if size < 1 or not 1 <= stride <= size:
        raise InputError(
            f"windows of {size} pixels at a stride of {stride} leave gaps or have no size; give a "
            "stride from 1 to the window's size"
        )
    if length < 1:
        raise InputError(f"a picture with a side of {length} pixels has nothing to look at")
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def slide(
    compute: Callable[[Float[Tensor, "n c size size"]], Float[Tensor, "n k size size"]],
    picture: Float[Tensor, "c height width"],
    size: int,
    stride: int | None = None,
    at_once: int = 4,
    cell: int = 1,
) -> Float[Tensor, "k height width"]:
    """The map of a whole picture: each pixel has the mean over the windows that cover it.

    With ``cell`` maps have one place for each square of so many pixels, and so has the result;
    ``cell`` then divides the picture's sides, the size and the stride.

    ``compute`` gives maps of ``k`` channels as large as its windows. ``stride`` is the size where
    it is None: windows do not overlap but at the far edges. A side shorter than a window is filled
    up with zeros, the mean colour of normalised pixels, and cut off again. Memory grows with the
    picture and with ``at_once`` windows. Source: sliding inference as in CAT-Seg (Cho et al. 2024).
    """
    channels, height, width = picture.shape
    stride = size if stride is None else stride
    if any(length % cell for length in (height, width, size, stride)):
        raise InputError(
            f"places of {cell} pixels do not divide a picture of {width} x {height}, windows of "
            f"{size} and a stride of {stride}"
        )
    inner = size // cell
    places = [
        (y, x)
        for y in window_starts(height, size, stride)
        for x in window_starts(width, size, stride)
    ]
    padded = nn.functional.pad(picture, (0, max(size - width, 0), 0, max(size - height, 0)))
    total: Tensor | None = None
    grid = [side // cell for side in padded.shape[1:]]
    count = padded.new_zeros(grid)
    for begin in range(0, len(places), at_once):
        some = places[begin : begin + at_once]
        maps = compute(torch.stack([padded[:, y : y + size, x : x + size] for y, x in some]))
        if maps.dim() != 4 or maps.shape[0] != len(some) or maps.shape[2:] != (inner, inner):
            raise InputError(
                f"windows ({len(some)}, {channels}, {size}, {size}) came out as "
                f"{tuple(maps.shape)}; expected a map of {inner} x {inner} for each"
            )
        if total is None:
            total = maps.new_zeros(maps.shape[1], *grid)
        for one, (y, x) in zip(maps, some, strict=True):
            rows = slice(y // cell, y // cell + inner)
            columns = slice(x // cell, x // cell + inner)
            total[:, rows, columns] += one
            count[rows, columns] += 1
    assert total is not None
    return (total / count)[:, : height // cell, : width // cell]
