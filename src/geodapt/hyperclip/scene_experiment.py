"""Tunes a detector or a panoptic model by each method and measures classes that it never saw."""

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geodapt.files import atomic_folder
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.scene_settings import SceneSettings
from geodapt.hyperclip.scenes import Scenes, glyph_scenes, path_scenes
from geodapt.hyperclip.starting_clip import StartingClip
from geodapt.hyperclip.tuned_towers import check_method
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.training import fit, trainable_parameters
from geodapt.vision import Clip


class SceneExperiment(ABC):
    """One CLIP, one set of pictures with objects, and the methods that tune the one for the other.

    What a task adds are a model of the CLIP, its batches, its loss and its figures.
    """

    task: str
    """Names the task in ``results.json``."""
    shown: tuple[str, ...]
    """Keys of a method's figures that are for the page, not for the table."""

    def __init__(self, settings: Any, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.methods = [TuningMethod.parse(name) for name in settings.methods]
        self.scenes = self._scenes()
        self.start = StartingClip(settings, folder)
        if not self.start.missing:  # refuse what does not fit before training
            towers = self.model(self.start.load()).clip.model
            for method in self.methods:
                check_method(towers, method, settings)

    @abstractmethod
    def model(self, clip: Clip) -> Any:
        """The task's model of a CLIP, with ``clip`` and ``save_pretrained``."""

    @abstractmethod
    def tuner(self, model: Any, method: TuningMethod) -> Any:
        """What trains, a module with ``tuned`` and ``groups``."""

    @abstractmethod
    def batches(self, model: Any) -> Any:
        """Rows with ``collate``."""

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
        settings, stage = self.settings, f"method-{method.name}"
        torch.manual_seed(settings.seed)  # the heads' start
        model = self.model(self.start.load())
        tuner: nn.Module = self.tuner(model, method)
        batches = self.batches(model)
        trained = trainable_parameters(tuner)
        fit(
            tuner,
            batches,
            settings.training,
            work=work,
            collate=batches.collate,
            groups=tuner.groups(),  # type: ignore[operator]
            seed=settings.seed,
            label=stage,
            **self.folder.watch(stage),
        )
        tuned: Any = tuner.tuned
        own = sum(parameter.numel() for parameter in tuned.parameters())
        kept = method.name == settings.kept and is_main_process()
        if kept and tuned.scaling is not None:
            tuned.scaling.save_pretrained(self.folder / "scaling")
        tuned.merge()
        model.eval()
        if kept:
            with atomic_folder(self.folder / "model") as temporary:
                model.save_pretrained(temporary)
        return {**self.measured(model), "trainable_parameters": trained, "clip_numbers": own}

    def _scenes(self) -> Scenes:
        settings = self.settings
        if settings.data.kind != "glyphs":
            return path_scenes(settings.data, settings.test, settings.split)
        from geodapt.data.glyphs import load_glyphs, load_pages  # draws, which needs more packages

        glyphs = load_glyphs(settings.data)
        return glyph_scenes(glyphs, load_pages(glyphs, settings.pages), settings.level)
