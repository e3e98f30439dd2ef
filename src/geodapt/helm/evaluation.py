"""The `helm-eval` recipe: any causal language model's perplexity of a text, and its answers."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from geodapt.data.corpus.text import documents
from geodapt.data.corpus.tokens import load_tokenizer
from geodapt.errors import InputError
from geodapt.helm.harness import answers, require_harness
from geodapt.metrics.language import IGNORED, LanguageMetrics
from geodapt.models import default_dtype, load_weights, loading, locate
from geodapt.progress import bar, schedule
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import Name, repeated


class HelmEvalRecipe(Recipe):
    """Measure a causal language model, hyperbolic or not."""

    recipe: Literal["helm-eval"] = "helm-eval"
    model: str
    """A run's model folder, or any causal language model: a folder or a hub name."""
    tokenizer: str | None = None
    """A tokenizer's folder or hub name; none: the model's own."""
    text: str | None = None
    """Text to measure perplexity on: a .txt, .md, .rst, .jsonl or .parquet file, or a folder."""
    column: str = "text"
    """The key or column of the text, in JSONL and Parquet."""
    length: int | None = Field(None, ge=2)
    """The most tokens that the model sees at once; none: as many as it takes, up to 1024."""
    tasks: list[Name] = []
    """lm-eval tasks: mmlu, arc_challenge, openbookqa, commonsense_qa, hellaswag and all others."""
    few_shot: int | None = Field(None, ge=0)
    """Solved examples before each question; none: the task's own number."""
    limit: int | None = Field(None, ge=1)
    """The most questions a task."""
    copies: str | None = None
    """Folder with local copies of the tasks' data sets under their hub names, such as
    COPIES/Rowan/hellaswag; none: lm-eval fetches them from the hub."""
    batch_size: int = Field(8, ge=1)
    """Rows a forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto: bfloat16 where the device multiplies it natively."""

    @model_validator(mode="after")
    def _consistent(self) -> "HelmEvalRecipe":
        if self.text is None and not self.tasks:
            raise ValueError("give text (a file, to measure perplexity on), or tasks, or both")
        if twice := repeated(self.tasks):
            raise ValueError(f"tasks: {twice} given more than once")
        return self

    def run(self, folder: RunFolder) -> dict[str, Any]:
        if self.tasks:
            require_harness()
        model, tokenizer = load(self)
        stages = ["text"] if self.text is not None else []
        schedule(dict.fromkeys([*stages, *(f"task-{task}" for task in self.tasks)], 1.0))
        rows: list[dict[str, Any]] = []
        if self.text is not None:
            found = folder.measured("text", partial(self._perplexity, model, tokenizer))
            rows.append({"method": "text", "label": Path(self.text).name, **found})
        for task in self.tasks:
            found = folder.measured(f"task-{task}", partial(self._answers, task, model, tokenizer))
            rows.append({"method": task, "label": task, **found})
        return {"recipe": self.recipe, "title": self.title, "model": self.model, "rows": rows}

    def _perplexity(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, work: Path
    ) -> dict[str, Any]:
        return text_perplexity(
            model,
            tokenizer,
            documents(self.text or "", self.column),
            self.length or min(1024, longest(model)),
            self.batch_size,
        )

    def _answers(
        self, task: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, work: Path
    ) -> dict[str, Any]:
        return answers(
            model,
            tokenizer,
            task,
            few_shot=self.few_shot,
            limit=self.limit,
            copies=self.copies,
            batch_size=self.batch_size,
            seed=self.seed,
        )


def load(recipe: HelmEvalRecipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, on the GPU where there is one.

    Raises :class:`InputError` for what is no causal language model, a missing tokenizer, one with
    more tokens than the model, and a length that is more than the model takes.
    """
    location = locate(recipe.model)
    dtype = {"auto": default_dtype(), "float32": torch.float32, "bfloat16": torch.bfloat16}
    with loading(recipe.model):
        model = load_weights(recipe.model, location, dtype[recipe.precision], AutoModelForCausalLM)
    tokenizer = load_tokenizer(recipe.tokenizer or location)
    vocabulary = model.config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"the tokenizer has {len(tokenizer):,} tokens, but model '{recipe.model}' knows "
            f"{vocabulary:,}; give the tokenizer that it was trained with"
        )
    if recipe.length is not None and recipe.length > longest(model):
        raise InputError(
            f"length is {recipe.length}, but model '{recipe.model}' takes {longest(model)} tokens "
            "at most; lower it"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), tokenizer  # type: ignore[arg-type]


def longest(model: PreTrainedModel) -> int:
    """How many tokens a model takes."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1024)


def windows(tokens: list[int], length: int) -> Iterator[list[int]]:
    """A text in stretches of ``length`` tokens; one begins with the last token of that before it.

    So each token but the first stands once behind others.
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
    """``perplexity`` a token, ``bits_per_byte``, and how many tokens and bytes there were.

    Each document stands alone, after the tokenizer's start of text (its end where it has none),
    and is read in stretches of ``length`` tokens. Bits a byte do not depend on the tokenizer, so
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
    """Windows side by side; what fills the shorter ones up stands behind them, where no token that
    counts sees it."""
    n = max(map(len, batch))
    tokens = torch.zeros(len(batch), n, dtype=torch.long)
    labels = torch.full_like(tokens, IGNORED)
    for row, window in enumerate(batch):
        tokens[row, : len(window)] = torch.tensor(window)
        labels[row, 1 : len(window)] = tokens[row, 1 : len(window)]
    tokens = tokens.to(model.device)
    metric.update(model(input_ids=tokens, use_cache=False).logits, labels.to(model.device))
