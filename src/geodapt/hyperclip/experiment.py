"""Tunes a CLIP on pages by each method and asks it for words that training never showed."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.hyperclip.attachment import scale
from geodapt.hyperclip.evaluation import (
    evaluate_pages,
    page_figures,
    radius_report,
    zero_shot_accuracy,
)
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.overlay import page_pictures
from geodapt.hyperclip.page_classes import PageBatches, PageClasses
from geodapt.hyperclip.settings import METHODS, SCALED, HyperClipSettings
from geodapt.hyperclip.tuning import SegmentationTuner
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP, must_be_trained, resolve_base
from geodapt.tinyclip.cache import checkpoint
from geodapt.training import fit, trainable_parameters
from geodapt.vision import load_clip

WORST = 10
"""Pairs of confused classes, and pictures, that the page shows."""


class HyperClipExperiment:
    """One CLIP, one set of pages, and the methods that tune the one for the other."""

    def __init__(self, settings: HyperClipSettings, folder: RunFolder) -> None:
        from geodapt.data.glyphs import load_glyphs, load_pages  # draws, which needs more packages

        self.settings, self.folder = settings, folder
        self.glyphs = load_glyphs(settings.data)
        self.pages = load_pages(self.glyphs, settings.pages)
        self.levels = [PageClasses.of(self.glyphs, level) for level in self._asked_levels()]
        self.main = next(each for each in self.levels if each.level == settings.level)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._check()

    def _asked_levels(self) -> list[int]:
        """The level that trains, and the more general ones."""
        return list(range(1, self.settings.level + 1))

    def _check(self) -> None:
        """Refuse what does not fit before anything is trained."""
        if must_be_trained(self.settings.base):
            return
        segmenter = self._segmenter()
        size, patch = self.settings.pages.size, segmenter.clip.model.config.vision_config.patch_size
        if size % patch:
            raise InputError(
                f"pages of {size} pixels do not divide into patches of {patch}; set pages.size"
            )
        for method in self.settings.methods:
            if method.startswith(SCALED):
                block = int(method.removeprefix(SCALED))
                scaling = self.settings.scaling.model_copy(update={"block": block})
                scale(segmenter.clip.model, scaling).detach()

    def run(self) -> dict[str, Any]:
        """Tune and measure by each method; returns what goes into ``results.json``."""
        trains_base = must_be_trained(self.settings.base)
        first = {TINYCLIP: 10.0} if trains_base else {}
        schedule({**first, **{f"method-{name}": 1.0 for name in self.settings.methods}})
        if trains_base:
            self.folder.timed_stage(TINYCLIP, self._train_base)
        rows = [self._row(name) for name in self.settings.methods]
        return self._results(rows)

    def _train_base(self, work: Path) -> dict[str, Any]:
        checkpoint(**self.folder.watch(TINYCLIP))
        return {}

    def _row(self, name: str) -> dict[str, Any]:
        found = self.folder.timed_stage(f"method-{name}", partial(self._tuned, name))
        return {"method": name, "label": method_label(name), **found}

    def _tuned(self, name: str, work: Path) -> dict[str, Any]:
        settings, stage = self.settings, f"method-{name}"
        torch.manual_seed(settings.seed)
        tuner = SegmentationTuner(self._segmenter(), name, settings)
        batches = PageBatches(
            self.pages["train"],
            self.main,
            tuner.segmenter.clip,
            settings.classes,
            settings.segmenter.templates[0],
        )
        trained = trainable_parameters(tuner)
        fit(
            tuner,
            batches,
            settings.training,
            work=work,
            collate=batches.collate,
            groups=tuner.groups(name),
            seed=settings.seed,
            label=stage,
            **self.folder.watch(stage),
        )
        own = sum(parameter.numel() for parameter in tuner.clip_parameters())
        if name == settings.kept and tuner.scaling is not None and is_main_process():
            tuner.scaling.save_pretrained(self.folder / "scaling")
        tuner.merge()
        segmenter = tuner.segmenter
        if name == settings.kept and is_main_process():
            with atomic_folder(self.folder / "model") as temporary:
                segmenter.save_pretrained(temporary)
        return {**self._measured(segmenter), "trainable_parameters": trained, "clip_numbers": own}

    def _measured(self, segmenter: OpenSegmenter) -> dict[str, Any]:
        """Figures of a tuned model, and what the page shows of it."""
        test = self.pages["test"]
        counted = evaluate_pages(segmenter, test, self.levels)
        main = counted[self.main.level]
        return {
            **page_figures(counted, self.levels, self.main.level),
            "zero_shot": zero_shot_accuracy(segmenter, self.glyphs),
            "radius": radius_report(segmenter, self.glyphs, test, self.levels),
            "confused": main.confused(WORST),
            "per_class": [row for row in main.per_class() if row["pixels"]],
            "pictures": page_pictures(segmenter, test, self.main),
        }

    def _segmenter(self) -> OpenSegmenter:
        clip = load_clip(resolve_base(self.settings.base))
        clip.model.to(self.device)
        return OpenSegmenter(clip, self.settings.segmenter)

    def _results(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What ``results.json`` holds."""
        parts = ("radius", "confused", "per_class", "pictures")
        shown = {row["method"]: {part: row.pop(part) for part in parts} for row in rows}
        objects = sum(len(page["category"]) for page in self.pages["test"]["objects"])
        return {
            "task": "segmentation",
            "base": self.settings.base,
            "rows": rows,
            "segmentation": {"kept": self.settings.kept, "methods": shown},
            "data": {
                "train": len(self.pages["train"]),
                "test": len(self.pages["test"]),
                "objects": objects,
                "classes": len(self.main.names),
                "new_classes": len(self.main.new),
            },
        }


def method_label(name: str) -> str:
    """What tables call a method."""
    if name.startswith(SCALED):
        return f"HyperCLIP, blocks of {name.removeprefix(SCALED)}"
    return METHODS[name]
