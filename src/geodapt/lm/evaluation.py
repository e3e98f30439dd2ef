"""Any causal language model's perplexity of a text, and its answers to questions."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from geodapt.data.corpus.text import documents
from geodapt.data.corpus.tokens import load_tokenizer
from geodapt.errors import InputError
from geodapt.extras import require_lm_eval
from geodapt.lm.lm_eval import answers
from geodapt.lm.recipe import EvaluateLMRecipe
from geodapt.models import as_input_errors, dtype_of, load_weights, locate_base
from geodapt.models.perplexity import IGNORED, LanguageMetrics
from geodapt.progress import bar, schedule
from geodapt.runs import RunFolder


def evaluate_language_model(
    settings: EvaluateLMRecipe, seed: int, folder: RunFolder
) -> list[dict[str, Any]]:
    """The rows of the table: the text's figures, then those of each task."""
    if settings.tasks:
        require_lm_eval()
    model, tokenizer = load_language_model(settings)
    stages = ["text"] if (text := settings.text) is not None else []
    schedule(dict.fromkeys([*stages, *(f"task-{task}" for task in settings.tasks)], 1.0))
    rows: list[dict[str, Any]] = []

    def perplexity(work: Path) -> dict[str, Any]:
        texts = documents(text or "", settings.column)
        length = settings.length or min(1024, longest(model))
        return text_perplexity(model, tokenizer, texts, length, settings.batch_size)

    def answered(task: str, work: Path) -> dict[str, Any]:
        return answers(
            model,
            tokenizer,
            task,
            few_shot=settings.few_shot,
            limit=settings.limit,
            copies=settings.copies,
            batch_size=settings.batch_size,
            seed=seed,
        )

    if text is not None:
        found = folder.timed_stage("text", perplexity)
        rows.append({"method": "text", "label": text.name, **found})
    for task in settings.tasks:
        found = folder.timed_stage(f"task-{task}", partial(answered, task))
        rows.append({"method": task, "label": task, **found})
    return rows


def load_language_model(
    settings: EvaluateLMRecipe,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, on the GPU where there is one.

    Raises :class:`InputError` for what is no causal language model, a missing tokenizer, one with
    more tokens than the model, and a length that is more than the model takes.
    """
    location = locate_base(settings.model)
    with as_input_errors(settings.model):
        dtype = dtype_of(settings.precision)
        model = load_weights(settings.model, location, dtype, AutoModelForCausalLM)
    tokenizer = load_tokenizer(settings.tokenizer or location)
    vocabulary = model.config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"the tokenizer has {len(tokenizer):,} tokens, but model '{settings.model}' knows "
            f"{vocabulary:,}; give the tokenizer that it was trained with"
        )
    if settings.length is not None and settings.length > longest(model):
        raise InputError(
            f"length is {settings.length}, but model '{settings.model}' takes {longest(model)} "
            "tokens at most; lower it"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def longest(model: PreTrainedModel) -> int:
    """How many tokens a model takes."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1024)


def windows(tokens: list[int], length: int) -> Iterator[list[int]]:
    """A text in stretches of ``length`` tokens; each begins with the last token of the one before.

    So each token but the first is predicted once.
    """
    for start in range(0, len(tokens) - 1, length - 1):
        yield tokens[start : start + length]


@torch.no_grad()
def text_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterator[str],
    length: int,
    batch_size: int,
) -> dict[str, Any]:
    """``perplexity`` per token, ``bits_per_byte``, and how many tokens and bytes there were.

    Each document is read by itself, after the tokenizer's start of text (its end if it has none),
    in stretches of ``length`` tokens. Bits per byte do not depend on the tokenizer, so
    they compare models of different ones. Raises :class:`InputError` where there is no text.
    """
    first = tokenizer.bos_token_id
    first = tokenizer.eos_token_id if first is None else first
    metric, size = LanguageMetrics().to(model.device), 0
    waiting: list[list[int]] = []
    with bar("measuring perplexity") as progress:
        for text in texts:
            size += len(text.encode())
            tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            waiting += windows([first, *tokens], length)
            while len(waiting) >= batch_size:
                _read(model, waiting[:batch_size], metric)
                waiting = waiting[batch_size:]
                progress.note(f"{int(metric.tokens):,} tokens")
        if waiting:
            _read(model, waiting, metric)
    found = metric.compute()
    tokens = int(metric.tokens)
    bits = found["loss"] * tokens / math.log(2)
    return {**found, "bits_per_byte": bits / size, "tokens": tokens, "bytes": size}


def _read(model: PreTrainedModel, batch: list[list[int]], metric: LanguageMetrics) -> None:
    """Windows as one batch. Shorter ones are padded on the right, which causal attention never
    sees."""
    n = max(map(len, batch))
    tokens = torch.zeros(len(batch), n, dtype=torch.long)
    labels = torch.full_like(tokens, IGNORED)
    for row, window in enumerate(batch):
        tokens[row, : len(window)] = torch.tensor(window)
        labels[row, 1 : len(window)] = tokens[row, 1 : len(window)]
    tokens = tokens.to(model.device)
    metric.update(model(input_ids=tokens, use_cache=False).logits, labels.to(model.device))
