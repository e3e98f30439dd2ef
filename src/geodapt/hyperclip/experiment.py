"""Tunes a segmenter by each method and seed, some drawn to a radius that validation chooses."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.method_experiment import MethodExperiment, stage_of
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.tuning import SegmentationTuner, mean_text_radius, start_at_radius
from geodapt.hyperclip.tuning_settings import TuningSettings
from geodapt.vision import Clip


class TuningExperiment(MethodExperiment):
    """One CLIP, data to segment, and the methods that tune the one for the other."""

    task = "segmentation"
    tuning: TuningSettings

    @abstractmethod
    def validate(self, segmenter: OpenSegmenter) -> float:
        """Mean IoU on what is neither trained on nor tested."""

    @abstractmethod
    def words(self) -> Sequence[str]:
        """The words whose radius is meant by ``-radius-``."""

    def model_of(self, clip: Clip) -> OpenSegmenter:
        return OpenSegmenter(clip, self.tuning.segmenter)

    def tuner(self, model: OpenSegmenter, method: TuningMethod) -> SegmentationTuner:
        return SegmentationTuner(model, method, self.tuning)

    def begin(self, tuner: SegmentationTuner, batches: WordBatches) -> None:
        first = range(min(len(batches), 2 * self.tuning.training.batch_size))
        tuner.calibrate(**batches.collate([*first]))
        if isinstance(target := tuner.method.radius, float):
            start = self.tuning.radius
            start_at_radius(tuner, self.prompts(), target, start.start_steps, start.start_rate)

    @property
    def seeds(self) -> range:
        return range(self.tuning.seed, self.tuning.seed + self.tuning.seeds)

    def work_of(self, method: TuningMethod) -> float:
        return float(len(self.tuning.radius.factors)) if method.radius == "auto" else 1.0

    def prompts(self) -> list[str]:
        """The words as training asks for them."""
        return [self.tuning.segmenter.templates[0].format(word) for word in self.words()]

    def row(self, method: TuningMethod, seed: int) -> dict[str, Any]:
        """A method's figures; where a radius is chosen, those of the best on validation data."""
        if method.radius != "auto":
            return super().row(method, seed)
        stage = stage_of(method, seed)
        untuned = self.folder.stage(
            "untuned-radius", lambda work: {"radius": self._radius(self.model())}
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
            model, counts = self.train(method.at_radius(best["target"]), seed, stage, work, True)
            return {**self.measure(model), **counts}

        if self.keeps(method, seed):
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
        segmenter, counts = self.train(method, seed, stage, work, False)
        return {
            "validation_miou": self.validate(segmenter),
            "reached": self._radius(segmenter),
            **self.measure(segmenter),
            **counts,
        }

    def _radius(self, segmenter: OpenSegmenter) -> float:
        return mean_text_radius(segmenter.clip, self.prompts())
