"""What a user chooses about training causal language models."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from geodapt.data.corpus.settings import CorpusSettings, DocsSettings, TokenizerSettings
from geodapt.settings import Settings, repeated
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
