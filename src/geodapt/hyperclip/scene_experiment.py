"""Tunes a detector or a panoptic model by each method and measures classes that it never saw."""

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.hyperclip.boxes import box_pictures
from geodapt.hyperclip.detection import (
    DetectionBatches,
    DetectionTuner,
    detection_figures,
    evaluate_detection,
)
from geodapt.hyperclip.detector import OpenDetector
from geodapt.hyperclip.method_experiment import MethodExperiment
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.panoptic import (
    PanopticBatches,
    PanopticTuner,
    evaluate_panoptic,
    panoptic_figures,
)
from geodapt.hyperclip.panoptic_model import OpenPanoptic
from geodapt.hyperclip.scenes import Scenes, glyph_scenes, path_scenes
from geodapt.hyperclip.segment_pictures import segment_pictures
from geodapt.hyperclip.settings import DetectorSettings, PanopticModelSettings
from geodapt.hyperclip.tuned_towers import TowerTuner
from geodapt.hyperclip.tuning_settings import SceneSettings
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.vision import Clip


class SceneExperiment(MethodExperiment, ABC):
    """One CLIP, one set of pictures with objects, and the methods that tune the one for the other.

    What a task adds are a model of the CLIP, its batches, its loss and its figures.
    """

    task: str
    """Names the task in ``results.json``."""
    shown: tuple[str, ...]
    """Keys of a method's figures that are for the page, not for the table."""

    def __init__(self, settings: Any, folder: RunFolder) -> None:
        super().__init__(settings, folder)
        self.settings = settings
        self.scenes = self._scenes()
        if not self.start.missing:
            self.check_methods(self.model(self.start.load()).clip.model)

    @abstractmethod
    def model(self, clip: Clip) -> OpenModel:
        """The task's model of a CLIP."""

    @abstractmethod
    def tuner(self, model: Any, method: TuningMethod) -> TowerTuner:
        """What trains."""

    @abstractmethod
    def batches(self, model: Any) -> Any:
        """Training batches, with ``collate``."""

    @abstractmethod
    def measured(self, model: Any) -> dict[str, Any]:
        """Figures of a tuned model, and what the page shows of it."""

    def run(self) -> dict[str, Any]:
        """Tune and measure by each method; returns what goes into ``results.json``."""
        settings: SceneSettings = self.settings
        schedule({**self.start.stages, **{f"method-{name}": 1.0 for name in settings.methods}})
        self.start.prepare()
        rows = [self._row(method) for method in self.methods]
        shown = {row["method"]: {part: row.pop(part) for part in self.shown} for row in rows}
        classes = self.scenes.tested_classes
        return {
            "task": self.task,
            "base": settings.base,
            "rows": rows,
            self.task: {"kept": settings.kept, "methods": shown},
            "notes": self.scenes.notes,
            "data": {
                "train": len(self.scenes.train),
                "test": len(self.scenes.test),
                "classes": len(classes.names),
                "new_classes": len(classes.new),
            },
        }

    def _row(self, method: TuningMethod) -> dict[str, Any]:
        found = self.folder.timed_stage(f"method-{method.name}", partial(self._tuned, method))
        return {"method": method.name, "label": method.label, **found}

    def _tuned(self, method: TuningMethod, work: Path) -> dict[str, Any]:
        settings = self.settings
        torch.manual_seed(settings.seed)  # the heads' start
        model = self.model(self.start.load())
        tuner = self.tuner(model, method)
        stage = f"method-{method.name}"
        counts = self.fit(tuner, self.batches(model), settings.seed, stage, work)
        self.merge(tuner, model, method.name == settings.kept)
        return {**self.measured(model), **counts}

    def _scenes(self) -> Scenes:
        settings = self.settings
        if settings.data.kind != "glyphs":
            return path_scenes(settings.data, settings.test, settings.split)
        from geodapt.data.glyphs import load_glyphs, load_pages  # draws, which needs more packages

        glyphs = load_glyphs(settings.data)
        return glyph_scenes(glyphs, load_pages(glyphs, settings.pages), settings.level)


WORST = 15


class DetectionExperiment(SceneExperiment):
    """An OWL-ViT of the CLIP's towers; see :class:`SceneExperiment`."""

    task = "detection"
    shown = ("pictures", "per_class")

    def model(self, clip: Clip) -> OpenDetector:
        settings = DetectorSettings(templates=self.settings.templates)
        return OpenDetector.from_clip(clip, self.settings.side, settings)

    def tuner(self, model: OpenDetector, method: TuningMethod) -> DetectionTuner:
        return DetectionTuner(model, method, self.settings)

    def batches(self, model: OpenDetector) -> DetectionBatches:
        return DetectionBatches(
            self.scenes.train, self.scenes.classes, model, self.settings.classes
        )

    def measured(self, model: OpenDetector) -> dict[str, Any]:
        classes, test = self.scenes.classes, self.scenes.test
        metrics = evaluate_detection(model, test, classes)
        precision = metrics.average_precision()[0]
        rows: list[dict[str, Any]] = [
            {"class": classes.names[k], "ap50": float(value), "new": k in set(classes.new)}
            for k, value in enumerate(precision)
            if value == value
        ]
        rows.sort(key=lambda row: row["ap50"])
        return {
            **detection_figures(metrics, classes),
            "per_class": rows[:WORST],
            "pictures": box_pictures(model, test, classes),
        }


class PanopticExperiment(SceneExperiment):
    """A Mask2Former beside the CLIP; see :class:`SceneExperiment`."""

    task = "panoptic"
    shown = ("pictures", "per_class")

    def model(self, clip: Clip) -> OpenPanoptic:
        given, classes = self.settings, self.scenes.classes
        settings = PanopticModelSettings(
            templates=given.templates,
            side=given.side,
            window=given.window,
            residual=given.residual,
            alpha=given.alpha,
            beta=given.beta,
            seen=[classes.names[number] for number in classes.seen],
            stuff=[classes.names[number] for number in sorted(classes.stuff)],
        )
        return OpenPanoptic.from_clip(clip, given.masks, settings)

    def tuner(self, model: OpenPanoptic, method: TuningMethod) -> PanopticTuner:
        return PanopticTuner(model, method, self.settings)

    def batches(self, model: OpenPanoptic) -> PanopticBatches:
        scenes = self.scenes
        return PanopticBatches(
            scenes.train, scenes.categories, scenes.classes, model, self.settings.classes
        )

    def measured(self, model: OpenPanoptic) -> dict[str, Any]:
        scenes = self.scenes
        classes = scenes.tested_classes
        metrics, alone = evaluate_panoptic(model, scenes.test, scenes.tested_categories, classes)
        new = set(classes.new)
        rows: list[dict[str, Any]] = []
        for number, name in enumerate(classes.names):
            means = metrics.means([number])
            if means["pq"] is not None:
                rows.append({"class": name, "pq": means["pq"], "new": number in new})
        rows.sort(key=lambda row: row["pq"])
        return {
            **panoptic_figures(metrics, alone, classes),
            "per_class": rows[:WORST],
            "pictures": segment_pictures(model, scenes.test, scenes.tested_categories, classes),
        }
