"""The recipe of detection: boxes of classes that training never showed."""

from typing import Any

from geodapt.hyperclip.boxes import box_pictures
from geodapt.hyperclip.detection import (
    DetectionBatches,
    DetectionTuner,
    detection_figures,
    evaluate_detection,
)
from geodapt.hyperclip.detector import OpenDetector
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.scene_experiment import SceneExperiment
from geodapt.hyperclip.scene_settings import DetectorSettings
from geodapt.vision import Clip

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
