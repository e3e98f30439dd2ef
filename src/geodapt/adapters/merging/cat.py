"""All the adapters' factors one below the other."""

from collections.abc import Sequence

import torch

from geodapt.adapters.merging.registry import LowRank, Part, register


@register(
    "cat",
    "keeps all factors side by side: the exact weighted sum, of rank r_1 + ... + r_n",
    "PEFT add_weighted_adapter, combination_type='cat'",
    truncates=False,
    exact=True,
)
def cat(parts: Sequence[Part]) -> LowRank:
    """``[w_1 B_1 ... w_n B_n] [A_1; ...; A_n]``: nothing is computed and nothing is lost."""
    return LowRank(
        torch.cat([part.B * part.weight for part in parts], dim=1),
        torch.cat([part.A for part in parts]),
    )
