"""The loss that keeps the experts of HELM-MiCE evenly loaded within each sequence."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.helm.config import HelmConfig
from geodapt.helm.router import affinities


def sequence_balance_loss(
    router_logits: tuple[Float[Tensor, "tokens e"], ...],
    config: HelmConfig,
    rows: int,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Sequence-wise balance loss, the mean over layers and rows of ``sum_i f_i P_i``.

    With T tokens in a row, ``f_i = e / (k T)`` times the number of tokens whose k best affinities
    include expert i, and ``P_i`` the mean of the affinities, each token's divided by their sum.
    Equal shares give 1. Padding is left out (DeepSeek-V3, eq. 17 to 20).
    """
    logits = torch.stack(router_logits)
    scores = affinities(logits.view(len(router_logits), rows, -1, logits.shape[-1]), config)
    experts, k = scores.shape[-1], config.num_experts_per_tok
    best = torch.zeros_like(scores).scatter(-1, scores.topk(k, dim=-1).indices, 1.0)
    shares = scores / scores.sum(-1, keepdim=True)
    if attention_mask is not None and attention_mask.dim() == 2:
        mask = attention_mask[:, -scores.shape[2] :, None].to(scores.dtype)
        count = mask.sum(1).clamp_min(1)
        f, p = (best * mask).sum(2) / count, (shares * mask).sum(2) / count
    else:
        f, p = best.mean(2), shares.mean(2)
    return experts / k * (f * p).sum(-1).mean()
