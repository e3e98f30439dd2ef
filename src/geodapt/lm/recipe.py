"""The `evaluate-lm` recipe: any causal language model's perplexity and answers."""

from typing import Any, Literal

from geodapt.lm.settings import EvaluationSettings
from geodapt.runs import Recipe, RunFolder


class EvaluateLMRecipe(EvaluationSettings, Recipe):
    """Measure a causal language model, hyperbolic or not."""

    recipe: Literal["evaluate-lm"] = "evaluate-lm"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.lm.evaluation import evaluate_language_model

        rows = evaluate_language_model(self, self.seed, folder)
        return {"recipe": self.recipe, "title": self.title, "model": self.model, "rows": rows}


RECIPES = (EvaluateLMRecipe,)
