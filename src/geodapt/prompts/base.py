"""The CLIP that learners stand on, and how it is told from another."""

import hashlib
import json
from pathlib import Path
from typing import Self

import torch
from pydantic import field_validator

from geodapt.errors import InputError
from geodapt.files import hash_tensors
from geodapt.settings import Settings
from geodapt.tinyclip.base import TINYCLIP, load_tinyclip
from geodapt.vision.clip import Clip, load_clip

NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
"""What a configuration says of where and how it was saved."""


def load_host_base(name: str, dtype: torch.dtype = torch.float32) -> Clip:
    """A CLIP by folder or hub name, or the small one of this machine, ``clip-glyphs``."""
    if name == TINYCLIP:
        clip = load_tinyclip()
        return Clip(clip.model, clip.processor, TINYCLIP)
    return load_clip(name, dtype)


class BaseFingerprint(Settings):
    """What a saved learner says of its base.

    The weights' hash depends on their type: in another precision the same base is another one.
    """

    name: str
    dtype: str
    configuration: str = ""
    """A hash, as of the weights."""
    weights: str = ""

    @field_validator("dtype")
    @classmethod
    def _is_type(cls, name: str) -> str:
        if not isinstance(getattr(torch, name, None), torch.dtype):
            raise ValueError(f"'{name}' is no type of torch")
        return name

    @classmethod
    def of(cls, clip: Clip) -> Self:
        """That of a CLIP."""
        configuration = _without(clip.model.config.to_dict())
        text = json.dumps(configuration, sort_keys=True, default=str)
        return cls(
            # A folder is found from any other one.
            name=str(Path(clip.name).resolve()) if Path(clip.name).is_dir() else clip.name,
            dtype=str(clip.model.dtype).removeprefix("torch."),
            configuration=hashlib.sha256(text.encode()).hexdigest(),
            weights=hash_tensors(dict(clip.model.named_parameters())),
        )

    def load(self) -> Clip:
        """The base that is called so, in its type."""
        return load_host_base(self.name, getattr(torch, self.dtype))

    def check(self, clip: Clip, folder: Path) -> None:
        """Raises :class:`InputError` for another base than that of the learner in ``folder``."""
        here = BaseFingerprint.of(clip)
        for part in ("dtype", "configuration", "weights"):
            then, now = getattr(self, part), getattr(here, part)
            if then != now:
                was = f": {then} then, {now} now" if part == "dtype" else ""
                raise InputError(
                    f"the learner in '{folder}' was learned on '{self.name}'; '{clip.name}' has "
                    f"other {part}{was}"
                )


def _without(value):
    if not isinstance(value, dict):
        return value
    return {name: _without(part) for name, part in value.items() if name not in NOT_THE_MODEL}
