"""HELM: hyperbolic language models that live in transformers.

    import geodapt.helm                                        # registers the Auto classes
    config = HelmConfig.preset("tiny", mice=True, vocab_size=8000)
    model = HelmForCausalLM(config)                            # train it, save_pretrained
    AutoModelForCausalLM.from_pretrained(folder).generate(...)

Source: "HELM: Hyperbolic Large Language Models via Mixture-of-Curvature Experts" (2025).
"""

import lazy_loader

from geodapt.registration import register_formats

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
register_formats("geodapt.helm.registered")
