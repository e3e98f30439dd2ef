"""The `helm` recipe: language models from scratch, hyperbolic and Euclidean, side by side."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.data.corpus import CorpusSettings, DocsSettings
from geodapt.data.corpus.tokens import TokenizerSettings
from geodapt.helm.lineup import CONTENDERS
from geodapt.helm.study import Study
from geodapt.progress import schedule
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import repeated
from geodapt.training import TrainingSettings


class HelmRecipe(Recipe):
    """Train language models on the same rows of text, and measure their perplexity."""

    recipe: Literal["helm"] = "helm"
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

    @model_validator(mode="after")
    def _consistent(self) -> "HelmRecipe":
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

    def run(self, folder: RunFolder) -> dict[str, Any]:
        study = Study(self, folder)
        schedule({f"model-{name}": 1.0 for name in self.models})
        return study.results([study.row(name) for name in self.models])
