"""The PEFT configuration that gives some factors their ranks, scales and targets."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig

from geodapt.adapters.peft_files.contents import AdapterContents
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import LINEAR, LayerKind, indexed


def configure(
    factors: Mapping[str, Factors],
    like: AdapterContents | None = None,
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
        # PEFT reads the keys as regular expressions that may match after any prefix.
        key = "^" + re.escape(indexed(path)[0])
        alpha = _tidy(value.scale * value.rank)
        if value.rank != config.r:
            config.rank_pattern[key] = value.rank
        if alpha != config.lora_alpha:
            config.alpha_pattern[key] = alpha
    return config


def _tidy(alpha: float) -> float | int:
    """An alpha as people write it: 32 rather than 32.0."""
    return int(alpha) if float(alpha).is_integer() else float(alpha)
