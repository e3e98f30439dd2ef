"""Tuning a CLIP by several methods, each a row of a table: what every task shares."""

from pathlib import Path
from typing import Any

from torch import nn

from geodapt.files import atomic_folder
from geodapt.hyperclip.method_settings import MethodSettings
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.starting_clip import StartingClip
from geodapt.hyperclip.tuned_towers import TowerTuner, check_method
from geodapt.processes import is_main_process
from geodapt.runs import RunFolder
from geodapt.training import fit, trainable_parameters


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
