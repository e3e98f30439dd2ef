"""Tunes a CLIP on a data set of pictures with masks, and tests it on others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int

from geodapt.data.vision import SegmentationData, open_segmentation
from geodapt.errors import InputError
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.evaluation import resampled_figures
from geodapt.hyperclip.experiment import TuningExperiment
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID
from geodapt.hyperclip.radius import radius_table
from geodapt.hyperclip.recipe import PictureTuningRecipe
from geodapt.metrics import ResampledIoU, SegmentationMetrics
from geodapt.progress import track
from geodapt.runs import RunFolder
from geodapt.vision import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

WORST = 10
VALIDATION = "validation"


class PictureExperiment(TuningExperiment):
    """One CLIP, pictures to train on, and named sets of pictures to test on."""

    def __init__(self, settings: PictureTuningRecipe, folder: RunFolder) -> None:
        super().__init__(settings, folder)
        chosen = settings.data
        self.train_data = open_segmentation(chosen.path, "train", chosen.edition)
        self.tests = {
            name: open_segmentation(given.path, "validation", given.edition)
            for name, given in {VALIDATION: chosen, **settings.test}.items()
        }
        self.skipped: dict[str, str] = {}
        self.check()

    def words(self) -> Sequence[str]:
        return [synonyms(name)[0] for name in self.train_data.asked]

    def batches(self, segmenter: OpenSegmenter, seed: int) -> WordBatches:
        data, settings = self.train_data, self.settings

        def fetch(row: int) -> tuple["Image", Int[np.ndarray, "height width"]]:
            for step in range(len(data)):  # the next one in place of one that cannot be read
                if (image := self._opened(data, (row + step) % len(data))) is not None:
                    image, mask = data.with_mask((row + step) % len(data), image)
                    return image, np.where(mask < 0, VOID, mask)
            raise InputError(f"{data.edition}: no picture can be read")

        return WordBatches(
            len(data),
            fetch,
            [synonyms(name)[0] for name in data.names],
            range(len(data.names) - bool(data.others)),
            segmenter.clip,
            settings.classes,
            segmenter.window,
            settings.segmenter.templates[0],
            seed,
            fit=True,
        )

    def validate(self, segmenter: OpenSegmenter) -> float:
        metrics, _ = self._counted(segmenter, self.tests[VALIDATION])
        return metrics.means()["miou_truth"] or 0.0

    def measure(self, segmenter: OpenSegmenter) -> dict[str, Any]:
        found: dict[str, Any] = {"sets": {}}
        for name, data in self.tests.items():
            metrics, resampled = self._counted(segmenter, data)
            means = metrics.means()
            new = [k for k, word in enumerate(data.names) if word not in self.train_data.names]
            figures = {
                "miou": means["miou_truth"],
                "miou_union": means["miou_union"],
                "miou_new": metrics.means(new)["miou_truth"] if new else None,
                "pixel_accuracy": means["pixel_accuracy"],
            }
            figures = {key: value for key, value in figures.items() if value is not None}
            draws = resampled_figures(resampled, range(len(data.names)), new)
            found["sets"][name] = {**figures, "draws": draws.get("miou")}
            if name == VALIDATION:
                found |= figures
                found["draws"] = {"miou": draws["miou"]} if "miou" in draws else {}
                found["confused"] = metrics.confused(WORST)
                found["per_class"] = [row for row in metrics.per_class() if row["pixels"]]
        vectors = segmenter.clip.text_features(self.prompts())
        radius = radius_table(vectors, ["Texts, classes of the training"] * len(vectors))
        return {**found, "radius": radius, "pictures": []}

    def about(self) -> dict[str, Any]:
        sets = {"train": self.train_data, **self.tests}
        notes = [note for data in sets.values() for note in data.notes]
        if self.skipped:
            first = next(iter(self.skipped.values()))
            notes.append(f"{len(self.skipped)} pictures skipped: {first}")
        return {
            "data": {
                "sets": {name: data.edition for name, data in sets.items()},
                "pictures": {name: len(data) for name, data in sets.items()},
                "classes": {name: len(data.names) for name, data in sets.items()},
                "notes": notes,
            }
        }

    def _counted(
        self, segmenter: OpenSegmenter, data: SegmentationData
    ) -> tuple[SegmentationMetrics, ResampledIoU]:
        """Pixels of a data set, one picture after the other: memory does not grow with it."""
        metrics = SegmentationMetrics(data.names, VOID)
        resampled = ResampledIoU(len(data.names), VOID)
        texts = segmenter.word_vectors([synonyms(name) for name in data.asked])
        count = min(len(data), self.settings.pictures or len(data))
        for row in track(range(count), "segmenting pictures", count):
            if (image := self._opened(data, row)) is None:
                continue
            image, mask = data.with_mask(row, image)
            said = segmenter.segment_lists(image, [texts])[0].numpy()
            labels = torch.from_numpy(np.where(mask < 0, VOID, mask))
            predicted = torch.from_numpy(data.answers(said))
            metrics.update(predicted, labels)
            resampled.update(predicted, labels)
        return metrics, resampled

    def _opened(self, data: SegmentationData, row: int) -> "Image | None":
        """The picture; None, and noted, where it cannot be read."""
        try:
            return open_picture(data.pictures[row])
        except InputError as error:
            self.skipped[str(data.pictures[row])] = str(error)
            return None


def synonyms(name: str) -> list[str]:
    """The words of a published name, which stand between commas."""
    return [word for part in name.split(",") if (word := part.strip())]
