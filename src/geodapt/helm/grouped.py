"""The experts' linear maps: a matrix for each run of rows."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.integrations.moe import _grouped_mm

from geodapt.helm.rows import member


def grouped_linear(
    x: Float[Tensor, "rows d_in"],
    time: Float[Tensor, "rows"],
    weight: Float[Tensor, "e d_out d_in"],
    time_weight: Float[Tensor, "e d_out"],
    expert: Int[Tensor, "rows"],
    ends: Int[Tensor, "e"],
) -> Float[Tensor, "rows d_out"]:
    """``W_e x + w_e t``: each row by its expert's weights.

    Rows come sorted by expert; ``ends`` says where each expert's end.
    """
    if torch.is_autocast_enabled(x.device.type):  # which does not know grouped products
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    if x.dtype != torch.float64 and aligned:  # PyTorch's own kernels take nothing else
        y = _grouped_mm(x, weight.mT, ends)
    elif torch.compiler.is_compiling():
        y = torch.ops.transformers.grouped_mm_fallback(x, weight.mT, ends)
    else:  # whose gradient, unlike that operator's, has one
        y = torch.cat([x[rows] @ weight[e].mT for e, rows in _runs(ends)])
    return add_times(y, time, expert, time_weight)


def add_times(
    y: Float[Tensor, "rows d"],
    time: Float[Tensor, "rows"],
    expert: Int[Tensor, "rows"],
    weight: Float[Tensor, "e d"],
) -> Float[Tensor, "rows d"]:
    """``y + t w_e``, as one product with few columns: no ``w_e`` is copied for each row."""
    of_e = member(expert, len(weight), y.dtype)
    return torch.addmm(y, of_e * time.unsqueeze(-1).to(y.dtype), weight.to(y.dtype))


def _runs(ends: Int[Tensor, "e"]) -> Iterator[tuple[int, slice]]:
    start = 0
    for e, end in enumerate(ends.tolist()):
        yield e, slice(start, end)
        start = end
