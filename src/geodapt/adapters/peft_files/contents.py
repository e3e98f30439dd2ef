"""What an adapter's files hold: factors and heads per layer, with PEFT's configuration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from geodapt.adapters.peft_files.additions import Addition
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import LINEAR, LayerKind, indexed
from geodapt.adapters.peft_files.layer_rules import LayerRules
from geodapt.adapters.peft_files.saved_modules import Head
from geodapt.files import hash_tensors


@dataclass(frozen=True, eq=False, repr=False)
class AdapterContents:
    """A low-rank adapter as its folder holds it.

    The paths are those of the model class that the configuration names.
    """

    factors: Mapping[str, Factors]
    config: LoraConfig
    base_sha256: str | None = None
    """Fingerprint of the base's layers that it was trained on, where geodapt saved it."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """Modules that were trained in full beside the factors (``modules_to_save``), by path: each
    module's tensors by their names in it."""
    kinds: Mapping[str, LayerKind] = field(default_factory=dict)
    """By layer, what the factors belong to, where that is not a linear layer."""
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    """By layer, DoRA's magnitude vector (Liu et al. 2024), ``(out,)``."""
    additions: Mapping[str, Addition] = field(default_factory=dict)
    """By module, what it adds beside the factors: biases and rows of tokens."""
    copies: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of the base that PEFT put beside the factors, by name."""
    name: str = ""
    """What it was read from: a hub's name, or a folder's without those that it lies in."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, for its model card; ``from`` is a list with a mapping per source."""

    @cached_property
    def sha256(self) -> str:
        """Hash of factors, additions and heads: the same for the same update, wherever it lies."""
        tensors = {}
        for path, (A, B, scale) in self.factors.items():
            tensors[f"{path}.A"], tensors[f"{path}.B"] = A, B
            tensors[f"{path}.scale"] = torch.tensor(scale, dtype=torch.float64, device="cpu")
        tensors |= {f"{path}.magnitude": value for path, value in self.magnitudes.items()}
        for path, addition in self.additions.items():
            tensors |= {f"{path}:{key}": tensor for key, tensor in addition.tensors()}
        for path, head in self.heads.items():
            tensors |= {f"{path}.{key}": tensor for key, tensor in head.items()}
        return hash_tensors(tensors)

    @property
    def rank(self) -> int:
        """The largest rank over its layers."""
        return max(factors.rank for factors in self.factors.values())

    @property
    def layers(self) -> list[str]:
        """The paths of the modules that it changes by factors, as ``target_modules`` names them."""
        return [p for p in self.factors if self.kinds.get(p, LINEAR).name != "parameter"]

    @property
    def targets(self) -> list[str]:
        """The last names of the layers that it touches."""
        return sorted({indexed(path)[0].rsplit(".", 1)[-1] for path in self.factors})

    @property
    def parameters(self) -> int:
        """How many numbers the factors and additions hold, without heads."""
        pairs = sum(f.A.numel() + f.B.numel() for f in self.factors.values())
        pairs += sum(magnitude.numel() for magnitude in self.magnitudes.values())
        added = (tensor for each in self.additions.values() for _, tensor in each.tensors())
        return pairs + sum(tensor.numel() for tensor in added if tensor.is_floating_point())

    @property
    def touched(self) -> list[str]:
        """The paths of all that it changes, without modules trained in full."""
        return list(dict.fromkeys([*self.factors, *self.additions]))

    def touches(self, path: str) -> bool:
        """Whether it changes what is at a path, by factors or by what it adds beside them."""
        return path in self.factors or path in self.additions

    def targeted(self, layers: Iterable[str], parameters: Iterable[str] = ()) -> list[str]:
        """Those of a model's layers and parameters that the configuration names, as PEFT does."""
        rules, names = LayerRules(self.config), tuple(self.config.target_parameters or ())
        found = [path for path in layers if rules.targets(path)]
        return found + [path for path in parameters if named_parameter(path, names)]


def named_parameter(path: str, names: Iterable[str]) -> bool:
    """Whether PEFT's ``target_parameters`` names a parameter: whole, or by the end of its path."""
    return any(path == name or path.endswith("." + name) for name in names)
