"""HELMs and their Euclidean twins, trained on the same rows and measured on the same held-out
rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from geodapt.helm.choosing import curvature_of_text
from geodapt.helm.config import HelmConfig
from geodapt.helm.contenders import CONTENDERS, configuration, with_attribute
from geodapt.helm.recipe import HelmRecipe
from geodapt.helm.training import balanced_experts, seen_curvatures
from geodapt.lm.experiment import PretrainingExperiment
from geodapt.lm.fair import comparisons
from geodapt.progress import schedule
from geodapt.runs import RunFolder


def compare_contenders(settings: HelmRecipe, seed: int, folder: RunFolder) -> dict[str, Any]:
    """Train and measure the models that the settings name, one stage each; the run's results."""
    names, changes = settings.models, settings.config
    if isinstance(settings.curvature, float):
        changes = {**changes, "curvature": settings.curvature}

    def configure(tokenizer: PreTrainedTokenizerBase) -> dict[str, PreTrainedConfig]:
        return {name: configuration(name, settings.size, changes, tokenizer) for name in names}

    labels = {name: CONTENDERS[name].label for name in names}
    experiment = PretrainingExperiment(settings, configure, labels, training_hooks, seed, folder)
    first = {"curvature": 0.3} if settings.curvature == "auto" else {}
    schedule({**first, **experiment.stages(names)})
    chosen = _chosen_curvature(experiment) if first else {}
    rows = [experiment.row(name) for name in names]
    found = experiment.results(rows)
    if differences := comparisons(rows, _pairs(names)):
        found["comparisons"] = differences
    return found | chosen


def _chosen_curvature(experiment: PretrainingExperiment) -> dict[str, Any]:
    """Choose the HELMs' curvature and set it; what the results say of it."""
    helms = [n for n, c in experiment.configurations.items() if isinstance(c, HelmConfig)]
    found = experiment.folder.stage("curvature", partial(curvature_of_text, experiment, helms[0]))
    for name in helms:
        config = experiment.configurations[name]
        experiment.configurations[name] = with_attribute(config, "curvature", found["c"])
    return {"curvature": found}


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    """Every HELM against its Euclidean twin."""
    twins = {c.kind: name for name, c in CONTENDERS.items() if c.twin is not None}
    return [(n, twins[CONTENDERS[n].kind]) for n in names if CONTENDERS[n].twin is None]


@contextmanager
def training_hooks(model: PreTrainedModel) -> Iterator[Mapping[str, Tensor]]:
    """The balance of experts over processes, and the curvatures to log, during a training."""
    with balanced_experts(model), seen_curvatures(model) as curvatures:
        yield curvatures
