"""Tunes a CLIP on pages and asks it for words that training never showed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from geodapt.errors import InputError
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.evaluation import (
    evaluate_pages,
    page_figures,
    radius_report,
    resampled_figures,
    zero_shot_accuracy,
)
from geodapt.hyperclip.experiment import TuningExperiment
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.overlay import page_pictures
from geodapt.hyperclip.page_classes import PageClasses
from geodapt.hyperclip.recipe import HyperClipRecipe
from geodapt.runs import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

WORST = 10
"""Pairs of confused classes that the page shows."""


class PageExperiment(TuningExperiment):
    """One CLIP, one set of pages, and the methods that tune the one for the other."""

    def __init__(self, settings: HyperClipRecipe, folder: RunFolder) -> None:
        from geodapt.data.glyphs import load_glyphs, load_pages  # draws, which needs more packages

        super().__init__(settings, folder)
        self.glyphs = load_glyphs(settings.data)
        self.pages = load_pages(self.glyphs, settings.pages)
        # The level that trains, and the more general ones.
        asked = range(1, settings.level + 1)
        self.levels = [PageClasses.of(self.glyphs, level) for level in asked]
        self.main = self.levels[-1]
        self.check()

    def check_model(self, segmenter: OpenSegmenter) -> None:
        if segmenter.window > self.settings.pages.size:
            raise InputError(
                f"a window of {segmenter.window} pixels does not fit on pages of "
                f"{self.settings.pages.size}; set segmenter.window"
            )

    def words(self) -> Sequence[str]:
        return self.main.names

    def batches(self, segmenter: OpenSegmenter, seed: int) -> WordBatches:
        train, settings = self.pages["train"], self.settings

        def fetch(row: int) -> tuple["Image", Int[np.ndarray, "height width"]]:
            page = train[row]
            return page["image"].convert("RGB"), self.main.labels(np.array(page["mask"])).numpy()

        return WordBatches(
            len(train),
            fetch,
            self.main.names,
            self.main.seen,
            segmenter.clip,
            settings.classes,
            segmenter.window,
            settings.segmenter.templates[0],
            seed,
        )

    def validate(self, segmenter: OpenSegmenter) -> float:
        counted = evaluate_pages(segmenter, self.pages["validation"], [self.main])
        return counted[self.main.level][0].means()["miou_truth"] or 0.0

    def measure(self, segmenter: OpenSegmenter) -> dict[str, Any]:
        test = self.pages["test"]
        counted = evaluate_pages(segmenter, test, self.levels)
        main, resampled = counted[self.main.level]
        return {
            **page_figures({level: found for level, (found, _) in counted.items()}, self.levels),
            "draws": resampled_figures(resampled, self.main.seen, self.main.new),
            "zero_shot": zero_shot_accuracy(segmenter, self.glyphs),
            "radius": radius_report(segmenter, self.glyphs, test, self.levels),
            "confused": main.confused(WORST),
            "per_class": [row for row in main.per_class() if row["pixels"]],
            "pictures": page_pictures(segmenter, test, self.main),
        }

    def about(self) -> dict[str, Any]:
        test = self.pages["test"]
        return {
            "data": {
                "train": len(self.pages["train"]),
                "test": len(test),
                "objects": sum(len(page["category"]) for page in test["objects"]),
                "classes": len(self.main.names),
                "new_classes": len(self.main.new),
            }
        }
