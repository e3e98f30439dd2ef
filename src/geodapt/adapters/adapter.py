"""One LoRA adapter: a pair of small factors a layer, as PEFT stores it."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import LoraConfig
from torch import Tensor

from geodapt.adapters.peft_files.kinds import LINEAR, LayerKind, indexed
from geodapt.adapters.peft_files.layer_rules import LayerRules
from geodapt.adapters.peft_files.model_class import PEFT_HEADS
from geodapt.adapters.peft_files.saved_modules import Head
from geodapt.files import hash_tensors


class Factors(NamedTuple):
    """One layer's update ``scale * B @ A`` (Hu et al. 2021, LoRA, section 4.1)."""

    A: Float[Tensor, "rank in_features"]
    B: Float[Tensor, "out_features rank"]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def delta(self) -> Float[Tensor, "out_features in_features"]:
        """The full update. It is as large as the layer: for merging into it and for tests."""
        return self.scale * (self.B @ self.A)

    def norm(self) -> float:
        """Frobenius norm of the update: ``s sqrt(tr((B^T B)(A A^T)))``, from r x r matrices."""
        A, B = self.A.cpu().double(), self.B.cpu().double()
        if self.rank > min(A.shape[1], B.shape[0]):  # then the update itself is smaller
            return abs(self.scale) * torch.linalg.matrix_norm(B @ A).item()
        return abs(self.scale) * math.sqrt(max(((B.T @ B) * (A @ A.T)).sum().item(), 0.0))


@dataclass(frozen=True, eq=False, repr=False)
class Adapter:
    """A LoRA adapter: factors by layer path, and the PEFT configuration that goes with them.

    The paths are those of the model class that the configuration names: what is written loads
    there. A bank on another class of the same base translates them (see
    :mod:`geodapt.adapters.base_model.naming`).
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
    copies: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of the base that PEFT put beside the factors, by name."""
    name: str = ""
    """What it was read from: a hub's name, or a folder's without those that it lies in."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """By what it was made, for its model card; ``from`` is a list with a mapping per source."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """By layer, what a merge that cut to a rank lost, as a relative Frobenius norm."""
    error: float = 0.0
    """The same over all layers."""
    fits: str | None = None
    """A mark of the model in this process that a bank fitted it to."""

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Adapter":
        """Read a PEFT folder or a hub name.

        Raises :class:`InputError` when it is not a plain LoRA adapter (the reason is named),
        holds a pickle, lacks a tensor, or holds NaN.
        """
        from geodapt.adapters.peft_files.peft_format import read_adapter

        return read_adapter(source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that PEFT, and every server that takes PEFT adapters, loads."""
        from geodapt.adapters.peft_files.peft_format import write_adapter

        write_adapter(self, folder)

    def __repr__(self) -> str:
        base = self.config.base_model_name_or_path
        return (
            f"Adapter(rank {self.rank}, {len(self.factors)} layers: {', '.join(self.targets[:8])}"
            f"{', ...' if len(self.targets) > 8 else ''}{f', base {base!r}' if base else ''})"
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of factors and heads: the same for the same update, whatever folder it lies in."""
        tensors = {}
        for path, (A, B, scale) in self.factors.items():
            tensors[f"{path}.A"], tensors[f"{path}.B"] = A, B
            tensors[f"{path}.scale"] = torch.tensor(scale, dtype=torch.float64)
        tensors |= {f"{path}.magnitude": value for path, value in self.magnitudes.items()}
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
        """How many numbers the factors hold, heads apart."""
        pairs = sum(f.A.numel() + f.B.numel() for f in self.factors.values())
        return pairs + sum(magnitude.numel() for magnitude in self.magnitudes.values())

    def targeted(self, layers: Iterable[str], parameters: Iterable[str] = ()) -> list[str]:
        """Those of a model's layers and parameters that the configuration names, as PEFT does."""
        rules, names = LayerRules(self.config), tuple(self.config.target_parameters or ())
        found = [path for path in layers if rules.targets(path)]
        return found + [path for path in parameters if named_parameter(path, names)]

    def norm(self) -> float:
        """Frobenius norm of the whole update, over all layers."""
        return math.sqrt(sum(factors.norm() ** 2 for factors in self.factors.values()))

    def without_heads(self) -> "Adapter":
        """The same factors without the modules that were trained in full."""
        if not self.heads:
            return self
        config: Any = copy.deepcopy(self.config)
        config.modules_to_save = None
        if config.task_type in PEFT_HEADS:
            config.task_type = None
        # A name may mean a layer of a head too, now that heads are not trained in full.
        config.target_modules = set(self.layers)
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
        return replace(self, heads={}, config=config)

    def under(self, paths: Mapping[str, str], heads: Mapping[str, str]) -> "Adapter":
        """The same adapter under a model's layer paths, without what ``paths`` lacks.

        ``heads`` are the paths of modules that were trained in full.

        The configuration stays as it is, and speaks of the adapter's own paths.
        """

        def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
            return {paths[path]: value for path, value in values.items() if path in paths}

        return replace(
            self,
            factors=renamed(self.factors),
            heads={heads[path]: head for path, head in self.heads.items() if path in heads},
            kinds=renamed(self.kinds),
            magnitudes=renamed(self.magnitudes),
            errors=renamed(self.errors),
        )


def named_parameter(path: str, names: Iterable[str]) -> bool:
    """Whether PEFT's ``target_parameters`` names a parameter: whole, or by the end of its path."""
    return any(path == name or path.endswith("." + name) for name in names)


def configure(
    factors: Mapping[str, Factors],
    like: Adapter | None = None,
    kinds: Mapping[str, LayerKind] | None = None,
) -> LoraConfig:
    """The PEFT configuration that gives these factors their ranks and scales.

    Ranks and alphas that differ from the first layer's go into ``rank_pattern`` and
    ``alpha_pattern``, by full path. Task, base name and dropout come from ``like``, and so does
    the way it names its targets where the layers are the same.
    """
    config: Any = copy.deepcopy(like.config) if like is not None else LoraConfig()
    first = next(iter(factors.values()))
    config.r, config.lora_alpha = first.rank, _tidy(first.scale * first.rank)
    config.use_rslora = False
    config.init_lora_weights = True
    config.modules_to_save = None
    if like is None or like.factors.keys() != factors.keys():
        kinds = kinds or {}
        parameters = [path for path in factors if kinds.get(path, LINEAR).name == "parameter"]
        config.target_modules = set(factors) - set(parameters)
        config.target_parameters = sorted({indexed(path)[0] for path in parameters}) or None
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.rank_pattern, config.alpha_pattern = {}, {}
    for path, value in factors.items():
        # PEFT reads the keys as regular expressions that may match behind any prefix.
        key = "^" + indexed(path)[0].replace(".", r"\.")
        alpha = _tidy(value.scale * value.rank)
        if value.rank != config.r:
            config.rank_pattern[key] = value.rank
        if alpha != config.lora_alpha:
            config.alpha_pattern[key] = alpha
    return config


def _tidy(alpha: float) -> float | int:
    """An alpha as people write it: 32 rather than 32.0."""
    return int(alpha) if float(alpha).is_integer() else float(alpha)
