"""What trains of a model's two towers by each method, beside whatever heads a task has."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import nn

from geodapt.adapters import AdapterBank, Mix, Off
from geodapt.errors import InputError
from geodapt.hyperclip.attachment import Scaling, scale
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.projections import projections
from geodapt.hyperclip.settings import ScalingSettings
from geodapt.hyperclip.tuning_settings import MethodSettings
from geodapt.vision import Clip

LORA = "lora"
TARGETS = ["q_proj", "k_proj", "v_proj"]


class TunedTowers:
    """A method on the towers of a model, until :meth:`merge` writes it into their weights."""

    def __init__(self, towers: nn.Module, method: TuningMethod, settings: MethodSettings) -> None:
        self.towers = towers
        self.scaling: Scaling | None = None
        self.bank: AdapterBank | None = None
        self.rotated: nn.Module | None = None
        towers.requires_grad_(False)
        match method.kind:
            case "full":
                towers.requires_grad_(True)
            case "query-value":
                for projection in projections(towers):
                    if projection.matrix in {"query", "value"}:
                        projection.module.weight.requires_grad_(True)
            case "lora":
                rank = settings.lora_rank
                self.bank = AdapterBank(towers)
                self.bank.create(LORA, rank, 2 * rank, TARGETS)
                self.bank.train_only(LORA)
                self.bank.set(Mix({LORA: 1.0}))
            case "oft":
                self.rotated = _rotated(towers, method)
            case "hyperclip":
                self.scaling = scale(towers, scaling_of(method, settings.scaling))

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

    @torch.no_grad()
    def merge(self) -> None:
        """Write what was tuned into the towers, which cost what they did before."""
        if self.scaling is not None:
            self.scaling.fold()
        if self.bank is not None:
            self.bank.set(Off())
            self.bank.merge_into_base({LORA: 1.0})
        if self.rotated is not None:
            self.rotated.merge_and_unload()  # type: ignore[operator]
            self.rotated = None


class TowerTuner(nn.Module, ABC):
    """A model: its heads train, and what a method chooses of its CLIP."""

    def __init__(self, clip: Clip, method: TuningMethod, settings: MethodSettings) -> None:
        super().__init__()
        self.towers = (clip.model,)  # a tuple: they are registered as a part of the task's model
        self.method = method
        self.settings: Any = settings
        self.tuned = TunedTowers(clip.model, method, settings)
        self.beside = self.tuned.module

    @abstractmethod
    def heads(self) -> list[nn.Parameter]:
        """What trains by every method."""

    def clip_parameters(self) -> list[nn.Parameter]:
        """What trains of the CLIP, or beside it in its place."""
        return self.tuned.parameters()

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: the heads, and the CLIP at its own step size."""
        groups: list[dict[str, Any]] = [{"params": self.heads()}]
        if own := self.clip_parameters():
            groups.append({"params": own, "lr": self.settings.rate(self.method)})
        return groups

    def train(self, mode: bool = True) -> Self:
        """The CLIP stays in eval mode: its dropout would blur what is tuned."""
        super().train(mode)
        self.towers[0].eval()
        return self


def check_method(towers: nn.Module, method: TuningMethod, settings: MethodSettings) -> None:
    """Refuse a scaling that does not fit the towers, which stay as they are."""
    if method.kind == "hyperclip":
        scale(towers, scaling_of(method, settings.scaling)).detach()
    if method.kind == "oft":
        _check_blocks(towers, method)


def scaling_of(method: TuningMethod, settings: ScalingSettings) -> ScalingSettings:
    """The scaling that a method's name and the settings ask for."""
    changes: dict[str, Any] = {"block": method.block}
    if method.shared:
        changes["shared"] = True
    if method.tower:
        changes["towers"] = [method.tower]
    return settings.model_copy(update=changes)


def _check_blocks(towers: nn.Module, method: TuningMethod) -> None:
    for projection in projections(towers):
        if projection.module.in_features % method.block:
            raise InputError(
                f"{projection.place}: blocks of {method.block} do not divide a width of "
                f"{projection.module.in_features}"
            )


def _rotated(towers: nn.Module, method: TuningMethod) -> nn.Module:
    """PEFT's OFT on a model, in place; the wrapper merges it."""
    from peft import OFTConfig, get_peft_model

    _check_blocks(towers, method)
    config = OFTConfig(
        r=0, oft_block_size=method.block, target_modules=TARGETS, use_cayley_neumann=False
    )
    return get_peft_model(towers, config)
