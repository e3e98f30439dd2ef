"""What trains of two towers by each method, beside the heads of a detector or of masks."""

from typing import Any

import torch
from torch import nn

from geodapt.adapters import AdapterBank, Mix, Off
from geodapt.hyperclip.attachment import Scaling, scale
from geodapt.hyperclip.scene_settings import SCALED, SceneSettings

LORA = "lora"


class TunedTowers:
    """A method on the towers of a model, until :meth:`merge` writes it into their weights."""

    def __init__(self, towers: nn.Module, method: str, settings: SceneSettings) -> None:
        self.towers, self.method, self.settings = towers, method, settings
        self.scaling: Scaling | None = None
        self.bank: AdapterBank | None = None
        towers.requires_grad_(False)
        if method == "full":
            towers.requires_grad_(True)
        elif method == LORA:
            self.bank = AdapterBank(towers)
            rank = settings.lora_rank
            self.bank.create(LORA, rank, 2 * rank, ["q_proj", "k_proj", "v_proj"])
            self.bank.train_only(LORA)
            self.bank.set(Mix({LORA: 1.0}))
        elif method.startswith(SCALED):
            block = int(method.removeprefix(SCALED))
            self.scaling = scale(towers, settings.scaling.model_copy(update={"block": block}))

    @property
    def module(self) -> nn.Module | None:
        """What holds trained numbers outside the towers, for a module that is checkpointed."""
        return self.scaling if self.bank is None else self.bank

    def parameters(self) -> list[nn.Parameter]:
        """What trains of the towers, or beside them in their place."""
        if self.bank is not None:
            return self.bank.parameters_of(LORA)
        if self.scaling is not None:
            return list(self.scaling.parameters())
        return [p for p in self.towers.parameters() if p.requires_grad]

    def groups(self, heads: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Optimizer groups: the heads, and the towers at their own step size."""
        rates, rate = self.settings.learning_rates, self.settings.training.learning_rate
        groups: list[dict[str, Any]] = [{"params": heads}]
        if own := self.parameters():
            groups.append({"params": own, "lr": rates.get(self.method, rate)})
        return groups

    @torch.no_grad()
    def merge(self) -> None:
        """Write what was tuned into the towers, which cost what they did before."""
        if self.scaling is not None:
            self.scaling.fold()
        if self.bank is not None:
            self.bank.set(Off())
            self.bank.merge_into_base({LORA: 1.0})
