"""X-Cross written down slowly: streams one by one, blocks in a loop, formulas a token at a time.

Everything is float64. Adapters are merged into copies of the base, so that none of the library's
own products, gates, hooks or stacking takes part.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from geodapt.adapters import Adapter
from geodapt.models import transformer_blocks
from geodapt.xcross.settings import IntegratorSettings


def integrate(h: Tensor, weight: Tensor, settings: IntegratorSettings) -> Tensor:
    """Stages 1 to 3, one token, one pair and one term at a time."""
    n, rows, tokens, d = h.shape
    pairs = [(m, other) for m in range(n) for other in range(n) if other != m]
    both = settings.terms == "both"
    out = h.clone()
    for row in range(rows):
        for token in range(tokens):
            concat = torch.cat([h[m, row, token] for m in range(n)])
            if settings.scale == "unit":
                concat = concat / concat.norm()
            elif settings.scale == "sqrt_width":
                concat = concat / (n * d) ** 0.5
            z = weight @ concat if settings.dynamic else weight
            for index, (m, other) in enumerate(pairs):
                direct = z[index] if settings.terms != "interaction" else 0.0
                interaction = z[index + len(pairs) * both] if settings.terms != "direct" else 0.0
                out[m, row, token] += settings.beta * direct * h[other, row, token]
                difference = h[m, row, token] - h[other, row, token]
                out[m, row, token] += settings.gamma * interaction * difference
    return out


def merged(base: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """A float64 copy of the base with ``s B A`` added to its weights."""
    model = copy.deepcopy(base).double()
    model.config.use_cache = False  # blocks are called again, and must not see their own past
    with torch.no_grad():
        for path, (A, B, scale) in adapter.factors.items():
            model.get_submodule(path).weight += scale * B.double() @ A.double()
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _calls(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[tuple[tuple, dict]]:
    """What the model gives each of its blocks beside the hidden states (masks, positions)."""
    calls: list[tuple[tuple, dict]] = []
    hooks = [
        block.register_forward_pre_hook(
            lambda block, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        for block in transformer_blocks(model)
    ]
    model(**batch)
    for hook in hooks:
        hook.remove()
    return calls


def _run_block(block: nn.Module, hidden: Tensor, call: tuple[tuple, dict]) -> Tensor:
    args, kwargs = call
    if args:
        args = (hidden, *args[1:])
    else:
        kwargs = {**kwargs, "hidden_states": hidden}
    output = block(*args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def _tail(model: PreTrainedModel, hidden: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What the model makes of its last block's output (a final norm, where it has one)."""

    def replace(block: nn.Module, args: Any, output: Any) -> Any:
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    hook = transformer_blocks(model)[-1].register_forward_hook(replace)
    last = model(**batch).last_hidden_state
    hook.remove()
    return last


def last_states(
    base: PreTrainedModel,
    adapters: Sequence[Adapter],
    weights: Mapping[int, Tensor],
    settings: IntegratorSettings,
    batch: Mapping[str, Tensor],
) -> list[Tensor]:
    """Each stream's last hidden states; ``weights`` holds ``W_concat`` by layer."""
    models = [merged(base, adapter) for adapter in adapters]
    calls = [_calls(model, batch) for model in models]
    streams = [
        call[0][0][0] if call[0][0] else call[0][1]["hidden_states"] for call in calls
    ]  # the first block's inputs
    for layer in range(len(calls[0])):
        for m, model in enumerate(models):
            streams[m] = _run_block(transformer_blocks(model)[layer], streams[m], calls[m][layer])
        if layer in weights:
            streams = [*integrate(torch.stack(streams), weights[layer], settings)]
    return [_tail(model, hidden, batch) for model, hidden in zip(models, streams, strict=True)]


def pool(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """The summary vector of every row, one row at a time."""
    rows = []
    for row in range(len(hidden)):
        tokens = [hidden[row, t] for t in range(hidden.shape[1]) if attention_mask[row, t]]
        rows.append(
            {"first": tokens[0], "last": tokens[-1], "mean": sum(tokens) / len(tokens)}[pooling]
        )
    return torch.stack(rows)


def scores(
    base: PreTrainedModel,
    adapters: Sequence[Adapter],
    trained: Mapping[str, Tensor],
    weights: Mapping[int, Tensor],
    settings: IntegratorSettings,
    batch: Mapping[str, Tensor],
    pooling: str,
) -> Tensor:
    """Stages 1 to 5: ``(rows, candidates or labels)``; ``trained`` holds w and the head."""
    rows = len(batch["input_ids"])
    flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()}
    streams = last_states(base, adapters, weights, settings, flat)
    summary = sum(
        w * pool(hidden, flat["attention_mask"], pooling)
        for w, hidden in zip(trained["weights"], streams, strict=True)
    )
    pooled = nn.functional.gelu(summary @ trained["pool.weight"].T + trained["pool.bias"])
    return (pooled @ trained["score.weight"].T + trained["score.bias"]).reshape(rows, -1)
