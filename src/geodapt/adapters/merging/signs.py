"""Adding sparse updates where their signs agree."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.merging.bands import weighted_sum


def merge_agreeing(
    deltas: Float[Tensor, "n band in"], weights: Float[Tensor, "n"]
) -> Float[Tensor, "band in"]:
    """Elect a sign for every entry, then average those that have it; writes over ``deltas``.

    The sign with the greater total magnitude wins (zero counts as positive); the result is the
    weighted sum over the updates with that sign, divided by their number.

    Source: TIES, Yadav et al. 2023, arXiv:2306.01708, section 4, steps 2 and 3.
    """
    sign = weighted_sum(torch.ones_like(weights), deltas).ge_(0).mul_(2).sub_(1)
    agreeing = deltas.mul_(sign).clamp_(min=0)
    # numpy counts several times faster, in bytes where they suffice.
    dtype = np.min_scalar_type(len(deltas))
    count = torch.from_numpy(np.add.reduce(agreeing.numpy() > 0, axis=0, dtype=dtype))
    return weighted_sum(weights, agreeing).mul_(sign).div_(count.to(deltas.dtype).clamp_(min=1))
