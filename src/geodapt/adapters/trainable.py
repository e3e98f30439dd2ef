"""New adapters, and the float32 masters of one while it trains."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import quote

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.adapter import Adapter, Factors, scale_of
from geodapt.adapters.model_class import class_of
from geodapt.adapters.targets import adaptable, choose, features
from geodapt.errors import InputError


class Trainable(nn.Module):
    """An adapter's factors as float32 parameters, on the devices of their layers."""

    def __init__(self, adapter: Adapter, devices: Mapping[str, torch.device]) -> None:
        super().__init__()
        self.adapter = adapter
        for path, (A, B, _) in adapter.factors.items():
            for side, tensor in (("A", A), ("B", B)):
                master = tensor.detach().to(devices[path], torch.float32, copy=True)
                self.register_parameter(_key(path, side), nn.Parameter(master))

    def factors(self, path: str) -> tuple[Tensor, Tensor, float]:
        """``A``, ``B`` and the scale at one layer."""
        scale = self.adapter.factors[path].scale
        return getattr(self, _key(path, "A")), getattr(self, _key(path, "B")), scale

    def snapshot(self) -> Adapter:
        """The adapter as it is now, on the CPU."""
        factors = {}
        for path in self.adapter.factors:
            A, B, scale = self.factors(path)
            factors[path] = Factors(A.detach().cpu().clone(), B.detach().cpu().clone(), scale)
        return replace(self.adapter, factors=factors)


def fresh(
    model: nn.Module,
    rank: int,
    alpha: float,
    targets: str | Iterable[str],
    dropout: float = 0.0,
    rslora: bool = False,
) -> Adapter:
    """A new adapter for a model by PEFT's rule: A uniform within ``1 / sqrt(in)``, B zero.

    Raises :class:`InputError` for a rank or dropout out of range, or targets that match nothing.
    """
    if rank < 1:
        raise InputError(f"rank {rank} is out of range; give at least 1")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout} is out of range; give 0 or more, below 1")
    wanted = targets if isinstance(targets, str) else list(targets)
    layers = adaptable(model)
    paths = choose(model, wanted)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes any number
        target_modules=paths if wanted == "all-linear" else wanted,
        lora_dropout=dropout,
        use_rslora=rslora,
        fan_in_fan_out=any(isinstance(layers[path], Conv1D) for path in paths),
        **class_of(model),
    )
    factors = {}
    for path in paths:
        width, out = features(layers[path])  # type: ignore[misc]
        A = torch.empty(rank, width).uniform_(-(width**-0.5), width**-0.5)
        factors[path] = Factors(A, torch.zeros(out, rank), scale_of(config, path, rank))
    return Adapter(factors, config)


def key_of(name: str) -> str:
    """An adapter's name as a module's: without dots, and unlike any attribute of a module."""
    return f":{quoted(name)}"


def quoted(name: str) -> str:
    """A name without dots, which modules and parameters must not have in theirs."""
    return quote(name, safe="").replace(".", "%2E")


def _key(path: str, side: str) -> str:
    return f"{quoted(path)}:{side}"
