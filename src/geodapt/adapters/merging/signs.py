"""Adding sparse updates where their signs agree."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def merge_agreeing(
    deltas: Sequence[Float[Tensor, "out in"]], weights: Sequence[float]
) -> Float[Tensor, "out in"]:
    """Elect a sign for every entry, then average those that have it.

    The sign with the greater total magnitude wins (zero counts as positive); the result is the
    weighted sum over the updates with that sign, divided by their number.

    Source: TIES, Yadav et al. 2023, arXiv:2306.01708, section 4, steps 2 and 3.
    """
    # Sums of the positive and of the negative entries, and how many there are of each.
    total, positive, negative = (torch.zeros_like(deltas[0]) for _ in range(3))
    balance, count = torch.zeros_like(total), torch.zeros_like(total)
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta
        positive.add_(delta.clamp(min=0), alpha=weight)
        negative.add_(delta.clamp(max=0), alpha=weight)
        sign = delta.sign()
        balance += sign
        count += sign.abs_()
    up = positive.div_((count + balance).div_(2).clamp_(min=1))
    down = negative.div_((count - balance).div_(2).clamp_(min=1))
    return torch.where(total >= 0, up, down)
