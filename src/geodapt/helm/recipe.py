"""The `helm` and `helm-eval` recipes."""

from typing import Any, Literal

from geodapt.lm.settings import EvaluationSettings, PretrainingSettings
from geodapt.progress import schedule
from geodapt.runs import Recipe, RunFolder


class HelmRecipe(PretrainingSettings, Recipe):
    """Train language models on the same rows of text, and measure their perplexity."""

    recipe: Literal["helm"] = "helm"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.helm.study import Study

        study = Study(self, self.seed, folder)
        schedule({f"model-{name}": 1.0 for name in self.models})
        rows = [study.row(name) for name in self.models]
        return {"recipe": self.recipe, "title": self.title, **study.results(rows)}


class HelmEvalRecipe(EvaluationSettings, Recipe):
    """Measure a causal language model, hyperbolic or not."""

    recipe: Literal["helm-eval"] = "helm-eval"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        from geodapt.helm import evaluation

        rows = evaluation.evaluate(self, self.seed, folder)
        return {"recipe": self.recipe, "title": self.title, "model": self.model, "rows": rows}


RECIPES = (HelmRecipe, HelmEvalRecipe)
