"""Measures an encoder, tunes it by each method, and measures it again, in stages."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt import paths
from geodapt.adapters.settings import LoraSettings
from geodapt.data.chains import ChainPictures
from geodapt.data.lexical import load_lexical
from geodapt.data.loading import load_hierarchy
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.models import TextEncoder
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.radial.choosing import curvature_of_chains
from geodapt.radial.collator import ChainCollator
from geodapt.radial.encoders import is_dual, load_encoder, untrained_encoder
from geodapt.radial.evaluation import Measurer
from geodapt.radial.images import embed_images, image_files
from geodapt.radial.model import RadialModel
from geodapt.radial.polar_layout import picture
from geodapt.radial.recipe import METHODS, RadialRecipe
from geodapt.radial.settings import RootSettings
from geodapt.radial.tuning import Tuner
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP, must_be_trained, trained_base
from geodapt.tinyclip.cache import train_in_stage
from geodapt.training import fit, trainable_parameters
from geodapt.vision import EmbeddedImages

UNTUNED = "untuned"


class RadialExperiment:
    """One encoder, one hierarchy, and the methods that tune the one on the other."""

    def __init__(self, settings: RadialRecipe, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.c = 0.0
        self.chosen: dict[str, Any] | None = None
        self.lexical = load_lexical(settings.lexical) if settings.lexical else None
        self.hierarchy = load_hierarchy(settings.data)
        self.notes = list(self.hierarchy.notes)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.root = settings.root.text
        self.images: EmbeddedImages | None = None
        # Refuse what does not fit before anything is measured or trained.
        untrained = must_be_trained(settings.base, settings.glyph_base)
        encoder = untrained_encoder(settings.glyph_base) if untrained else self._encoder()
        RadialModel(encoder, RootSettings(text=self.root)).train_text_side(self._lora())
        self.pictures = self._pictures(is_dual(encoder))

    def _pictures(self, dual: bool) -> ChainPictures | None:
        """The test chains' images: files in the folder of images, or the data's own."""
        given, own = self.settings.images, self.hierarchy.pictures
        if given is None:
            if own is None or dual:
                return own
            note = f"'{self.settings.base}' embeds texts only: names stand for their pictures"
            self.notes.append(note)
            return None
        if not dual:
            raise InputError(
                f"images are given, but encoder '{self.settings.base}' embeds texts only; "
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

    def run(self) -> dict[str, Any]:
        """Measure, tune and measure again; returns what goes into ``results.json``."""
        self.schedule()
        before = self.before()
        return self.results(before, [self.method(name, before) for name in self.settings.methods])

    def schedule(self) -> None:
        """Announce the stages; measuring costs about a fifth of a training."""
        settings = self.settings
        first = {TINYCLIP: 5.0} if must_be_trained(settings.base, settings.glyph_base) else {}
        tuned = {f"method-{name}": 1.0 for name in settings.methods}
        if settings.curvature == "auto":
            first["curvature"] = 0.1
        schedule({**first, UNTUNED: 0.2, **tuned})

    def before(self) -> dict[str, Any]:
        """The row of the encoder as it is; the small CLIP is trained first, where it is missing."""
        if must_be_trained(self.settings.base, self.settings.glyph_base):
            train_in_stage(self.folder, self.settings.glyph_base)
        self.choose_curvature()
        found = self.folder.timed_stage(UNTUNED, lambda work: self._before())
        return {"method": UNTUNED, "label": "Untuned", **found}

    def choose_curvature(self) -> None:
        """The space in which angles are measured; chosen from the training chains where asked."""
        if self.settings.curvature != "auto":
            self.c = self.settings.curvature
            return

        def choose(work: Path) -> dict[str, Any]:
            model = RadialModel(self._encoder(), RootSettings(text=self.root))
            chosen = curvature_of_chains(model, self.hierarchy.train, self.settings.seed)
            return {
                "c": chosen.c,
                "estimate": chosen.estimate,
                "tried": [list(pair) for pair in chosen.tried.items()],
            }

        self.chosen = self.folder.stage("curvature", choose)
        self.c = self.chosen["c"]
        self.notes.append(
            f"Angles are measured at curvature -{self.c:.3g}, chosen on training chains (the "
            f"estimate was -{self.chosen['estimate']:.3g})."
        )

    def _before(self) -> dict[str, Any]:
        model = RadialModel(self._encoder(), RootSettings(text=self.root))
        measurer = Measurer(model, self.hierarchy, self._images(model.encoder), self.c)
        figures = measurer.figures(self.lexical)
        skipped = self.images.note() if self.images else ""
        return {
            **figures,
            "trainable_parameters": 0,
            "picture": picture(measurer).model_dump(),
            "notes": [skipped] if skipped else [],
        }

    def method(self, name: str, before: dict[str, Any]) -> dict[str, Any]:
        """One row of the table: tuned on the training chains, measured on the held-out ones."""
        start = before["picture"]["angles"]
        found = self.folder.timed_stage(f"method-{name}", partial(self._tuned, name, start))
        return {"method": name, "label": METHODS[name], **found}

    def _tuned(self, name: str, start: list[float], work: Path) -> dict[str, Any]:
        settings = self.settings
        root = settings.root
        if name == "roots":
            kind = root.kind if root.kind != "encoder" else "learned"
            root = RootSettings(text=root.text, kind=kind, count=settings.several_roots)
        torch.manual_seed(settings.seed)
        model = RadialModel(self._encoder(), root)
        model.spread_roots([chain.texts[0] for chain in self.hierarchy.train], settings.seed)
        model.train_text_side(self._lora())
        tuner = Tuner(model, settings.loss, "cone" if name == "cone" else "radial", self.c)
        points = [p for p in model.roots.parameters() if p.requires_grad]
        own = {id(point) for point in points}
        rest = [p for p in tuner.parameters() if p.requires_grad and id(p) not in own]
        stage = f"method-{name}"
        fit(
            tuner,
            self.hierarchy.train,
            settings.training,
            work=work,
            collate=ChainCollator(model.encoder, root.text),
            groups=[{"params": rest}, {"params": points, "lr": settings.root_learning_rate}],
            seed=settings.seed,
            label=stage,
            **self.folder.watch(stage),
        )
        trained = trainable_parameters(tuner)
        if is_main_process():
            with atomic_folder(self.folder / self._model_folder(name)) as temporary:
                model.save(temporary)
        measurer = Measurer(model, self.hierarchy, self._images(model.encoder), self.c)
        figures = measurer.figures(self.lexical)
        return {
            **figures,
            "trainable_parameters": trained,
            "picture": picture(measurer, start).model_dump(),
        }

    def _model_folder(self, name: str) -> str:
        """``model`` for the run's first method, ``models/NAME`` for the others."""
        return "model" if name == self.settings.methods[0] else f"models/{name}"

    # What methods share

    def _encoder(self) -> TextEncoder:
        base = trained_base(self.settings.base, self.settings.glyph_base)
        return load_encoder(base).to(self.device)

    def _lora(self) -> LoraSettings | None:
        return self.settings.lora if self.settings.tune == "lora" else None

    def _images(self, encoder: TextEncoder) -> EmbeddedImages | None:
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
            "task": "hierarchy",
            "base": self.settings.base,
            "before": figures(before),
            "after": figures(rows[0]) if rows else figures(before),
            "rows": [before, *rows],
            "pictures": pictures,
            "data": {"train": len(hierarchy.train), "test": len(hierarchy.test)},
            "notes": notes,
            **({"curvature": self.chosen} if self.chosen else {}),
        }
