"""The `clip` recipe: a small CLIP from scratch, and its accuracy on what it never saw."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import Recipe, RunFolder
from geodapt.tinyclip.settings import TinyClipSettings

if TYPE_CHECKING:
    from geodapt.data.glyphs import Glyphs


class ClipRecipe(TinyClipSettings, Recipe):
    """Train a small CLIP on the characters of this machine's fonts."""

    recipe: Literal["clip"] = "clip"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        from geodapt.data.glyphs import load_glyphs
        from geodapt.tinyclip.cache import keep
        from geodapt.tinyclip.evaluation import evaluate_tinyclip
        from geodapt.vision.clip import load_clip

        settings = TinyClipSettings.model_validate(
            self.model_dump(include=set(TinyClipSettings.model_fields))
        )
        glyphs = load_glyphs(self.data)
        schedule({"training": 20.0, "tests": 1.0})
        trained = folder.stage("training", partial(self._train, settings, glyphs, folder))
        clip = load_clip(str(folder / "model"))
        tested = folder.stage("tests", lambda work: evaluate_tinyclip(clip, glyphs))
        if is_main_process():
            keep(folder / "model", settings, glyphs)
        return {
            "recipe": self.recipe,
            "title": self.title,
            "data": {"train": len(glyphs.splits["train"]), "labels": len(glyphs.classes)},
            **trained,
            **tested,
        }

    def _train(
        self, settings: TinyClipSettings, glyphs: "Glyphs", folder: RunFolder, work: Path
    ) -> dict[str, Any]:
        from geodapt.tinyclip.fitting import save_clip, train_clip
        from geodapt.training import trainable_parameters

        model, processor = train_clip(settings, glyphs, work, **folder.watch("training"))
        save_clip(model, processor, folder / "model")
        return {"trainable_parameters": trainable_parameters(model)}


RECIPES = (ClipRecipe,)
