"""HELMs and their Euclidean twins, trained on the same rows and measured on the same held-out
rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from geodapt.helm.contenders import CONTENDERS, configuration
from geodapt.helm.settings import HelmSettings
from geodapt.helm.training import balanced_experts, seen_curvatures
from geodapt.lm.experiment import PretrainingExperiment
from geodapt.progress import schedule
from geodapt.runs import RunFolder


def compare_contenders(settings: HelmSettings, seed: int, folder: RunFolder) -> dict[str, Any]:
    """Train and measure the models that the settings name, one stage each; the run's results."""
    names = settings.models

    def configure(tokenizer: PreTrainedTokenizerBase) -> dict[str, PreTrainedConfig]:
        return {
            name: configuration(name, settings.size, settings.config, tokenizer) for name in names
        }

    labels = {name: CONTENDERS[name].label for name in names}
    experiment = PretrainingExperiment(settings, configure, labels, training_hooks, seed, folder)
    schedule({f"model-{name}": 1.0 for name in names})
    return experiment.results([experiment.row(name) for name in names])


@contextmanager
def training_hooks(model: PreTrainedModel) -> Iterator[Mapping[str, Tensor]]:
    """The balance of experts over processes, and the curvatures to log, during a training."""
    with balanced_experts(model), seen_curvatures(model) as curvatures:
        yield curvatures
