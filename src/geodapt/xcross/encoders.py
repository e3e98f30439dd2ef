"""Encoders from prompts to summary vectors: one gated stream, or n streams that integrate.

Both wrap the same frozen base and the same bank of adapters, so that every method of a
comparison shares one set of weights in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from geodapt.adapters import AdapterBank, Gate, Route
from geodapt.errors import InputError
from geodapt.models import is_decoder, transformer_blocks
from geodapt.xcross.integrator import Integrator
from geodapt.xcross.settings import IntegratorSettings, Pooling

POST_NORM = {
    *("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"),
    *("DebertaLayer", "DebertaV2Layer"),
}
"""Blocks in which nothing after the attention weights reads another token, so that the last one
can go on with the summary token alone: ``attention.output(context, input)``, then feed-forward."""

# Whether an encoder's pass is running that wants the first token alone. Other passes of the base
# want them all, so its hook, which stays, does nothing in them.
_SUMMARY_ALONE: ContextVar[bool] = ContextVar("summary_alone", default=False)
_SHORTENED: WeakSet[nn.Module] = WeakSet()

TOKENS_AT_ONCE = 2048
"""Tokens that pass a base on a CPU together. With many more, a layer's activations fit neither into
the caches nor into the memory that the C library keeps between two products."""


class Encoder(nn.Module):
    """A frozen base under one gate: ``pool(base(prompt))``."""

    streams = 1
    """How many times each prompt passes through the base."""
    whole = False
    """Whether all tokens of all prompts must be there at once."""

    def __init__(
        self, base: PreTrainedModel, bank: AdapterBank, gate: Gate, pooling: Pooling = "auto"
    ) -> None:
        super().__init__()
        self.base = base.get_encoder() if base.config.is_encoder_decoder else base
        if self.base not in set(bank.model.modules()):
            raise InputError(
                f"the bank is on another {type(bank.model).__name__} than the base, which its "
                "adapters would not change; make the bank on the base, AdapterBank(base)"
            )
        self.bank, self.gate = bank, gate
        self.decoder = is_decoder(self.base)
        self.pooling = ("last" if self.decoder else "first") if pooling == "auto" else pooling
        if self.pooling == "first":
            _shorten(transformer_blocks(base)[-1])

    @property
    def width(self) -> int:
        return self.base.config.hidden_size

    def train(self, mode: bool = True) -> "Encoder":
        """The base stays in eval mode, since dropout in frozen weights only adds noise.

        Dropout of the adapters is active.
        """
        super().train(mode)
        self.base.eval()
        self.bank.train_adapters(mode)
        return self

    def forward(
        self,
        input_ids: Int[Tensor, "rows tokens"],
        attention_mask: Int[Tensor, "rows tokens"],
        token_type_ids: Int[Tensor, "rows tokens"] | None = None,
    ) -> Float[Tensor, "rows d"]:
        """Summary vectors of right-padded prompts."""
        rows, tokens = input_ids.shape
        at_once = max(rows, 1)
        if input_ids.device.type == "cpu" and not self.whole:
            at_once = max(TOKENS_AT_ONCE // (self.streams * tokens), 1)
        pieces = []
        for start in range(0, rows, at_once):
            piece = slice(start, start + at_once)
            types = None if token_type_ids is None else token_type_ids[piece]
            hidden = self.hidden(input_ids[piece], attention_mask[piece], types)
            pieces.append(self.pool(hidden, attention_mask[piece]))
        return torch.cat(pieces)

    def hidden(self, input_ids, attention_mask, token_type_ids=None, **cache):
        """Last hidden states ``(rows, tokens, d)``; ``cache`` goes to the base as it is.

        Those of the summary token alone, where it is the first and the base is of
        :data:`POST_NORM` blocks.
        """
        with self.bank.use(self.gate):
            return self._base(input_ids, attention_mask, token_type_ids, **cache).last_hidden_state

    def pool(
        self, hidden: Float[Tensor, "rows tokens d"], attention_mask: Int[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows d"]:
        """The first token, the last that is not padding, or the mean of those."""
        if self.pooling == "first":
            return hidden[:, 0]
        if self.pooling == "last":
            positions = torch.arange(attention_mask.shape[1], device=hidden.device)
            last = (attention_mask * positions).argmax(-1)
            return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)

    def _base(self, input_ids, attention_mask, token_type_ids, **cache):
        if token_type_ids is not None:
            cache["token_type_ids"] = token_type_ids
        if self.decoder:  # which keeps every layer's keys and values unless use_cache is false
            cache.setdefault("use_cache", False)
        token = _SUMMARY_ALONE.set(self.pooling == "first" and not self.whole)
        try:
            return self.base(input_ids=input_ids, attention_mask=attention_mask, **cache)
        finally:
            _SUMMARY_ALONE.reset(token)

    # What is shared by many candidates of one user is encoded once, where the architecture
    # allows it: in a decoder the history's keys and values do not depend on what follows.

    def prefix(
        self, input_ids: Int[Tensor, "users history"], attention_mask: Int[Tensor, "users history"]
    ) -> Cache:
        """The cache of left-padded histories."""
        cache = DynamicCache(config=self.base.config)
        positions = (attention_mask.cumsum(-1) - 1).clamp_min(0)
        self.hidden(
            input_ids,
            attention_mask,
            past_key_values=cache,
            use_cache=True,
            position_ids=positions,
        )
        return cache

    def continued(
        self,
        cache: Cache,
        history_mask: Int[Tensor, "users history"],
        input_ids: Int[Tensor, "rows tokens"],
        attention_mask: Int[Tensor, "rows tokens"],
    ) -> Float[Tensor, "rows d"]:
        """Summary vectors of right-padded continuations, the same number for every user."""
        each = input_ids.shape[0] // history_mask.shape[0]
        cache.batch_repeat_interleave(each)
        before = history_mask.repeat_interleave(each, 0)
        positions = before.sum(-1, keepdim=True) + attention_mask.cumsum(-1) - 1
        hidden = self.hidden(
            input_ids,
            torch.cat([before, attention_mask], 1),
            past_key_values=cache,
            use_cache=True,
            position_ids=positions.clamp_min(0),
        )
        return self.pool(hidden, attention_mask)


class XCrossEncoder(Encoder):
    """n adapted copies of one base that exchange after each block, then a weighted sum.

    The streams are stacked along the batch, stream after stream, under one ``Route``: a block
    runs once for all of them. ``W_concat = 0`` and ``w = 1/n`` at the start, so training begins
    at the average of the source models.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        bank: AdapterBank,
        sources: Sequence[str],
        settings: IntegratorSettings | None = None,
        pooling: Pooling = "auto",
    ) -> None:
        if len(sources) < 2:
            raise InputError(
                f"X-Cross integrates at least two source adapters, got {list(sources)}"
            )
        missing = [name for name in sources if name not in bank]
        if missing:
            raise InputError(f"adapters {missing} are not in the bank; it holds {list(bank.names)}")
        # One entry for each stream: the streams are equal blocks of the batch.
        super().__init__(base, bank, gate=Route(sources, blocks=True), pooling=pooling)
        self.sources, self.streams = tuple(sources), len(sources)
        self.settings = settings or IntegratorSettings()
        n = len(sources)
        stack = transformer_blocks(base)
        self.integrators = {
            layer: Integrator(n, self.width, self.settings)
            for layer in exchange_layers(self.settings.layers, len(stack))
        }
        self.exchange = nn.ModuleList(self.integrators.values())
        self.weights = nn.Parameter(torch.full((n,), 1 / n))
        self.weights.requires_grad_(self.settings.aggregation == "learned")
        # Other methods share the base, so the hooks act only within this encoder's own passes.
        self._running: ContextVar[bool] = ContextVar("xcross_running", default=False)
        self._hooks = [
            stack[layer].register_forward_hook(self._hook(integrator))
            for layer, integrator in self.integrators.items()
        ]

    def close(self) -> None:
        """Take the integrators off the base."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def hidden(self, input_ids, attention_mask, token_type_ids=None, **cache):
        """Last hidden states of all streams, ``(n rows, tokens, d)``, stream after stream."""
        n = len(self.sources)

        def stack(tensor):
            return None if tensor is None else tensor.repeat(n, *[1] * (tensor.ndim - 1))

        if cache.get("position_ids") is not None:
            cache["position_ids"] = stack(cache["position_ids"])
        token = self._running.set(True)
        try:
            with self.bank.use(self.gate):
                output = self._base(
                    stack(input_ids), stack(attention_mask), stack(token_type_ids), **cache
                )
        finally:
            self._running.reset(token)
        return output.last_hidden_state

    def pool(self, hidden, attention_mask):
        """``h_final = sum_m w_m h~_m`` of the summary tokens; pooling commutes with the sum."""
        n = len(self.sources)
        streams = super().pool(hidden, attention_mask.repeat(n, 1)).unflatten(0, (n, -1))
        return torch.einsum("m,mrd->rd", self.weights, streams.to(self.weights.dtype))

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Within the block every integrator keeps its terms, for explanations."""
        self.whole = True
        for integrator in self.integrators.values():
            integrator.keep_terms = True
        try:
            yield
        finally:
            self.whole = False
            for integrator in self.integrators.values():
                integrator.keep_terms, integrator.last_terms = False, None

    def _hook(self, integrator: Integrator) -> Callable[..., Any]:
        def exchange(block, inputs, output):
            # While the bank finds out which rows a layer's inputs belong to, rows must not mix.
            if not self._running.get() or self.bank.probing:
                return None
            hidden = output[0] if isinstance(output, tuple) else output
            refined = integrator(hidden.unflatten(0, (integrator.streams, -1))).flatten(0, 1)
            return (refined, *output[1:]) if isinstance(output, tuple) else refined

        return exchange


def _shorten(block: nn.Module) -> None:
    """Let encoders skip in the last block what only tokens other than the first would need."""
    if type(block).__name__ in POST_NORM and block not in _SHORTENED:
        _SHORTENED.add(block)
        output = block.get_submodule("attention.output")
        output.register_forward_pre_hook(
            lambda module, inputs: (
                tuple(tensor[:, :1] for tensor in inputs) if _SUMMARY_ALONE.get() else None
            )
        )


def exchange_layers(chosen: str | list[int], count: int) -> list[int]:
    """The blocks after which streams exchange, in order."""
    if isinstance(chosen, str):
        return {"all": list(range(count)), "last": [count - 1], "none": []}[chosen]
    outside = [layer for layer in chosen if not 0 <= layer < count]
    if outside:
        raise InputError(
            f"integrator.layers: {outside} are not among the base's {count} blocks "
            f"(0 to {count - 1})"
        )
    return sorted(set(chosen))
