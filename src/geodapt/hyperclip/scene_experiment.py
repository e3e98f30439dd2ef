"""Tunes a detector or a panoptic model by each method and measures classes that it never saw."""

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.hyperclip.method_experiment import MethodExperiment
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.scene_settings import SceneSettings
from geodapt.hyperclip.scenes import Scenes, glyph_scenes, path_scenes
from geodapt.hyperclip.tuned_towers import TowerTuner
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
