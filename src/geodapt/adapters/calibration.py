"""Inputs of adapted layers, for choosing rank-one terms."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from geodapt.adapters.base_model.naming import localise
from geodapt.adapters.base_model.sites import is_linear
from geodapt.models.layer_inputs import sample_inputs


def calibrate(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    paths: Iterable[str],
    tokens: int = 1024,
) -> dict[str, Float[Tensor, "tokens in_features"]]:
    """Inputs of layers while a model reads batches, for ``merge(..., method="atoms")``.

    ``paths`` are an adapter's layer paths. At most ``tokens`` inputs are kept per layer, as
    :func:`geodapt.models.layer_inputs.sample_inputs` draws them. Only linear layers have inputs of
    that sort: embeddings, convolutions and parameters are left out.
    """
    modules = dict(model.named_modules())
    layers = {
        path: modules[here]
        for path, here in localise(model, list(paths)).items()
        if is_linear(modules.get(here))
    }
    return sample_inputs(model, layers, batches, tokens)
