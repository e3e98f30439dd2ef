"""A text encoder with its root: embed, order by generality, retrieve from general to specific."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.adapters import AdapterBank, Mix
from geodapt.adapters.base_model.targets import choose_layers
from geodapt.adapters.settings import LoraSettings
from geodapt.cards import write_card
from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.files import read_tensors, write_json, write_tensors
from geodapt.metrics import retrieve_chains
from geodapt.metrics.hierarchy import STEPS
from geodapt.models import TextEncoder
from geodapt.models.text_encoder import read_modules
from geodapt.paths import given
from geodapt.radial.encoders import load_encoder, text_modules, text_parameters
from geodapt.radial.results import RetrievalStep
from geodapt.radial.roots import Roots, generality, initial_roots, nearest_root
from geodapt.radial.settings import CONFIG, RootSettings
from geodapt.settings import Settings
from geodapt.tinyclip.base import resolve_base

ROOTS, ADAPTER = "roots.safetensors", "adapter"
NAME = "radial"  # of the adapter in its bank
BESIDE = ("preprocessor_config.json", "processor_config.json", "modules.json")
"""Files beside a base's weights that are copied to the tuned model, so that it loads as the base
did; so are the folders that ``modules.json`` names."""


class SavedRadial(Settings):
    """``radial.json`` of a saved model."""

    base: str
    """What the adapter belongs to, or what the weights beside this file were tuned from."""
    tune: Literal["full", "lora"]
    root: RootSettings


@dataclass(frozen=True)
class Index:
    """Candidates to retrieve from."""

    texts: list[str]
    vectors: Float[Tensor, "candidates d"]
    radii: Float[Tensor, "roots candidates"]


class RadialModel(nn.Module):
    """A text encoder and the :class:`Roots` that generality is measured from.

    >>> model = RadialModel.load("minilm")  # doctest: +SKIP
    >>> index = model.index(["animal", "goat", "vehicle"])  # doctest: +SKIP
    >>> model.retrieve(["a goat eats leaves"], index)  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: TextEncoder,
        settings: RootSettings | None = None,
        points: Float[Tensor, "roots d"] | None = None,
    ) -> None:
        """``points``: where learned or fixed roots start; none: at the root text's embedding."""
        super().__init__()
        self.encoder = encoder
        settings = settings or RootSettings()
        try:
            encoder.tokens([settings.text])
        except InputError as error:
            raise InputError(
                f"the root's text: {error}, such as RootSettings(text='thing'); "
                "in a recipe, root.text"
            ) from error
        self.empty = encoder.embed([settings.text], "embedding the root")[0]
        if points is None and settings.kind != "encoder":
            points = self.empty[None]
        self.roots = Roots(settings, points)
        self.bank: AdapterBank | None = None

    # Tuning

    def train(self, mode: bool = True) -> "RadialModel":
        """The base stays in eval mode, whose embeddings anchor; the adapter's own dropout acts."""
        super().train(mode)
        self.encoder.model.eval()
        if self.bank is not None:
            self.bank.train_adapters(mode)
        return self

    def train_text_side(self, lora: LoraSettings | None) -> None:
        """Let the text side train: all of it, or an adapter on it; the image side stays frozen."""
        self.encoder.requires_grad_(False)
        if lora is None:
            for parameter in text_parameters(self.encoder):
                parameter.requires_grad_(True)
            return
        model = self.encoder.model
        targets = choose_layers(model, lora.targets, text_modules(self.encoder), "the text side")
        self.bank = AdapterBank(model)
        self.bank.create(NAME, lora.rank, lora.alpha, targets, lora.dropout, lora.rslora)
        self.bank.train_only(NAME)
        self.bank.set(Mix({NAME: 1.0}))

    def spread_roots(self, general: Sequence[str], seed: int) -> None:
        """Start several roots at clusters of the most general texts."""
        settings = self.roots.settings
        if settings.count > 1:
            vectors = self.encoder.embed(general, "embedding general texts")
            self.roots = Roots(settings, initial_roots(self.empty, vectors, settings.count, seed))

    # Using

    def embed(self, texts: Sequence[str], label: str = "embedding") -> Float[Tensor, "n d"]:
        """Unit vectors of texts."""
        return self.encoder.embed(texts, label)

    @torch.no_grad()
    def root_points(self) -> Float[Tensor, "roots d"]:
        """The roots as they are now."""
        empty = self.encoder.embed([self.roots.settings.text], "embedding the root")[0]
        return self.roots(empty.to(self.encoder.device)).cpu()

    def index(self, texts: Sequence[str]) -> Index:
        """Embed candidates, each text once, with their distances from every root."""
        different = list(dict.fromkeys(texts_of(texts, "candidates")))
        if not different:
            raise InputError("there are no candidates; give texts to retrieve from")
        vectors, roots = self.embed(different, "embedding candidates"), self.root_points()
        return Index(different, vectors, generality(vectors[None], roots[:, None]))

    def retrieve(
        self,
        queries: Sequence[str] | Float[Tensor, "queries d"],
        index: Index,
        steps: int = STEPS,
    ) -> list[list[RetrievalStep]]:
        """For each query its chain of candidates from general to specific.

        A query is a text, or an embedded image (:func:`geodapt.radial.images.embed_images`). Of
        several roots the one nearest to the query is the chain's.
        """
        if not isinstance(index, Index):
            raise InputError(f"index is a {type(index).__name__}; give what index(texts) made")
        if len(queries) == 0:
            return []
        vectors = queries if isinstance(queries, Tensor) else self.embed(queries)
        width = index.vectors.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InputError(
                f"queries have shape {tuple(vectors.shape)}; expected vectors of {width} numbers"
            )
        own = index.radii[nearest_root(self.root_points(), vectors)]
        similarity = vectors @ index.vectors.T
        chains = retrieve_chains(similarity, own, steps)
        return [
            [
                RetrievalStep(index.texts[i], own[q, i].item(), similarity[q, i].item())
                for i in chain
            ]
            for q, chain in enumerate(chains)
        ]

    # Saving

    def save(self, folder: str | Path) -> None:
        """Write the tuned weights, or the adapter, with ``radial.json`` and the roots.

        Full weights load by ``from_pretrained`` (and by sentence-transformers where the base
        does), an adapter in PEFT, and both by :meth:`load`.
        """
        folder = given(folder)
        base = self.encoder.name
        location = Path(resolve_base(base))
        lasting = str(location.absolute()) if given(base).is_dir() else base
        tune: Literal["full", "lora"] = "full" if self.bank is None else "lora"
        saved = SavedRadial(base=lasting, tune=tune, root=self.roots.settings)
        folder.mkdir(parents=True, exist_ok=True)
        write_card(
            folder,
            "Radial embeddings",
            "An encoder tuned so that general concepts lie near a root and specific ones far from "
            "it, along one direction.",
            base=base,
            relation="adapter" if self.bank is not None else "finetune",
            tags=["radial-embeddings", "hierarchy"],
            facts={"tuned": tune, "root": saved.root.kind, "roots": saved.root.count},
            usage=(
                "from geodapt.radial import RadialModel\n\n"
                'model = RadialModel.load("this folder")\n'
                'index = model.index(["animal", "goat", "a goat eating leaves"])\n'
                'model.retrieve(["a goat"], index)'
            ),
        )
        if self.bank is not None:
            self.bank.save(NAME, folder / ADAPTER)
        else:
            self.encoder.model.save_pretrained(folder)
            self.encoder.tokenizer.save_pretrained(folder)
            if location.is_dir():
                _copy_beside(location, folder)
        if self.roots.points is not None:
            write_tensors(folder / ROOTS, {"points": self.roots.points})
        write_json(folder / CONFIG, saved.model_dump(mode="json"))

    @classmethod
    def load(cls, source: str) -> "RadialModel":
        """A saved model's folder, or any encoder as it is: its name or folder.

        Raises :class:`InputError` for what is neither, and for a ``radial.json`` that is not as
        documented.
        """
        config = given(source) / CONFIG
        if not config.is_file():
            return cls(load_encoder(source))
        saved = SavedRadial.read(config)
        folder = config.parent
        encoder = load_encoder(saved.base if saved.tune == "lora" else str(folder))
        points = None
        if saved.root.kind != "encoder":
            points = read_tensors(folder / ROOTS).get("points")
            if points is None or points.dim() != 2 or not 0 < len(points) <= saved.root.count:
                raise InputError(f"{folder / ROOTS} does not hold the roots of {config}")
        bank = None
        if saved.tune == "lora":
            bank = AdapterBank(encoder.model)
            bank.load(NAME, folder / ADAPTER)
            bank.set(Mix({NAME: 1.0}))
        model = cls(encoder, saved.root, points)
        if points is not None and points.shape[1] != len(model.empty):
            raise InputError(f"{folder / ROOTS} has roots as wide as another encoder's vectors")
        model.bank = bank
        return model


def _copy_beside(base: Path, folder: Path) -> None:
    for name in BESIDE:
        if (base / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)
    if (base / "modules.json").is_file():
        for module in read_modules(base / "modules.json"):
            if module.path and (base / module.path).is_dir():
                shutil.copytree(base / module.path, folder / module.path, dirs_exist_ok=True)
