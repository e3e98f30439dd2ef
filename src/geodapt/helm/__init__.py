"""HELM: hyperbolic language models that live in transformers.

    import geodapt.helm                                        # registers the Auto classes
    config = HelmConfig.preset("tiny", mice=True, vocab_size=8000)
    model = HelmForCausalLM(config)                            # train it, save_pretrained
    AutoModelForCausalLM.from_pretrained(folder).generate(...)

Source: "HELM: Hyperbolic Large Language Models via Mixture-of-Curvature Experts" (2025).
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from geodapt.helm.config import HelmConfig
from geodapt.helm.model import (
    HelmForCausalLM,
    HelmForSequenceClassification,
    HelmModel,
    HelmPreTrainedModel,
)

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
