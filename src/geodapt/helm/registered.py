"""HELM's classes, registered with the Auto classes of transformers."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from geodapt.helm.config import HelmConfig
from geodapt.helm.model import HelmModel, HelmPreTrainedModel
from geodapt.helm.task_models import HelmForCausalLM, HelmForSequenceClassification

AutoConfig.register("helm", HelmConfig, exist_ok=True)
AutoModel.register(HelmConfig, HelmModel, exist_ok=True)
AutoModelForCausalLM.register(HelmConfig, HelmForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(
    HelmConfig, HelmForSequenceClassification, exist_ok=True
)

__all__ = [
    "HelmConfig",
    "HelmForCausalLM",
    "HelmForSequenceClassification",
    "HelmModel",
    "HelmPreTrainedModel",
]
