"""The models of a comparison: HELMs, their ablations, and Euclidean twins of equal size.

HELM-D and HELM-MiCE have the size that their configuration gives. Every other model has nearly the
parameters of one of the two, by the size of its feed-forward parts.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    DeepseekV3Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from geodapt.errors import InputError
from geodapt.helm.config import HelmConfig
from geodapt.lm.experiment import build_model

STEP = 8  # feed-forward sizes are its multiples, as grouped products in bfloat16 want them

Kind = Literal["dense", "mice"]


@dataclass(frozen=True)
class Contender:
    """A row of the comparison."""

    label: str
    kind: Kind
    """Whose size it has: HELM-D's or HELM-MiCE's."""
    changes: dict[str, Any] = field(default_factory=dict)
    """How its configuration differs from that one's."""
    twin: type[PreTrainedConfig] | None = None
    """The configuration of a Euclidean model."""


CONTENDERS = {
    "helm-d": Contender("HELM-D", "dense"),
    "helm-mice": Contender("HELM-MiCE", "mice"),
    "llama": Contender("Llama", "dense", twin=LlamaConfig),
    "deepseek": Contender("DeepSeek-V3", "mice", twin=DeepseekV3Config),
    "helm-d-relative": Contender("HELM-D, relative positions", "dense", {"position": "relative"}),
    "helm-mice-relative": Contender(
        "HELM-MiCE, relative positions", "mice", {"position": "relative"}
    ),
    "helm-mice-hmha": Contender("HELM-MiCE, HMHA", "mice", {"attention": "mha"}),
    "helm-mice-const": Contender(
        "HELM-MiCE, one curvature",
        "mice",
        {"expert_curvatures": 1.0, "learn_expert_curvatures": False},
    ),
    "helm-mice-mixed": Contender(
        "HELM-MiCE, mixed geometries",
        "mice",
        {"expert_geometries": ["hyperbolic", "spherical", "euclidean"]},
    ),
}
FEED_FORWARD: dict[Kind, str] = {"dense": "intermediate_size", "mice": "moe_intermediate_size"}
"""The attribute that is set for equal size."""


def configuration(
    name: str, size: str, changes: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """The configuration of a contender for the tokens of a tokenizer.

    ``changes`` are attributes of :class:`HelmConfig` that differ from those of the preset ``size``;
    a twin takes over what it has under the same name. Raises :class:`InputError` for an unknown
    attribute, for what does not fit together, and for a vocabulary smaller than the tokenizer's.
    """
    contender = CONTENDERS[name]
    wanted = helm_config(contender.kind, size, changes, tokenizer)
    if contender.twin is None and not contender.changes:
        return wanted
    if contender.twin is None:
        changed: PreTrainedConfig = helm_config(
            contender.kind, size, changes | contender.changes, tokenizer
        )
    else:
        known = inspect.signature(contender.twin).parameters
        shared = {key: value for key, value in wanted.to_dict().items() if key in known}
        if wanted.released:  # widths of the official scripts, which count the time
            shared["hidden_size"] += 1
            if shared.get("head_dim", 0) % 2:
                shared["head_dim"] -= 1
        if contender.twin is DeepseekV3Config:
            shared["num_nextn_predict_layers"] = 0
        with _refused_as(contender.label):
            changed = contender.twin(**_without_names(shared))
    return of_equal_size(changed, FEED_FORWARD[contender.kind], parameters(wanted))


def helm_config(
    kind: Kind, size: str, changes: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> HelmConfig:
    """A HELM of a preset, its changes, and the tokenizer's tokens."""
    known = [field.name for field in dataclasses.fields(HelmConfig)]
    for key in changes:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise InputError(f"config has no attribute '{key}'{hint} (see docs/helm.md)")
    # Where padding is the end of text it must be learned as such: it is no padding then.
    padding = tokenizer.pad_token_id
    given = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None if padding == tokenizer.eos_token_id else padding,
    }
    if kind == "dense":
        changes = {**changes, "n_routed_experts": 0}
    with _refused_as("HELM"):
        config = HelmConfig.preset(size, kind == "mice", **(given | changes))
    if config.vocab_size < len(tokenizer):
        raise InputError(
            f"config.vocab_size is {config.vocab_size:,}, but the tokenizer has "
            f"{len(tokenizer):,} tokens; leave it out, or take the tokenizer that it belongs to"
        )
    return config


@contextmanager
def _refused_as(label: str) -> Iterator[None]:
    """Turn transformers' error about attributes that do not fit together into
    :class:`InputError`."""
    try:
        yield
    except (StrictDataclassError, TypeError, ZeroDivisionError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"config is not one of a {label}: {reason}") from error


def parameters(config: PreTrainedConfig) -> int:
    """How many parameters a configuration's model has."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config).parameters())


def of_equal_size(config: PreTrainedConfig, attribute: str, wanted: int) -> PreTrainedConfig:
    """The configuration with the feed-forward size that brings it nearest to a number of
    parameters.

    Raises :class:`InputError` when all else has more than that already.
    """
    counts = [parameters(with_attribute(config, attribute, size)) for size in (STEP, 2 * STEP)]
    steps = 1 + round((wanted - counts[0]) / (counts[1] - counts[0]))  # it grows linearly
    if steps < 1:
        raise InputError(
            f"a {config.model_type} with {wanted:,} parameters would have no room for its "
            "feed-forward parts; make the model larger, or leave that row out"
        )
    return with_attribute(config, attribute, steps * STEP)


def with_attribute(config: PreTrainedConfig, attribute: str, value: float) -> PreTrainedConfig:
    """The configuration with one attribute changed."""
    return type(config)(**{**_without_names(config.to_dict()), attribute: value})


def _without_names(values: dict[str, Any]) -> dict[str, Any]:
    """Attributes without those that name the class and version that wrote them."""
    named = {"model_type", "architectures", "transformers_version", "dtype"}
    return {key: value for key, value in values.items() if key not in named}
