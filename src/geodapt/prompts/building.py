"""From a host's settings to what it learns."""

from collections.abc import Mapping
from typing import Any

import torch

from geodapt.errors import InputError
from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.coop import CoOpTokens
from geodapt.prompts.distillation import DistilledTokens
from geodapt.prompts.host import Host
from geodapt.prompts.maple import CoupledTokens
from geodapt.prompts.promptsrc import IndependentTokens
from geodapt.prompts.settings import CoOp, HostSettings, MaPLe, PlainClip, PromptKD, PromptSRC
from geodapt.vision.clip import Clip
from geodapt.vision.towers import image_tower, text_tower


def build_host(
    settings: HostSettings,
    clip: Clip,
    seed: int,
    saved: Mapping[str, Any],
    teacher_width: int = 0,
) -> Host:
    """What a host learns, before training; what is random follows from the seed.

    Raises :class:`InputError` for a model that is no CLIP or SigLIP, and for a depth over the
    number of layers.
    """
    text_tower(clip.model)
    if image_tower(clip.model).flexible:
        raise InputError(
            f"a {type(clip.model).__name__} with patches of flexible number takes no image "
            "tokens; take a CLIP, or a SigLIP of fixed size"
        )
    random = torch.Generator().manual_seed(seed)
    match settings:
        case CoOp():
            return CoOpTokens(settings, clip, random, saved)
        case MaPLe():
            return CoupledTokens(settings, clip, random)
        case PromptSRC():
            return IndependentTokens(settings, clip, random)
        case PromptKD():
            width = ClassTexts(clip, ["a"], "{}").features(clip).shape[-1]
            return DistilledTokens(settings, clip, random, width, teacher_width)
        case PlainClip():
            return Host(settings)
    raise InputError(f"a {type(settings).__name__} is no host; give MaPLe(), PromptSRC(), ...")
