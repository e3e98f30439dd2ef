"""The `evaluate-lm` recipe: any causal language model's perplexity and answers."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.extras import require_lm_eval
from geodapt.models import locate_base
from geodapt.registration import named_object
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import GivenPath, Name, repeated


class EvaluateLMRecipe(Recipe):
    """Measure a causal language model, hyperbolic or not."""

    recipe: Literal["evaluate-lm"] = "evaluate-lm"
    model: str
    """A run's model folder, or any causal language model: a folder or a hub name."""
    tokenizer: str | None = None
    """A tokenizer's folder or hub name; none: the model's own."""
    text: GivenPath | None = None
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
    copies: GivenPath | None = None
    """Folder with local copies of the tasks' data sets under their hub names, such as
    COPIES/Rowan/hellaswag; none: lm-eval fetches them from the hub."""
    batch_size: int = Field(8, ge=1)
    """Rows per forward pass."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto: bfloat16 where the device multiplies it natively."""

    def require_inputs(self) -> None:
        super().require_inputs()
        if self.tasks:
            require_lm_eval()
        locate_base(self.model)

    def _smallest(self) -> dict[str, Any]:
        return self._at_most(limit=4)

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluateLMRecipe":
        if self.text is None and not self.tasks:
            raise ValueError("give text (a file, to measure perplexity on), or tasks, or both")
        if twice := repeated(self.tasks):
            raise ValueError(f"tasks: {twice} given more than once")
        return self

    def run(self, folder: RunFolder) -> dict[str, Any]:
        evaluate = named_object("geodapt.lm.evaluation:evaluate_language_model")
        rows = evaluate(self, self.seed, folder)
        return {"recipe": self.recipe, "title": self.title, "model": self.model, "rows": rows}


RECIPES = (EvaluateLMRecipe,)
