"""Text encoders: any transformers or sentence-transformers model as a map from texts to vectors.

The pooling, its configuration and its formats are sentence-transformers' own (extra ``text``); the
weights are loaded like those of all bases, from safetensors alone and without running code from the
repository.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Float
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.checks import texts_of
from geodapt.errors import InputError, InputWarning
from geodapt.extras import require
from geodapt.files import read_json
from geodapt.models.batches import text_batches
from geodapt.models.blocks import is_decoder
from geodapt.models.hub import locate_base
from geodapt.models.loading import load_base
from geodapt.progress import bar
from geodapt.settings import first_error

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.modules import Pooling

PoolingMode = Literal["mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean"]

TEXTS_AT_ONCE = 16
"""Texts per forward pass: of similar lengths, so that little of it is padding."""


class TextEncoder(nn.Module):
    """A pretrained model from texts to unit vectors.

    It stays in eval mode, since dropout would blur distances between texts.

    >>> TextEncoder.load("minilm").embed(["a bird", "a car"]).shape
    torch.Size([2, 384])
    """

    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    """The tokenizer's outputs that the model reads."""
    padding: bool | str = True
    """To the longest text of a batch; "max_length": each to ``max_tokens``."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "",
        pooling: "PoolingMode | Pooling | None" = None,
    ) -> None:
        """Without ``pooling``: the last token of a decoder, the mean of any other model."""
        super().__init__()
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name: str = name or str(model.name_or_path)
        self.pooling = self._pooling(pooling)

    def _pooling(self, pooling: "PoolingMode | Pooling | None") -> nn.Module | None:
        if isinstance(pooling, nn.Module):
            return pooling
        mode = pooling or ("lasttoken" if is_decoder(self.model) else "mean")
        return _pooling_class()(self.model.config.get_text_config().hidden_size, mode)

    @classmethod
    def load(cls, base: str) -> "TextEncoder":
        """Read ``minilm``, a folder or a hub name, frozen, with the pooling that it declares.

        Raises :class:`InputError` for what is no encoder, and as :func:`load_base` does.
        """
        location = locate_base(base)
        model, tokenizer = load_base(base)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        return cls(model, tokenizer, base, declared_pooling(base, location))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def max_tokens(self) -> int:
        """The most tokens that the model reads; texts are cut there."""
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None) or 512
        return min(self.tokenizer.model_max_length, positions)

    def train(self, mode: bool = True) -> "TextEncoder":
        super().train(mode)
        self.model.eval()
        return self

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The texts as right-padded tokens on the CPU.

        Raises :class:`InputError` for a text of which the tokenizer makes no tokens.
        """
        self.tokenizer.padding_side = "right"
        cut = {"truncation": True, "max_length": self.max_tokens}
        batch = dict(self.tokenizer(list(texts), padding=self.padding, return_tensors="pt", **cut))
        ids = batch["input_ids"]
        lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else None
        empty = ids.shape[1] == 0 or (lengths is not None and bool((lengths == 0).any()))
        if empty:
            place = 0 if lengths is None or ids.shape[1] == 0 else int(lengths.argmin())
            raise InputError(
                f"encoder '{self.name}' has no tokens for the text '{texts[place]}', so it has no "
                "embedding; give a text of one word or more"
            )
        return {name: batch[name].long() for name in self.inputs if name in batch}

    def forward(self, **tokens: Tensor) -> Float[Tensor, "n d"]:
        """Unit vectors of right-padded tokens, passed in groups of similar length."""
        if "attention_mask" not in tokens:
            return self._unit_vectors(tokens)
        lengths = tokens["attention_mask"].sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.split(TEXTS_AT_ONCE):
            longest = int(lengths[rows].max())
            parts.append(self._unit_vectors({k: v[rows, :longest] for k, v in tokens.items()}))
        return torch.cat(parts)[order.argsort()]

    @torch.no_grad()
    def embed(self, texts: Sequence[str], label: str = "embedding") -> Float[Tensor, "n d"]:
        """Unit vectors of texts, on the CPU, in their order; each different text passes once.

        Raises :class:`InputError` for a text without tokens, for a vector that is not finite, and
        for one text in place of a list, whose letters would be taken for texts.
        """
        texts = texts_of(texts)
        different = sorted(set(texts), key=lambda text: (len(text), text))
        place = {text: row for row, text in enumerate(different)}
        parts = []
        with bar(label, len(different)) as progress:
            for start in range(0, len(different), TEXTS_AT_ONCE):
                part = different[start : start + TEXTS_AT_ONCE]
                tokens = {k: v.to(self.device) for k, v in self.tokens(part).items()}
                parts.append(self._unit_vectors(tokens).cpu())
                progress.advance(len(part))
        if not parts:
            return torch.zeros(0, 0)
        vectors = torch.cat(parts)
        if bad := (~torch.isfinite(vectors).all(1)).nonzero().flatten().tolist():
            raise InputError(
                f"encoder '{self.name}' gives the text '{different[bad[0]]}' no finite vector; "
                "its weights may have diverged"
            )
        return vectors[[place[text] for text in texts]]

    def _unit_vectors(self, tokens: dict[str, Tensor]) -> Float[Tensor, "n d"]:
        return nn.functional.normalize(self.vectors(tokens).float(), dim=-1)

    def vectors(self, tokens: dict[str, Tensor]) -> Float[Tensor, "n d"]:
        """The model's vectors of tokens, before they are scaled to length 1."""
        assert self.pooling is not None
        states = self.model(**tokens).last_hidden_state
        features = {"token_embeddings": states, "attention_mask": tokens["attention_mask"]}
        return self.pooling(features)["sentence_embedding"]


@dataclass(frozen=True)
class SentenceModule:
    """A module of a sentence-transformers folder: its class, and its folder in it."""

    type: str
    path: Annotated[str, Field(pattern=r"^[\w-]*$")]


def read_modules(path: Path) -> list[SentenceModule]:
    """What a ``modules.json`` says; raises :class:`InputError` where it is none."""
    try:
        return TypeAdapter(list[SentenceModule]).validate_python(read_json(path))
    except ValidationError as error:
        raise InputError(
            f"{path} lists no modules of sentence-transformers: {first_error(error)}"
        ) from error


def declared_pooling(base: str, location: str) -> "Pooling | None":
    """The pooling that a sentence-transformers folder declares; None where it is no such folder.

    Raises :class:`InputError` for modules that change the vector after the pooling, and for a
    pooling that sentence-transformers does not know.
    """
    modules = _file(location, "modules.json")
    if modules is None:
        return None
    found: Pooling | None = None
    for module in read_modules(modules):
        kind = module.type.rpartition(".")[2]
        if kind == "Pooling":
            found = _read_pooling(base, location, module.path)
        elif kind not in ("Transformer", "Normalize"):
            raise InputError(
                f"encoder '{base}' has the sentence-transformers module {kind}; geodapt reads "
                "those of a Transformer, a Pooling and a Normalize"
            )
    return found


@torch.no_grad()
def mean_pooled(model: Any, tokenizer: Any, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
    """Mean of the last hidden states over each text's tokens, of a model with any task head."""
    found = []
    for batch in text_batches(tokenizer, texts, model):
        states = model(**batch, output_hidden_states=True).hidden_states[-1].float()
        mask = batch["attention_mask"][..., None]
        found.append((states * mask).sum(1) / mask.sum(1))
    return torch.cat(found)


def _pooling_class() -> "type[Pooling]":
    require("sentence_transformers", "text encoders pool with sentence-transformers", "text")
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling


def _read_pooling(base: str, location: str, folder: str) -> "Pooling":
    try:
        return _pooling_class().load(location, subfolder=folder)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"encoder '{base}' pools by nothing known to sentence-transformers: {error}"
        ) from error


def _file(location: str, name: str) -> Path | None:
    """A file of a local folder or a hub repository, where it has one."""
    if Path(location).is_dir():
        path = Path(location) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(location, name))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(location, name) is not _CACHED_NO_EXIST:
            message = (
                f"encoder '{location}': whether its repository has a {name} could not be looked up "
                "on the hub; it is read as a model without one, and pools by the mean or the last "
                "token"
            )
            warnings.warn(message, InputWarning, stacklevel=2)
    except (HfHubHTTPError, HFValidationError, OSError):
        pass
    return None
