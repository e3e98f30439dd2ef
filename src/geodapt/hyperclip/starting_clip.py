"""The CLIP that every method starts from."""

import torch

from geodapt.hyperclip.method_settings import MethodSettings
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP
from geodapt.tinyclip.cache import checkpoint, is_cached, train_in_stage
from geodapt.vision import Clip, load_clip

WORK = 10.0
"""What training the small CLIP takes, in trainings of a method."""


class StartingClip:
    """A CLIP by folder or hub name, or the small one, which a stage of the run trains first."""

    def __init__(self, settings: MethodSettings, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.small = settings.base == TINYCLIP
        self.missing = self.small and not is_cached(settings.glyph_base)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def stages(self) -> dict[str, float]:
        """What has to be done before the methods."""
        return {TINYCLIP: WORK} if self.missing else {}

    def prepare(self) -> None:
        """Train the small CLIP where it is asked for and missing."""
        if self.missing:
            train_in_stage(self.folder, self.settings.glyph_base)

    def load(self) -> Clip:
        """A fresh copy, on the device."""
        source = checkpoint(self.settings.glyph_base) if self.small else self.settings.base
        clip = load_clip(source)
        clip.model.to(self.device)
        return clip
