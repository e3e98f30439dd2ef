"""The CLIP that learners stand on, and how it is told from another."""

import hashlib
import json
from pathlib import Path

import torch

from geodapt.files import hash_tensors
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


def base_fingerprint(clip: Clip) -> dict[str, str]:
    """What a saved learner says of its base: name, type, and hashes of configuration and weights.

    The weights' hash depends on their type: in another precision the same base is another one.
    """
    configuration = _without(clip.model.config.to_dict())
    text = json.dumps(configuration, sort_keys=True, default=str)
    return {
        # A folder is found from any other one.
        "name": str(Path(clip.name).resolve()) if Path(clip.name).is_dir() else clip.name,
        "dtype": str(clip.model.dtype).removeprefix("torch."),
        "configuration": hashlib.sha256(text.encode()).hexdigest(),
        "weights": hash_tensors(dict(clip.model.named_parameters())),
    }


def _without(value):
    if not isinstance(value, dict):
        return value
    return {name: _without(part) for name, part in value.items() if name not in NOT_THE_MODEL}
