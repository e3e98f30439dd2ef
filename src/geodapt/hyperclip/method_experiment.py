"""Tuning a CLIP by several methods, each a row of a table: what every task shares."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from geodapt.files import atomic_folder
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.tuned_towers import TowerTuner, check_method
from geodapt.hyperclip.tuning_settings import MethodSettings
from geodapt.processes import is_main_process
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP
from geodapt.tinyclip.cache import checkpoint, is_cached, train_in_stage
from geodapt.training import fit, trainable_parameters
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


class MethodExperiment:
    """One CLIP, and the methods that tune it."""

    def __init__(self, settings: MethodSettings, folder: RunFolder) -> None:
        self.tuning, self.folder = settings, folder
        self.methods = [TuningMethod.parse(name) for name in settings.methods]
        self.start = StartingClip(settings, folder)

    def check_methods(self, towers: nn.Module) -> None:
        """Refuse methods that do not fit the towers, before anything is trained."""
        for method in self.methods:
            check_method(towers, method, self.tuning)

    def fit(
        self, tuner: TowerTuner, batches: Any, seed: int, stage: str, work: Path
    ) -> dict[str, int]:
        """Train on all rows of ``batches``; returns how many numbers train, and of the CLIP."""
        fit(
            tuner,
            range(len(batches)),
            self.tuning.training,
            work=work,
            collate=batches.collate,
            groups=tuner.groups(),
            seed=seed,
            label=stage,
            **self.folder.watch(stage),
        )
        own = sum(parameter.numel() for parameter in tuner.clip_parameters())
        return {"trainable_parameters": trainable_parameters(tuner), "clip_numbers": own}

    def merge(self, tuner: TowerTuner, model: OpenModel, keep: bool) -> None:
        """Write what was tuned into the model; with ``keep`` into the run's folder, too."""
        keep = keep and is_main_process()
        if keep and tuner.tuned.scaling is not None:
            tuner.tuned.scaling.save_pretrained(self.folder / "scaling")
        tuner.tuned.merge()
        model.eval()
        if keep:
            with atomic_folder(self.folder / "model") as temporary:
                model.save_pretrained(temporary)
