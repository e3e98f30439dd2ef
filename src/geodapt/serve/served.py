"""What an operator names, and whether it is there.

Nothing heavy is imported, so that a wrong name is told at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geodapt.errors import InputError
from geodapt.models.hub import find_folder, locate_base
from geodapt.paths import given
from geodapt.radial import settings as radial


@dataclass(frozen=True)
class Served:
    """What an operator wants served."""

    base: str | None = None
    """A causal language model: a folder or a hub name."""
    adapters: Path | None = None
    rank: str | None = None
    """A saved X-Cross that ranks."""
    classify: str | None = None
    """A saved X-Cross that classifies."""
    embed: str | None = None
    """A radial model's folder, or any encoder."""
    store: Path | None = None
    """Where catalogues and indexes are kept."""
    capacity: int | None = None
    most_loaded: int | None = None
    slots: int = 16
    queue: int = 256
    kv_tokens: int = 65_536
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the language model; ``auto`` is bfloat16 where the device multiplies it natively."""

    @property
    def scores(self) -> bool:
        """Whether a system that scores is named."""
        return bool(self.rank or self.classify or self.embed)

    def check(self) -> None:
        """Raises :class:`InputError` where nothing is named, or what is not there."""
        if self.base is None and not self.scores:
            raise InputError(
                "name what to serve: a language model (BASE), --rank, --classify or --embed"
            )
        if self.base is None and self.adapters is not None:
            raise InputError("--adapters are a language model's; name it (BASE)")
        if self.base is not None:
            locate_base(model_folder(self.base))
        for source in (self.rank, self.classify):
            if source is not None:
                find_folder(model_folder(source), "model", "one saved by save_pretrained")
        if self.embed is not None:
            encoder = model_folder(self.embed)
            if not (given(encoder) / radial.CONFIG).is_file():  # which says where its base is
                locate_base(encoder)
        if self.adapters is not None:
            require_folder(given(self.adapters))


def require_folder(adapters: Path) -> None:
    """Raises :class:`InputError` where the adapters' folder is none."""
    if not adapters.is_dir():
        raise InputError(f"the adapters' folder {adapters} is no folder; give one, or make it")


def model_folder(source: str) -> str:
    """A run's folder stands for the model in it."""
    folder = given(source)
    return str(folder / "model") if (folder / "results.json").is_file() else source
