"""The float32 masters of one adapter while it trains."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

import torch
from peft import LoraConfig
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter, Factors, scale_of


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
        old = self.adapter
        return Adapter(factors, old.config, old.base_sha256, old.heads)


def fresh(
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    config: LoraConfig,
    generator: torch.Generator | None = None,
) -> Iterable[tuple[str, Factors]]:
    """New factors by PEFT's rule: A uniform within ``1 / sqrt(in)``, B zero."""
    for path, (width, out) in shapes.items():
        bound = width**-0.5
        A = torch.empty(rank, width).uniform_(-bound, bound, generator=generator)
        yield path, Factors(A, torch.zeros(out, rank), scale_of(config, path, rank))


def quoted(name: str) -> str:
    """A name without dots, which modules and parameters must not have in theirs."""
    return quote(name, safe="").replace(".", "%2E")


def _key(path: str, side: str) -> str:
    return f"{quoted(path)}:{side}"
