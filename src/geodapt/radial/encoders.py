"""Text encoders whose vectors have length 1, and the images that a dual encoder puts among them.

Any transformers or sentence-transformers text encoder, and the text tower of CLIP, SigLIP and the
models that are built like them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.errors import InputError
from geodapt.models import is_decoder, load_base
from geodapt.progress import bar
from geodapt.radial.pooling import Pooling, declared, pool
from geodapt.tinyclip.base import resolve_base

TEXTS_AT_ONCE = 16
"""Texts that pass the model together: of similar lengths, so that little of it is padding."""


class TextEncoder(nn.Module):
    """A pretrained model from texts to unit vectors.

    It stays in eval mode, since dropout would blur the very distances that are tuned.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "",
        pooling: Pooling | None = None,
    ) -> None:
        """``pooling`` is that of a text model; None: the last token of a decoder, else the mean."""
        super().__init__()
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name: str = name or str(model.name_or_path)
        self.dual = hasattr(model, "get_text_features")
        self.pooling: Pooling | None = None
        if not self.dual:
            self.pooling = pooling or ("lasttoken" if is_decoder(model) else "mean")
        # SigLIP was trained on texts that are padded to the end, without a mask, and reads its
        # last position.
        self.fixed_length = "siglip" in model.config.model_type
        self.inputs = ["input_ids"] if self.fixed_length else ["input_ids", "attention_mask"]
        if not self.dual:
            self.inputs.append("token_type_ids")

    @classmethod
    def load(cls, base: str) -> "TextEncoder":
        """Read ``minilm``, ``clip-glyphs``, a folder or a hub name, frozen.

        Raises :class:`InputError` for what is no encoder, and as
        :func:`geodapt.models.load_base` does.
        """
        location = resolve_base(base)
        model, tokenizer = load_base(location)
        if model.config.is_encoder_decoder and not hasattr(model, "get_text_features"):
            model = model.get_encoder()
        return cls(model, tokenizer, base, declared(base, location))

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

    def text_modules(self) -> list[nn.Module]:
        """The parts that embed texts: a dual model's text tower, or all of a text model but its
        pooler, which nothing reads."""
        parts = dict(self.model.named_children())
        if self.dual:
            return [parts[name] for name in ("text_model", "text_projection") if name in parts]
        return [module for name, module in parts.items() if name != "pooler"]

    def text_parameters(self) -> list[nn.Parameter]:
        """The parameters of what embeds texts, each once."""
        return list(nn.ModuleList(self.text_modules()).parameters())

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The texts as right-padded tokens on the CPU.

        Raises :class:`InputError` for a text of which the tokenizer makes no tokens.
        """
        self.tokenizer.padding_side = "right"
        cut = {"truncation": True, "max_length": self.max_tokens}
        padding = "max_length" if self.fixed_length else True
        batch = dict(self.tokenizer(list(texts), padding=padding, return_tensors="pt", **cut))
        ids = batch["input_ids"]
        lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else None
        empty = ids.shape[1] == 0 or (lengths is not None and bool((lengths == 0).any()))
        if empty:
            place = 0 if lengths is None or ids.shape[1] == 0 else int(lengths.argmin())
            raise InputError(
                f"encoder '{self.name}' has no tokens for the text '{texts[place]}', so it has no "
                "embedding; of the root, set root.text to a most general word such as 'thing'"
            )
        return {name: batch[name].long() for name in self.inputs if name in batch}

    def forward(self, **tokens: Tensor) -> Float[Tensor, "n d"]:
        """Unit vectors of right-padded tokens, passed in groups of similar length."""
        if "attention_mask" not in tokens:
            return self._vectors(tokens)
        lengths = tokens["attention_mask"].sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.split(TEXTS_AT_ONCE):
            longest = int(lengths[rows].max())
            parts.append(self._vectors({k: v[rows, :longest] for k, v in tokens.items()}))
        return torch.cat(parts)[order.argsort()]

    def _vectors(self, tokens: dict[str, Tensor]) -> Tensor:
        if self.dual:
            vectors = self.model.get_text_features(**tokens)
            vectors = vectors if isinstance(vectors, Tensor) else vectors.pooler_output
        else:
            assert self.pooling is not None
            hidden = self.model(**tokens).last_hidden_state
            vectors = pool(hidden, tokens["attention_mask"], self.pooling)
        return nn.functional.normalize(vectors.float(), dim=-1)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], label: str = "embedding") -> Float[Tensor, "n d"]:
        """Unit vectors of texts, on the CPU, in their order; each different text passes once.

        Raises :class:`InputError` for a text without tokens, and for a vector that is not finite.
        """
        different = sorted(set(texts), key=lambda text: (len(text), text))
        place = {text: row for row, text in enumerate(different)}
        parts = []
        with bar(label, len(different)) as progress:
            for start in range(0, len(different), TEXTS_AT_ONCE):
                part = different[start : start + TEXTS_AT_ONCE]
                tokens = {k: v.to(self.device) for k, v in self.tokens(part).items()}
                parts.append(self._vectors(tokens).cpu())
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
