"""X-Cross as a model to save, load and ask.

A saved folder holds what was trained (integrators, aggregation weights and head) and the source
adapters, so that it can be moved and uploaded as one folder. The base is found by name; hashes are
checked.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.adapters import AdapterBank
from geodapt.cards import write_card
from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.files import PICKLES, read_tensors, write_json, write_tensors
from geodapt.models import fingerprint, load_base, load_base_tokenizer
from geodapt.models.hub import find_folder
from geodapt.models.saved_tensors import require_shapes
from geodapt.paths import child
from geodapt.settings import Settings
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.prompts import ItemPrompts, PromptCollator, TextPrompts
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings, Pooling, PromptSettings

WEIGHTS = "model.safetensors"
SOURCES = "sources"
"""The folder of the source adapters within a saved model."""


class SourceReference(Settings):
    """A source adapter: its name, its hash, and where its PEFT folder is."""

    name: str
    sha256: str
    path: str = ""
    """Written on saving: relative to the folder that holds ``config.json``."""


class XCrossConfig(Settings):
    """``config.json`` of a saved X-Cross model."""

    base: str
    """Base model: ``minilm``, a folder or a hub name."""
    base_fingerprint: str
    sources: list[SourceReference]
    integrator: IntegratorSettings = IntegratorSettings()
    pooling: Pooling = "auto"
    prompt: PromptSettings = PromptSettings()
    head_width: int
    outputs: int = 1
    task: Literal["ranking", "classification"] = "ranking"
    labels: list[str] = []


class XCross(Scorer, ModelHubMixin, library_name="geodapt"):
    """One frozen base, n source adapters, and the integrators that were trained on a target.

    >>> model = XCross.from_pretrained("runs/demo/model")
    >>> model.rank(["datasets.load_iris", "svm.SVC"], ["metrics.accuracy_score", "manifold.TSNE"])
    """

    encoder: XCrossEncoder

    def __init__(
        self,
        encoder: XCrossEncoder,
        head: Head,
        config: XCrossConfig,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__(encoder, head)
        self.settings, self.tokenizer = config, tokenizer

    def trained(self) -> dict[str, torch.Tensor]:
        """The tensors that a saved model holds."""
        tensors = {f"head.{name}": t for name, t in self.head.state_dict().items()}
        tensors["weights"] = self.encoder.weights.detach()
        for layer, integrator in self.encoder.integrators.items():
            tensors[f"integrators.{layer}"] = integrator.weight.detach()
        return tensors

    @torch.inference_mode()
    def rank(self, history: Sequence[str], candidates: Sequence[str]) -> list[float]:
        """A score for each candidate text after a history of item names, oldest first."""
        if self.settings.task != "ranking":
            raise InputError("this model classifies texts; call classify(texts)")
        history, candidates = texts_of(history), texts_of(candidates, "candidates")
        if not candidates:
            raise InputError("rank() needs at least one candidate")
        items = [*history, *candidates]
        prompts = ItemPrompts(items, items, self.tokenizer, self.settings.prompt)
        rows = prompts(range(len(history)), range(len(history), len(items)))
        return self._logits([{"prompts": rows, "labels": 0}])[0].tolist()

    @torch.inference_mode()
    def classify(self, texts: Sequence[str]) -> list[str]:
        """The most likely label of each text."""
        if self.settings.task != "classification":
            raise InputError("this model ranks candidates; call rank(history, candidates)")
        return [self.settings.labels[k] for k in self.label_probabilities(texts).argmax(-1)]

    @torch.inference_mode()
    def label_probabilities(self, texts: Sequence[str]) -> Float[Tensor, "texts labels"]:
        """The probability of each label, in the order of ``settings.labels``, for each text."""
        if self.settings.task != "classification":
            raise InputError("this model ranks candidates; call rank(history, candidates)")
        texts = texts_of(texts)
        if not texts:
            return torch.zeros(0, len(self.settings.labels))
        prompts = TextPrompts(self.tokenizer, self.settings.prompt)(texts)
        return self._logits([{"prompts": [prompt], "labels": 0} for prompt in prompts]).softmax(-1)

    def _logits(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        self.eval()
        device = self.encoder.weights.device
        batch = {k: v.to(device) for k, v in PromptCollator(self.tokenizer)(rows).items()}
        batch.pop("labels")
        return self(**batch).logits

    def _save_pretrained(self, save_directory: Path) -> None:
        sources = []
        for source in self.settings.sources:
            folder = child(save_directory / SOURCES, source.name)
            self.encoder.bank.save(source.name, folder)
            path = folder.relative_to(save_directory).as_posix()
            sources.append(source.model_copy(update={"path": path}))
        config = self.settings.model_copy(update={"sources": sources})
        write_tensors(save_directory / WEIGHTS, self.trained())
        write_json(save_directory / "config.json", config.model_dump(mode="json"))
        ask = "rank(history, candidates)" if config.task == "ranking" else "classify(texts)"
        write_card(
            save_directory,
            "X-Cross",
            "Integrators and a head that let the adapters of several domains, on one frozen base, "
            "serve a new domain. The adapters are in `sources/`.",
            base=config.base,
            relation="adapter",
            tags=["x-cross", "lora"],
            facts={"task": config.task, "exchange after layers": config.integrator.layers},
            sources=[{"adapter": source.name, "sha256": source.sha256} for source in sources],
            usage=(
                "from geodapt.xcross.model import XCross\n\n"
                f'model = XCross.from_pretrained("this folder")\nmodel.{ask}'
            ),
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's own has no base and no bank
        cls,
        source: str | Path,
        *,
        base: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        bank: AdapterBank | None = None,
        dtype: torch.dtype = torch.float32,
        **hub: Any,
    ) -> "XCross":
        """Load base and adapters where the saved model says they are, and check their hashes.

        ``source`` is a folder or a hub name, ``hub`` goes to
        :func:`huggingface_hub.snapshot_download`. ``base``, ``tokenizer`` and ``bank`` share what
        is already in memory; a bank's model is the base. Raises :class:`InputError`
        for what is missing, corrupt or pickled, and for a base or an adapter other than those that
        it was trained with.
        """
        folder = find_folder(source, "model", "one saved by save_pretrained", **hub)
        config = XCrossConfig.read(folder / "config.json")
        _refuse_pickles(folder)
        tensors = read_tensors(folder / WEIGHTS)
        if base is None:
            base = load_base(config.base, dtype)[0] if bank is None else bank.model
        found = fingerprint(base)
        if found != config.base_fingerprint:
            raise InputError(
                f"{folder}: trained on a base with fingerprint {config.base_fingerprint}, but "
                f"'{config.base}' has {found}: its weights are others now; load the base that it "
                "was trained on (base=, tokenizer=)"
            )
        if tokenizer is None:
            tokenizer = load_base_tokenizer(config.base)
        bank = bank or AdapterBank(base)
        for adapter in config.sources:
            if adapter.name not in bank:
                bank.load(adapter.name, _resolve(folder, adapter))
            held = bank[adapter.name].sha256
            if held != adapter.sha256:
                raise InputError(
                    f"{folder}: source adapter '{adapter.name}' at {adapter.path} has hash "
                    f"{held[:12]}, but this model was trained with {adapter.sha256[:12]}; "
                    "put the original adapter back or train again"
                )
        names = [adapter.name for adapter in config.sources]
        encoder = XCrossEncoder(base, bank, names, config.integrator, config.pooling)
        head = Head(encoder.width, config.head_width, config.outputs)
        model = cls(encoder, head, config, tokenizer)
        model._load_trained(tensors, folder)
        return model.eval()

    def _load_trained(self, tensors: dict[str, torch.Tensor], folder: Path) -> None:
        expected = {name: tuple(tensor.shape) for name, tensor in self.trained().items()}
        require_shapes(folder / WEIGHTS, tensors, expected)
        self.head.load_state_dict(
            {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")}
        )
        with torch.no_grad():
            self.encoder.weights.copy_(tensors["weights"])
            for layer, integrator in self.encoder.integrators.items():
                integrator.weight.copy_(tensors[f"integrators.{layer}"])


def _refuse_pickles(folder: Path) -> None:
    if not (folder / WEIGHTS).exists():
        for path in sorted(folder.iterdir()):
            if path.suffix in PICKLES:
                read_tensors(path)  # says why a pickle is not read


def _resolve(folder: Path, source: SourceReference) -> str:
    """Where a source adapter is: in the model's folder, at an absolute path, or on the hub."""
    local = folder / source.path
    if local.exists():
        return os.path.normpath(local)
    if source.path.startswith((".", "/", "~", f"{SOURCES}/")):
        raise InputError(
            f"{folder}: its source adapter '{source.name}' is looked for at "
            f"{os.path.normpath(local)}, where nothing is; put the adapter's folder there, or load "
            "it into a bank and give bank="
        )
    return source.path
