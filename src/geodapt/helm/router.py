"""The gate of MiCE: affinities of tokens to experts, the choice, and the balance of loads.

Source: DeepSeek-V3, section 2.1.2.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from geodapt.helm.config import HelmConfig
from geodapt.helm.lorentz_layers import wide


class HelmRouter(nn.Module):
    """The gate: which routed experts a token goes to, and with what weights.

    ``e_score_correction_bias`` affects only the choice, not the weights. :meth:`balance` moves it
    against the load since the last call.
    """

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: HelmConfig) -> None:
        super().__init__()
        self.config = config
        experts = config.n_routed_experts
        self.weight = nn.Parameter(torch.zeros(experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts))  # kept, so that a resumed step is equal

    def forward(
        self, x: Float[Tensor, "tokens d"], counted: Bool[Tensor, " tokens"] | None = None
    ) -> tuple[Float[Tensor, "tokens e"], Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
        """Logits, weights of the chosen experts, and which they are; in float32 or wider.

        The load counts the tokens that ``counted`` selects, so that padding is left out.
        """
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(wide(x), wide(self.weight))
        scores = affinities(logits, config)
        chosen = self._choose(scores.detach() + self.e_score_correction_bias)
        if self.training:
            self.load.add_(expert_load(chosen, config.n_routed_experts, counted))
        weights = scores.gather(-1, chosen)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return logits, weights * config.routed_scaling_factor, chosen

    def _choose(self, scores: Float[Tensor, "tokens e"]) -> Int[Tensor, "tokens k"]:
        """The best experts of the best groups; a group is scored by its two best experts."""
        groups = self.config.n_group
        if groups > 1:
            by_group = scores.unflatten(-1, (groups, -1))
            best = by_group.topk(min(2, by_group.shape[-1]), dim=-1).values.sum(-1)
            kept = best.topk(self.config.topk_group, dim=-1, sorted=False).indices
            outside = torch.ones_like(best, dtype=torch.bool).scatter(-1, kept, False)
            scores = by_group.masked_fill(outside.unsqueeze(-1), -torch.inf).flatten(-2)
        return scores.topk(self.config.num_experts_per_tok, dim=-1, sorted=False).indices

    @torch.no_grad()
    def balance(self) -> None:
        """One step of the bias towards equal loads (DeepSeek-V3, section 2.1.2)."""
        step = torch.sign(self.load.mean() - self.load) * self.config.bias_update_speed
        self.e_score_correction_bias.add_(step.to(self.e_score_correction_bias.dtype))
        self.load.zero_()


def affinities(logits: Float[Tensor, "*batch e"], config: HelmConfig) -> Float[Tensor, "*batch e"]:
    return logits.softmax(-1) if config.scoring_func == "softmax" else logits.sigmoid()


def expert_load(
    chosen: Int[Tensor, "tokens k"], experts: int, counted: Bool[Tensor, " tokens"] | None = None
) -> Float[Tensor, " e"]:
    """How many tokens went to each expert, of those that ``counted`` selects."""
    if counted is not None:
        chosen = torch.where(counted.unsqueeze(-1), chosen, -1)
    return torch.histc(chosen.float(), bins=experts, min=0, max=experts - 1)
