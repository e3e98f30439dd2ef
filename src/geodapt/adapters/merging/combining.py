"""What the entries of several updates at one place become together."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def weighted_sum(
    deltas: Float[Tensor, "n *places"], weights: Float[Tensor, "n"]
) -> Float[Tensor, "*places"]:
    """``sum_i w_i delta_i``, in one pass over the updates."""
    return (weights[None] @ deltas.flatten(1)).view(deltas.shape[1:])


def merge_agreeing(
    deltas: Float[Tensor, "n *places"], weights: Float[Tensor, "n"]
) -> Float[Tensor, "*places"]:
    """Elect a sign for every entry, then average those that have it; writes over ``deltas``.

    The sign with the greater total magnitude wins (zero counts as positive); the result is the
    weighted sum over the updates with that sign, divided by their number.

    Source: TIES, Yadav et al. 2023, arXiv:2306.01708, section 4, steps 2 and 3.
    """
    sign = weighted_sum(deltas, torch.ones_like(weights)).ge_(0).mul_(2).sub_(1)
    agreeing = deltas.mul_(sign).clamp_(min=0)
    # numpy counts several times faster, in bytes where they suffice.
    dtype = np.min_scalar_type(len(deltas))
    count = torch.from_numpy(np.add.reduce(agreeing.numpy() > 0, axis=0, dtype=dtype))
    return weighted_sum(agreeing, weights).mul_(sign).div_(count.to(deltas.dtype).clamp_(min=1))


Combine = Callable[[Tensor, Tensor], Tensor]
"""One of these."""
