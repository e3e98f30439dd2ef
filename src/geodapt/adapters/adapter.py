"""One LoRA adapter: a pair of small factors per layer, as PEFT stores it."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geodapt.adapters.peft_files.contents import AdapterContents
from geodapt.adapters.peft_files.model_class import PEFT_HEADS
from geodapt.adapters.peft_files.peft_format import read_adapter, write_adapter


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(AdapterContents):
    """A LoRA adapter: factors by layer path, and the PEFT configuration that goes with them.

    The paths are those of the model class that the configuration names: what is written loads
    there. A bank on another class of the same base translates them (see
    :mod:`geodapt.adapters.base_model.naming`).
    """

    errors: Mapping[str, float] = field(default_factory=dict)
    """By layer, what a merge lost by cutting to a rank, as a relative Frobenius norm."""
    error: float = 0.0
    """The same over all layers."""
    fits: str | None = None
    """Identifies the model in this process that a bank fitted it to."""

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Adapter":
        """Read a PEFT folder or a hub name.

        Raises :class:`InputError` when it is not a plain LoRA adapter (the reason is named),
        holds a pickle, lacks a tensor, or holds NaN.
        """
        return read_adapter(source, cls)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that PEFT, and every server that takes PEFT adapters, loads."""
        write_adapter(self, folder)

    def __repr__(self) -> str:
        base = self.config.base_model_name_or_path
        return (
            f"Adapter(rank {self.rank}, {len(self.factors)} layers: {', '.join(self.targets[:8])}"
            f"{', ...' if len(self.targets) > 8 else ''}{f', base {base!r}' if base else ''})"
        )

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
            additions=renamed(self.additions),
            errors=renamed(self.errors),
        )
