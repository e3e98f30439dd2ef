"""LatHAdapter on frozen features: variants x seeds under one protocol, beside no adapter."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.data.loading import load_labelled_pictures
from geodapt.data.vision.pictures import label_column
from geodapt.lathadapter.adapter import LatHAdapter
from geodapt.lathadapter.attribute_page import attribute_page
from geodapt.lathadapter.fitting import fit_on_features
from geodapt.lathadapter.recipe import LatHAdapterRecipe
from geodapt.progress import schedule
from geodapt.prompts.adapter import write_feature_adapter
from geodapt.prompts.protocols import (
    MAIN_FIGURE,
    answers_as_text,
    average_of_sets,
    paired_difference,
    plan_task,
    read_answers,
)
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP, load_base_clip, must_be_trained
from geodapt.tinyclip.cache import train_in_stage
from geodapt.vision.clip import Clip
from geodapt.vision.templates import fill_templates

PLAIN = "plain"


class AblationExperiment:
    """One CLIP, one data set, and the adapters that are compared on them."""

    def __init__(self, settings: LatHAdapterRecipe, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.pictures = load_labelled_pictures(settings.data)
        # Refused before anything is trained: too few shots, no domains.
        self.tasks = {
            seed: plan_task(settings.protocol, self.pictures, settings.shots, seed)
            for seed in settings.seeds
        }
        self._features: dict[int, Tensor] = {}

    @cached_property
    def clip(self) -> Clip:
        return load_base_clip(self.settings.base, self.settings.glyph_base)

    def run(self) -> dict[str, Any]:
        """Train and ask every variant; returns what goes into ``results.json``."""
        names = [PLAIN, *self.settings.variants]
        trains_base = must_be_trained(self.settings.base, self.settings.glyph_base)
        first = {TINYCLIP: 30.0} if trains_base else {}
        schedule({**first, **{f"variant-{name}": 1.0 for name in names}})
        if trains_base:
            train_in_stage(self.folder, self.settings.glyph_base)
        found = {
            name: self.folder.timed_stage(f"variant-{name}", partial(self._asked, name))
            for name in names
        }
        return self._results(found)

    def _asked(self, name: str, work: Path) -> dict[str, Any]:
        """The answers of one variant after each seed's training, and what its attributes are."""
        answers, attributes, parameters = {}, [], 0
        page: dict[str, Any] | None = None
        for place, seed in enumerate(self.settings.seeds):
            task = self.tasks[seed]
            train = task.train.splits["train"]
            texts = class_features(self.clip, task.train.names, task.train.template)
            adapter = None
            if name != PLAIN:
                images = self._images(train)
                labels = torch.from_numpy(label_column(train))
                adapter = LatHAdapter(texts.shape[1], self.settings.variants[name])
                settings, scale = self.settings.training, self.clip.scale.detach().cpu()
                fit_on_features(adapter, images, labels, texts, scale, settings, seed)
                attributes.append(
                    {
                        "first": adapter.first_number,
                        "last": adapter.number,
                        "curvature": float(adapter.curvature),
                    }
                )
                parameters = sum(one.numel() for one in adapter.parameters())
                if place == 0 and name == next(iter(self.settings.variants)):
                    page = attribute_page(adapter, task.train, images, labels, texts)
                    self._keep(adapter)
            answers[str(seed)] = {
                part: self._right(adapter, one) for part, one in task.tests.items()
            }
        return {
            "answers": answers,
            "attributes": attributes,
            "page": page,
            "trainable_parameters": parameters,
        }

    @torch.no_grad()
    def _right(self, adapter: LatHAdapter | None, asked: Any) -> str:
        """A 1 for each test picture whose class scores best, else a 0."""
        images = self._images(asked.splits["test"])
        texts = class_features(self.clip, asked.names, asked.template)
        if adapter is None:
            unit = nn.functional.normalize
            logits = unit(images, dim=-1) @ unit(texts, dim=-1).T
        else:
            logits = adapter.logits(images, adapter.refine(texts), self.clip.scale.detach().cpu())
        return answers_as_text(logits.argmax(-1).numpy() == label_column(asked.splits["test"]))

    def _images(self, rows: Any) -> Tensor:
        """Features of a data set's pictures, each data set's computed once in a run."""
        if id(rows) not in self._features:
            self._features[id(rows)] = self.clip.image_features(rows["image"])
        return self._features[id(rows)]

    def _keep(self, adapter: LatHAdapter) -> None:
        """An adapter, reloadable by :func:`~geodapt.prompts.adapter.read_feature_adapter`."""
        folder = self.folder / "model"
        folder.mkdir(parents=True, exist_ok=True)
        write_feature_adapter(adapter, folder)

    def _results(self, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        settings = self.settings
        main = MAIN_FIGURE[settings.protocol]
        right = {
            name: [read_answers(of_seed) for of_seed in one["answers"].values()]
            for name, one in found.items()
        }
        rows, differences = [], []
        for name, one in found.items():
            accuracies = [
                {part: float(row.mean()) for part, row in of_seed.items()}
                for of_seed in right[name]
            ]
            figures = average_of_sets(settings.protocol, accuracies)
            costs = {key: one[key] for key in ("seconds", "peak_memory_mb", "trainable_parameters")}
            label = "CLIP as it is" if name == PLAIN else f"LatHAdapter, {name}"
            rows.append({"method": name, "label": label, **figures, **costs})
            if name != PLAIN:
                pairs = list(zip(right[name], right[PLAIN], strict=True))
                paired = paired_difference(settings.protocol, pairs, main)
                differences.append({"variant": name, "figure": main, **vars(paired)})
        return {
            "task": "classification",
            "base": settings.base,
            "rows": rows,
            "lathadapter": {
                "protocol": settings.protocol,
                "shots": settings.shots,
                "classes": len(self.pictures.names),
                "notes": self.pictures.notes,
                "differences": differences,
                "attributes": {name: one["attributes"] for name, one in found.items()},
                "page": found[next(iter(settings.variants))]["page"],
            },
        }


def class_features(clip: Clip, names: Sequence[str], template: str) -> Float[Tensor, "c d"]:
    """Vectors of class names in a sentence, not scaled to unit length, on the CPU."""
    return clip.text_features([row[0] for row in fill_templates(names, [template])])
