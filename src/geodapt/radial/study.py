"""Measures an encoder, tunes it by each method of a recipe, and measures it again, in stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geodapt.adapters.settings import LoraSettings
from geodapt.data.hierarchies import load_hierarchy
from geodapt.data.lexical import load_lexical
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.processes import is_main_process
from geodapt.radial.batches import Collator
from geodapt.radial.encoders import TextEncoder
from geodapt.radial.images import Images, embed_images
from geodapt.radial.measuring import Measurer
from geodapt.radial.model import RadialModel
from geodapt.radial.picture import picture
from geodapt.radial.roots import RootSettings
from geodapt.radial.tuning import Tuner
from geodapt.runs import RunFolder
from geodapt.training import fit, trainable_parameters

if TYPE_CHECKING:
    from geodapt.radial.recipe import RadialRecipe

METHODS = {
    "radial": "Radial embeddings",
    "cone": "Entailment cone",
    "roots": "Radial, several roots",
}
UNTUNED = "untuned"


class Study:
    """One encoder, one hierarchy, and the methods that tune the one on the other."""

    def __init__(self, recipe: RadialRecipe, folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        self.lexical = load_lexical(recipe.lexical) if recipe.lexical else None
        self.hierarchy = load_hierarchy(recipe.data)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.root = recipe.root.text
        self.images: Images | None = None
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        """What the encoder cannot do is said before anything is measured or trained."""
        recipe = self.recipe
        model = RadialModel(self._encoder(), RootSettings(text=self.root))
        model.train_text_side(self._lora())
        if recipe.images is None:
            return
        if not model.encoder.dual:
            raise InputError(
                f"images are given, but encoder '{recipe.base}' embeds texts only; "
                "give a CLIP or a SigLIP, or leave images out"
            )
        folder = Path(recipe.images).expanduser()
        if not folder.is_dir():
            raise InputError(f"images '{recipe.images}' is no folder; give the images' folder")
        names = [Path(chain.group).name for chain in self.hierarchy.test if chain.group]
        if not any((folder / name).is_file() for name in names):
            wanted = f", such as {names[0]}" if names else ": its chains name none"
            raise InputError(f"images '{recipe.images}' has none of the data's images{wanted}")

    # Rows

    def before(self) -> dict[str, Any]:
        """The row of the encoder as it is."""
        found = self.folder.measured(UNTUNED, lambda work: self._before())
        return {"method": UNTUNED, "label": "Untuned", **found}

    def _before(self) -> dict[str, Any]:
        model = RadialModel(self._encoder(), RootSettings(text=self.root))
        measurer = Measurer(model, self.hierarchy, self._images(model.encoder))
        figures = measurer.figures(self.lexical)
        return {**figures, "trainable_parameters": 0, "picture": picture(measurer)}

    def method(self, name: str, before: dict[str, Any]) -> dict[str, Any]:
        """One row of the table: tuned on the training chains, measured on the held-out ones."""
        start = before["picture"]["angles"]
        found = self.folder.measured(f"method-{name}", partial(self._tuned, name, start))
        return {"method": name, "label": METHODS[name], **found}

    def _tuned(self, name: str, start: list[float], work: Path) -> dict[str, Any]:
        recipe = self.recipe
        root = recipe.root
        if name == "roots":
            kind = root.kind if root.kind != "encoder" else "learned"
            root = RootSettings(text=root.text, kind=kind, count=recipe.several_roots)
        torch.manual_seed(recipe.seed)
        model = RadialModel(self._encoder(), root)
        model.spread_roots([chain.texts[0] for chain in self.hierarchy.train], recipe.seed)
        model.train_text_side(self._lora())
        tuner = Tuner(model, recipe.loss, "cone" if name == "cone" else "radial")
        points = [p for p in model.roots.parameters() if p.requires_grad]
        own = {id(point) for point in points}
        rest = [p for p in tuner.parameters() if p.requires_grad and id(p) not in own]
        stage = f"method-{name}"
        fit(
            tuner,
            self.hierarchy.train,
            recipe.training,
            work=work,
            collate=Collator(model.encoder, root.text),
            groups=[{"params": rest}, {"params": points, "lr": recipe.root_learning_rate}],
            seed=recipe.seed,
            label=stage,
            **self.folder.watch(stage),
        )
        trained = trainable_parameters(tuner)
        if is_main_process():
            with atomic_folder(self.folder / self._model_folder(name)) as temporary:
                model.save(temporary)
        measurer = Measurer(model, self.hierarchy, self._images(model.encoder))
        figures = measurer.figures(self.lexical)
        return {
            **figures,
            "trainable_parameters": trained,
            "picture": picture(measurer, start),
        }

    def _model_folder(self, name: str) -> str:
        """``model`` for the run's first method, ``models/NAME`` for the others."""
        return "model" if name == self.recipe.methods[0] else f"models/{name}"

    # What methods share

    def _encoder(self) -> TextEncoder:
        return TextEncoder.load(self.recipe.base).to(self.device)

    def _lora(self) -> LoraSettings | None:
        return self.recipe.lora if self.recipe.tune == "lora" else None

    def _images(self, encoder: TextEncoder) -> Images | None:
        """The held-out images, embedded once: their tower does not train."""
        if self.recipe.images is not None and self.images is None:
            names = [chain.group for chain in self.hierarchy.test if chain.group]
            self.images = embed_images(encoder, names, self.recipe.images)
        return self.images

    def results(self, before: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What ``results.json`` holds."""
        hierarchy = self.hierarchy
        pictures = {row["label"]: row.pop("picture") for row in (before, *rows)}
        costs = ("method", "label", "seconds", "peak_memory_mb", "trainable_parameters")

        def figures(row: dict[str, Any]) -> dict[str, float]:
            return {key: value for key, value in row.items() if key not in costs}

        notes = [*hierarchy.notes, *filter(None, [self.images.note() if self.images else ""])]
        return {
            "recipe": self.recipe.recipe,
            "title": self.recipe.title,
            "task": "hierarchy",
            "base": self.recipe.base,
            "before": figures(before),
            "after": figures(rows[0]) if rows else figures(before),
            "rows": [before, *rows],
            "pictures": pictures,
            "data": {"train": len(hierarchy.train), "test": len(hierarchy.test)},
            "notes": notes,
        }
