"""Tunes a CLIP by each method and seed, and measures it: what all segmentation recipes share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.files import atomic_folder
from geodapt.hyperclip.averaging import mean_over_seeds
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.radius_start import mean_text_radius, start_at_radius
from geodapt.hyperclip.starting_clip import StartingClip
from geodapt.hyperclip.tuned_towers import check_method
from geodapt.hyperclip.tuning import SegmentationTuner
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.training import fit, trainable_parameters

DETAILS = ("radius", "confused", "per_class", "pictures", "draws", "sets", "trials")
"""What a method's row in the table does not hold."""


class TuningExperiment(ABC):
    """One CLIP, data to segment, and the methods that tune the one for the other."""

    def __init__(self, settings: TuningSettings, folder: RunFolder) -> None:
        self.tuning, self.folder = settings, folder
        self.methods = [TuningMethod.parse(name) for name in settings.methods]
        self.start = StartingClip(settings, folder)

    # What a data set has to say

    @abstractmethod
    def batches(self, segmenter: OpenSegmenter, seed: int) -> WordBatches:
        """Training batches."""

    @abstractmethod
    def validate(self, segmenter: OpenSegmenter) -> float:
        """Mean IoU on what is neither trained on nor tested."""

    @abstractmethod
    def measure(self, segmenter: OpenSegmenter) -> dict[str, Any]:
        """The row's figures on the test, and the :data:`DETAILS`."""

    @abstractmethod
    def words(self) -> Sequence[str]:
        """The words whose radius is meant by ``-radius-``."""

    @abstractmethod
    def check_segmenter(self, segmenter: OpenSegmenter) -> None:
        """Refuse what does not fit the data."""

    def check(self) -> None:
        """Refuse what does not fit before anything is trained."""
        if self.start.missing:
            return
        segmenter = self.segmenter()
        self.check_segmenter(segmenter)
        for method in self.methods:
            check_method(segmenter.clip.model, method, self.tuning)

    def rows(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """Tune and measure by each method: the rows of the table, and each one's details."""
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        schedule({**self.start.stages, **{_stage(*run): self._work(run[0]) for run in runs}})
        self.start.prepare()
        rows, details = [], {}
        for method in self.methods:
            found = [self._row(method, seed) for seed in self.seeds]
            row = mean_over_seeds(found)
            parts = {name: row.pop(name) for name in DETAILS if name in row}
            parts.pop("draws", None)
            details[method.name] = parts
            rows.append({"method": method.name, "label": method.label, **row})
        return rows, details

    @property
    def seeds(self) -> range:
        """The seeds that each method trains with."""
        return range(self.tuning.seed, self.tuning.seed + self.tuning.seeds)

    def segmenter(self) -> OpenSegmenter:
        """The base with an untrained head."""
        return OpenSegmenter(self.start.load(), self.tuning.segmenter)

    def _work(self, method: TuningMethod) -> float:
        return float(len(self.tuning.radius.factors)) if method.radius == "auto" else 1.0

    def _row(self, method: TuningMethod, seed: int) -> dict[str, Any]:
        stage = _stage(method, seed)
        if method.radius == "auto":
            return self._chosen(method, seed, stage)
        return self.folder.timed_stage(
            stage, partial(self._tuned, method, seed, stage, self._keeps(method, seed))
        )

    def _keeps(self, method: TuningMethod, seed: int) -> bool:
        return method.name == self.tuning.kept and seed == self.tuning.seed

    def _tuned(
        self, method: TuningMethod, seed: int, stage: str, keep: bool, work: Path
    ) -> dict[str, Any]:
        tuner = self.train(method, seed, stage, work)
        trained = trainable_parameters(tuner)
        own = sum(parameter.numel() for parameter in tuner.clip_parameters())
        if keep and tuner.tuned.scaling is not None and is_main_process():
            tuner.tuned.scaling.save_pretrained(self.folder / "scaling")
        tuner.tuned.merge()
        segmenter = tuner.segmenter
        if keep and is_main_process():
            with atomic_folder(self.folder / "model") as temporary:
                segmenter.save_pretrained(temporary)
        found = self.measure(segmenter)
        return {**found, "trainable_parameters": trained, "clip_numbers": own}

    def train(self, method: TuningMethod, seed: int, stage: str, work: Path) -> SegmentationTuner:
        """The base tuned by a method, its training logged under ``stage``."""
        settings = self.tuning
        torch.manual_seed(seed)
        tuner = SegmentationTuner(self.segmenter(), method, settings)
        batches = self.batches(tuner.segmenter, seed)
        first = range(min(len(batches), 2 * settings.training.batch_size))
        tuner.calibrate(**batches.collate([*first]))
        if isinstance(method.radius, float):
            start = settings.radius
            start_at_radius(
                tuner, self.prompts(), method.radius, start.start_steps, start.start_rate
            )
        fit(
            tuner,
            batches,
            settings.training,
            work=work,
            collate=batches.collate,
            groups=tuner.groups(),
            seed=seed,
            label=stage,
            **self.folder.watch(stage),
        )
        return tuner

    def prompts(self) -> list[str]:
        """The words as training asks for them."""
        return [self.tuning.segmenter.templates[0].format(word) for word in self.words()]

    def _chosen(self, method: TuningMethod, seed: int, stage: str) -> dict[str, Any]:
        """Try several radii, and take the one with the best figure on the validation data."""
        untuned = self.folder.stage(
            "untuned-radius", lambda work: {"radius": self._untuned_radius()}
        )
        trials = []
        for factor in self.tuning.radius.factors:
            at = method.at_radius(factor * untuned["radius"])
            name = f"{stage}-times-{factor:g}"
            found = self.folder.timed_stage(name, partial(self._trial, at, seed, name))
            trials.append({"factor": factor, "target": at.radius, **found})
        best = max(trials, key=lambda trial: trial["validation_miou"])

        def keep(work: Path) -> dict[str, Any]:
            # The trials' models are not kept; the same steps give the same one again.
            at = method.at_radius(best["target"])
            return self._tuned(at, seed, stage, True, work)

        if self._keeps(method, seed):
            self.folder.stage(f"{stage}-kept", keep)
        shown = ("factor", "target", "validation_miou", "miou", "miou_seen", "miou_new", "reached")
        return {
            **{key: value for key, value in best.items() if key not in ("factor", "target")},
            "target_radius": best["target"],
            "seconds": sum(trial["seconds"] for trial in trials),
            "peak_memory_mb": max(trial["peak_memory_mb"] for trial in trials),
            "trials": [
                {
                    **{key: trial[key] for key in shown if key in trial},
                    "class_iou": {row["class"]: row["iou"] for row in trial["per_class"]},
                }
                for trial in trials
            ],
        }

    def _trial(self, method: TuningMethod, seed: int, stage: str, work: Path) -> dict[str, Any]:
        tuner = self.train(method, seed, stage, work)
        trained = trainable_parameters(tuner)
        own = sum(parameter.numel() for parameter in tuner.clip_parameters())
        tuner.tuned.merge()
        return {
            "validation_miou": self.validate(tuner.segmenter),
            "reached": mean_text_radius(tuner.segmenter.clip, self.prompts()),
            **self.measure(tuner.segmenter),
            "trainable_parameters": trained,
            "clip_numbers": own,
        }

    def _untuned_radius(self) -> float:
        return mean_text_radius(self.segmenter().clip, self.prompts())


def _stage(method: TuningMethod, seed: int) -> str:
    return f"method-{method.name}-seed-{seed}"
