"""Measures an encoder, tunes it by each method of a recipe, and measures it again, in stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geodapt import paths
from geodapt.adapters.settings import LoraSettings
from geodapt.data.chains import Pictures
from geodapt.data.hierarchies import load_hierarchy
from geodapt.data.lexical import load_lexical
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.radial.batches import Collator
from geodapt.radial.encoders import TextEncoder
from geodapt.radial.images import Images, embed_images, image_files
from geodapt.radial.measuring import Measurer
from geodapt.radial.model import RadialModel
from geodapt.radial.picture import picture
from geodapt.radial.settings import METHODS, RootSettings
from geodapt.radial.small_clip import SMALL_CLIP, is_missing, train, untrained
from geodapt.radial.tuning import Tuner
from geodapt.runs import RunFolder
from geodapt.training import fit, trainable_parameters

if TYPE_CHECKING:
    from geodapt.radial.recipe import RadialRecipe

UNTUNED = "untuned"


class Study:
    """One encoder, one hierarchy, and the methods that tune the one on the other."""

    def __init__(self, recipe: RadialRecipe, folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        self.lexical = load_lexical(recipe.lexical) if recipe.lexical else None
        self.hierarchy = load_hierarchy(recipe.data)
        self.notes = list(self.hierarchy.notes)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.root = recipe.root.text
        self.images: Images | None = None
        # What does not fit is said before anything is measured or trained.
        base = recipe.base
        encoder = TextEncoder(*untrained(), base) if is_missing(base) else self._encoder()
        RadialModel(encoder, RootSettings(text=self.root)).train_text_side(self._lora())
        self.pictures = self._pictures(encoder.dual)

    def _pictures(self, dual: bool) -> Pictures | None:
        """What the test chains' images are: files in the folder of images, or the data's own."""
        given, own = self.recipe.images, self.hierarchy.pictures
        if given is None:
            if own is None or dual:
                return own
            told = f"'{self.recipe.base}' embeds texts only: names stand for their pictures"
            self.notes.append(told)
            return None
        if not dual:
            raise InputError(
                f"images are given, but encoder '{self.recipe.base}' embeds texts only; "
                "give a CLIP or a SigLIP, or leave images out"
            )
        if own is not None:
            raise InputError(
                f"images '{given}' are given, but the {self.hierarchy.name} of data.kind bring "
                "their own pictures; leave images out"
            )
        folder = paths.given(given)
        if not folder.is_dir():
            raise InputError(f"images '{given}' is no folder; give the images' folder")
        names = [chain.group for chain in self.hierarchy.test if chain.group]
        if not any((folder / Path(name).name).is_file() for name in names):
            wanted = f", such as {Path(names[0]).name}" if names else ": its chains name none"
            raise InputError(f"images '{given}' has none of the data's images{wanted}")
        return image_files(names, folder)

    # Rows

    def schedule(self) -> None:
        """Announce the stages; measuring costs about a fifth of a training."""
        first = {SMALL_CLIP: 5.0} if is_missing(self.recipe.base) else {}
        tuned = {f"method-{name}": 1.0 for name in self.recipe.methods}
        schedule({**first, UNTUNED: 0.2, **tuned})

    def before(self) -> dict[str, Any]:
        """The row of the encoder as it is; the small CLIP is trained first, where it is missing."""
        if is_missing(self.recipe.base):
            self.folder.measured(SMALL_CLIP, self._train_base)
        found = self.folder.measured(UNTUNED, lambda work: self._before())
        return {"method": UNTUNED, "label": "Untuned", **found}

    def _train_base(self, work: Path) -> dict[str, Any]:
        train(**self.folder.watch(SMALL_CLIP))
        return {}

    def _before(self) -> dict[str, Any]:
        model = RadialModel(self._encoder(), RootSettings(text=self.root))
        measurer = Measurer(model, self.hierarchy, self._images(model.encoder))
        figures = measurer.figures(self.lexical)
        skipped = self.images.note() if self.images else ""
        return {
            **figures,
            "trainable_parameters": 0,
            "picture": picture(measurer),
            "notes": [skipped] if skipped else [],
        }

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
        """The pictures, embedded once: their tower does not train."""
        if self.pictures is not None and self.images is None:
            self.images = embed_images(encoder, self.pictures)
        return self.images

    def results(self, before: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What ``results.json`` holds."""
        hierarchy = self.hierarchy
        pictures = {row["label"]: row.pop("picture") for row in (before, *rows)}
        notes = [*self.notes, *before.pop("notes")]
        costs = ("method", "label", "seconds", "peak_memory_mb", "trainable_parameters")

        def figures(row: dict[str, Any]) -> dict[str, float]:
            return {key: value for key, value in row.items() if key not in costs}

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
