"""The recipe of panoptic segmentation: segments of classes that training never showed."""

from typing import Any

from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.panoptic import (
    PanopticBatches,
    PanopticTuner,
    evaluate_panoptic,
    panoptic_figures,
)
from geodapt.hyperclip.panoptic_model import OpenPanoptic
from geodapt.hyperclip.scene_experiment import SceneExperiment
from geodapt.hyperclip.scene_settings import PanopticModelSettings
from geodapt.hyperclip.segment_pictures import segment_pictures
from geodapt.vision import Clip

WORST = 15


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
