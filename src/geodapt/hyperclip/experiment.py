"""Tunes a CLIP by each method and seed, and measures it: what all segmentation recipes share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.hyperclip.averaging import mean_over_seeds
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.method_experiment import MethodExperiment
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.tuning import SegmentationTuner, mean_text_radius, start_at_radius
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.progress import schedule

DETAILS = ("radius", "confused", "per_class", "pictures", "draws", "sets", "trials")
"""What a method's row in the table does not hold."""


class TuningExperiment(MethodExperiment, ABC):
    """One CLIP, data to segment, and the methods that tune the one for the other."""

    tuning: TuningSettings

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
        self.check_methods(segmenter.clip.model)

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
        tuner, counts = self.train(method, seed, stage, work)
        self.merge(tuner, tuner.segmenter, keep)
        return {**self.measure(tuner.segmenter), **counts}

    def train(
        self, method: TuningMethod, seed: int, stage: str, work: Path
    ) -> tuple[SegmentationTuner, dict[str, int]]:
        """The base tuned by a method, its training logged under ``stage``; and what trained."""
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
        return tuner, self.fit(tuner, batches, seed, stage, work)

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
        tuner, counts = self.train(method, seed, stage, work)
        self.merge(tuner, tuner.segmenter, False)
        return {
            "validation_miou": self.validate(tuner.segmenter),
            "reached": mean_text_radius(tuner.segmenter.clip, self.prompts()),
            **self.measure(tuner.segmenter),
            **counts,
        }

    def _untuned_radius(self) -> float:
        return mean_text_radius(self.segmenter().clip, self.prompts())


def _stage(method: TuningMethod, seed: int) -> str:
    return f"method-{method.name}-seed-{seed}"
