"""X-Cross as a model to save, load and ask.

What is saved is what was trained: integrators, aggregation weights and head. The base and the
source adapters stay where they are and are found by name or path; their hashes are checked.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import ValidationError
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.files import PICKLES, read_json, read_tensors, write_json, write_tensors
from geodapt.models import fingerprint, load_base
from geodapt.settings import Settings
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.prompts import Collator, ItemPrompts, TextPrompts
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings, Pooling, PromptSettings

WEIGHTS = "model.safetensors"
CARD = """---
{{ card_data }}
---

Integrators and a scoring head of X-Cross: they let the adapters of several source domains, on one
frozen base, serve a new domain. `config.json` names the base and the adapters.

```python
from geodapt.xcross.model import XCross

model = XCross.from_pretrained("this folder, or its name on the hub")
```
"""


class SourceReference(Settings):
    """A source adapter: its name, where its PEFT folder is, and what it must hash to."""

    name: str
    path: str
    sha256: str


class XCrossConfig(Settings):
    """``config.json`` of a saved X-Cross model."""

    base: str
    """Base model: ``minilm``, a folder or a hub name."""
    base_fingerprint: str
    sources: list[SourceReference]
    """Paths are relative to the folder that holds ``config.json``, or absolute, or hub names."""
    integrator: IntegratorSettings = IntegratorSettings()
    pooling: Pooling = "auto"
    prompt: PromptSettings = PromptSettings()
    head_width: int
    outputs: int = 1
    task: Literal["ranking", "classification"] = "ranking"
    labels: list[str] = []


class XCross(Scorer, ModelHubMixin, library_name="geodapt", model_card_template=CARD):
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
        for given in (history, candidates):
            if isinstance(given, str):
                raise InputError(f"rank() takes a list of texts, got the text {given!r}")
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
        if isinstance(texts, str):
            raise InputError(f"classify() takes a list of texts, got the text {texts!r}")
        if not texts:
            return []
        prompts = TextPrompts(self.tokenizer, self.settings.prompt)(texts)
        logits = self._logits([{"prompts": [prompt], "labels": 0} for prompt in prompts])
        return [self.settings.labels[index] for index in logits.argmax(-1).tolist()]

    def _logits(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        self.eval()
        device = self.encoder.weights.device
        batch = {k: v.to(device) for k, v in Collator(self.tokenizer)(rows).items()}
        batch.pop("labels")
        return self(**batch).logits

    def _save_pretrained(self, save_directory: Path) -> None:
        write_tensors(save_directory / WEIGHTS, self.trained())
        write_json(save_directory / "config.json", self.settings.model_dump(mode="json"))

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
        is already in memory. Raises :class:`InputError` for what is missing, corrupt or pickled,
        and for a base or an adapter other than those that it was trained with.
        """
        folder = _find(source, hub)
        config = _read_config(folder / "config.json")
        _refuse_pickles(folder)
        tensors = read_tensors(folder / WEIGHTS)
        if base is None or tokenizer is None:
            base, tokenizer = load_base(config.base, dtype)
        found = fingerprint(base)
        if found != config.base_fingerprint:
            raise InputError(
                f"{folder}: trained on a base with fingerprint {config.base_fingerprint}, but "
                f"'{config.base}' has {found}: its weights are others now; load the base that it "
                "was trained on (base=, tokenizer=)"
            )
        bank = bank or AdapterBank(base)
        for adapter in config.sources:
            if adapter.name not in bank:
                bank.load(adapter.name, _resolve(folder, adapter.path))
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
        held, wanted = (
            {n: tuple(t.shape) for n, t in ts.items()} for ts in (tensors, self.trained())
        )
        if held != wanted:
            name = min(held.items() ^ wanted.items())[0]
            raise InputError(
                f"{folder / WEIGHTS} does not fit its config.json: tensor '{name}' is "
                f"{held.get(name, 'absent')}, but {wanted.get(name, 'absent')} by the "
                "configuration; save the model again"
            )
        self.head.load_tensors(
            {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.")},
            str(folder),
        )
        with torch.no_grad():
            self.encoder.weights.copy_(tensors["weights"])
            for layer, integrator in self.encoder.integrators.items():
                integrator.weight.copy_(tensors[f"integrators.{layer}"])


def _find(source: str | Path, hub: dict[str, Any]) -> Path:
    """The folder of a saved model, downloaded first when ``source`` is a hub name."""
    folder, name = Path(source).expanduser(), str(source)
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"model '{name}' is not a folder; give one saved by save_pretrained")
    try:
        return Path(snapshot_download(name, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"model '{name}' is neither a folder nor a hub name that is reachable: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _read_config(path: Path) -> XCrossConfig:
    try:
        return XCrossConfig.model_validate(read_json(path))
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"])) or "it"
        raise InputError(
            f"{path} is not an X-Cross configuration: {key}: {wrong['msg']}; "
            "was it saved by another version of geodapt?"
        ) from error


def _refuse_pickles(folder: Path) -> None:
    if not (folder / WEIGHTS).exists():
        for path in sorted(folder.iterdir()):
            if path.suffix in PICKLES:
                read_tensors(path)  # says why a pickle is not read


def _resolve(folder: Path, path: str) -> str:
    local = folder / path
    return os.path.normpath(local) if local.exists() else path
