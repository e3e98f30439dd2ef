"""What a user chooses about training causal language models, and about measuring one."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from geodapt.data.corpus.settings import CorpusSettings, DocsSettings, TokenizerSettings
from geodapt.settings import Name, Settings, repeated
from geodapt.training.settings import TrainingSettings


class PretrainingSettings(Settings):
    """Language models from scratch, on the same rows of text."""

    data: CorpusSettings = DocsSettings()
    """The text; `kind` chooses the loader."""
    tokenizer: TokenizerSettings | str = TokenizerSettings()
    """A folder or a hub name; or `vocab_size`, to train one on the text."""
    length: int = Field(default=256, ge=8)
    """Tokens per row."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products while training; auto: bfloat16 where the device multiplies it natively."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    tested_rows: int = Field(default=500, ge=1)
    """Largest number of validation and of test rows to measure, taken at equal distances."""
    training: TrainingSettings = TrainingSettings(
        learning_rate=1e-3, schedule="cosine", warmup=0.05, weight_decay=0.1, keep_best=False
    )

    learning_rates: list[Annotated[float, Field(gt=0)]] = []
    """Rates to choose from, for every model by itself: each trains to its end, and the one with the
    lowest loss on validation text is the model's; empty: training.learning_rate for all."""
    seeds: int = Field(default=1, ge=1)
    """Trainings per model, of weights and order of rows, at the chosen rate: the table has their
    mean, and differences have intervals from 2 on."""

    @model_validator(mode="after")
    def _rates_differ(self) -> Self:
        if twice := repeated(self.learning_rates):
            raise ValueError(f"learning_rates: {twice} given more than once")
        return self

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(length=32, tested_rows=8, seeds=2) | {
            "learning_rates": self.learning_rates[:2]
        }


class EvaluationSettings(Settings):
    """A causal language model's perplexity of a text, and its answers to questions."""

    model: str
    """A run's model folder, or any causal language model: a folder or a hub name."""
    tokenizer: str | None = None
    """A tokenizer's folder or hub name; none: the model's own."""
    text: str | None = None
    """Text to measure perplexity on: a .txt, .md, .rst, .jsonl or .parquet file, or a folder."""
    column: str = "text"
    """The key or column of the text, in JSONL and Parquet."""
    length: int | None = Field(None, ge=2)
    """Longest stretch that the model reads at once, in tokens; none: its own limit, up to 1024."""
    tasks: list[Name] = []
    """lm-eval tasks: mmlu, arc_challenge, openbookqa, commonsense_qa, hellaswag and all others."""
    few_shot: int | None = Field(None, ge=0)
    """Solved examples before each question (few-shot); none: the task's own number."""
    limit: int | None = Field(None, ge=1)
    """Largest number of questions per task."""
    copies: str | None = None
    """Folder with local copies of the tasks' data sets under their hub names, such as
    COPIES/Rowan/hellaswag; none: lm-eval fetches them from the hub."""
    batch_size: int = Field(8, ge=1)
    """Rows per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto: bfloat16 where the device multiplies it natively."""

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(limit=4)

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationSettings":
        if self.text is None and not self.tasks:
            raise ValueError("give text (a file, to measure perplexity on), or tasks, or both")
        if twice := repeated(self.tasks):
            raise ValueError(f"tasks: {twice} given more than once")
        return self
