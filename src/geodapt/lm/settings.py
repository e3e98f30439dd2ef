"""What a user chooses about training language models side by side, and about measuring one."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.data.corpus.settings import CorpusSettings, DocsSettings, TokenizerSettings
from geodapt.settings import Name, Settings, repeated
from geodapt.training.settings import TrainingSettings

CONTENDERS = (
    *("helm-d", "helm-mice", "llama", "deepseek", "helm-d-relative", "helm-mice-relative"),
    *("helm-mice-hmha", "helm-mice-const", "helm-mice-mixed"),
)
"""Names of the models that can be trained side by side; :mod:`geodapt.helm.lineup` builds them."""


class PretrainingSettings(Settings):
    """Language models from scratch, on the same rows of text."""

    data: CorpusSettings = DocsSettings()
    """The text; `kind` chooses the loader."""
    tokenizer: TokenizerSettings | str = TokenizerSettings()
    """A folder or a hub name; or `vocab_size`, to train one on the text."""
    length: int = Field(default=256, ge=8)
    """Tokens a row."""
    models: list[str] = Field(["helm-d", "helm-mice", "llama", "deepseek"], min_length=1)
    """Rows of the table; the first one's model is left in `model/`."""
    size: Literal["tiny", "100m", "1b"] = "tiny"
    """The preset of the HELMs; the others have their numbers of parameters."""
    config: dict[str, Any] = {}
    """Attributes of HelmConfig that differ from the preset's."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of products while training; auto: bfloat16 where the device multiplies it natively."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    tested_rows: int = Field(default=500, ge=1)
    """The most rows of validation and of test that are measured, at equal distances."""
    training: TrainingSettings = TrainingSettings(
        learning_rate=1e-3, schedule="cosine", warmup=0.05, weight_decay=0.1, keep_best=False
    )

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(length=32, tested_rows=8) | {"size": "tiny"}

    @model_validator(mode="after")
    def _consistent(self) -> "PretrainingSettings":
        for name in self.models:
            if name not in CONTENDERS:
                raise ValueError(f"model '{name}' is unknown; there are {', '.join(CONTENDERS)}")
        if twice := repeated(self.models):
            raise ValueError(f"models: {twice} given more than once")
        if self.gradient_checkpointing and "deepseek" in self.models:
            raise ValueError(
                "gradient_checkpointing: deepseek's experts, which are balanced after each forward "
                "pass, would be chosen otherwise when it is computed again; leave one of the two"
            )
        return self


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

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(limit=4)

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationSettings":
        if self.text is None and not self.tasks:
            raise ValueError("give text (a file, to measure perplexity on), or tasks, or both")
        if twice := repeated(self.tasks):
            raise ValueError(f"tasks: {twice} given more than once")
        return self
