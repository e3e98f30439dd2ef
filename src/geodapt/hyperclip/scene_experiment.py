"""Tunes a detector or a panoptic model by each method and measures classes that it never saw."""

from typing import Any

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
from geodapt.hyperclip.panoptic import (
    PanopticBatches,
    PanopticTuner,
    evaluate_panoptic,
    panoptic_figures,
)
from geodapt.hyperclip.panoptic_model import OpenPanoptic
from geodapt.hyperclip.scenes import Scenes, glyph_scenes, path_scenes
from geodapt.hyperclip.segment_pictures import segment_pictures
from geodapt.hyperclip.settings import DetectorSettings, PanopticModelSettings, WordShares
from geodapt.runs import RunFolder
from geodapt.vision import Clip


class SceneExperiment(MethodExperiment):
    """One CLIP, one set of pictures with objects, and the methods that tune the one for the other.

    What a task adds are a model of the CLIP, its batches, its loss and its figures.
    """

    def __init__(self, settings: Any, folder: RunFolder) -> None:
        super().__init__(settings, folder)
        self.scenes = self._scenes()
        self.check()

    def about(self) -> dict[str, Any]:
        classes = self.scenes.tested_classes
        return {
            "notes": self.scenes.notes,
            "data": {
                "train": len(self.scenes.train),
                "test": len(self.scenes.test),
                "classes": len(classes.names),
                "new_classes": len(classes.new),
            },
        }

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

    def model_of(self, clip: Clip) -> OpenDetector:
        settings = DetectorSettings(templates=self.settings.templates)
        return OpenDetector.from_clip(clip, self.settings.side, settings)

    def tuner(self, model: OpenDetector, method: TuningMethod) -> DetectionTuner:
        return DetectionTuner(model, method, self.settings)

    def batches(self, model: OpenDetector, seed: int) -> DetectionBatches:
        return DetectionBatches(
            self.scenes.train, self.scenes.classes, model, self.settings.classes
        )

    def measure(self, model: OpenDetector) -> dict[str, Any]:
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

    def model_of(self, clip: Clip) -> OpenPanoptic:
        given, classes = self.settings, self.scenes.classes
        settings = PanopticModelSettings(
            **given.model_dump(include={"templates", "side", *WordShares.model_fields}),
            seen=[classes.names[number] for number in classes.seen],
            stuff=[classes.names[number] for number in sorted(classes.stuff)],
        )
        return OpenPanoptic.from_clip(clip, given.masks, settings)

    def tuner(self, model: OpenPanoptic, method: TuningMethod) -> PanopticTuner:
        return PanopticTuner(model, method, self.settings)

    def batches(self, model: OpenPanoptic, seed: int) -> PanopticBatches:
        scenes = self.scenes
        return PanopticBatches(
            scenes.train, scenes.categories, scenes.classes, model, self.settings.classes
        )

    def measure(self, model: OpenPanoptic) -> dict[str, Any]:
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
