"""Every field of PEFT's LoraConfig: read, without effect at inference, or refused with the reason.

A field that is not here comes from another version of PEFT. It is refused where it is set to
something else than the installed PEFT's own default.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig

from geodapt.adapters.peft_files.field_types import shown
from geodapt.errors import InputError

READ = frozenset(
    {
        *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("target_parameters", "modules_to_save", "lora_dropout", "use_dora"),
        *("bias", "lora_bias", "trainable_token_indices", "use_bdlora"),
    }
)
"""What decides what an adapter computes, and is read."""
NO_EFFECT = frozenset(
    {
        *("peft_version", "inference_mode", "runtime_config"),  # says nothing about the numbers
        "fan_in_fan_out",  # PEFT, too, goes by the layer's type
        "megatron_core",  # the name of a package, used only with megatron_config
        "qalora_group_size",  # used only with use_qalora
        "ensure_weight_tying",  # both layers' factors are in the file
        "velora_config",  # another backward pass, the same forward
        # How factors start; what these leave in the base is decided by init_lora_weights.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    }
)
"""What acts only while training or together with another field."""
REFUSED = {
    "layer_replication": "it needs a base with repeated layers; save PEFT's replicated model "
    "and use that as the base",
    "megatron_config": "it needs the parallel layers of Megatron; gather its factors and save "
    "them for the plain model",
    "alora_invocation_tokens": "it acts only on the tokens after an invocation sequence, and a "
    "gate acts on whole rows",
    "use_qalora": "its A reads sums over groups of input features; it belongs to one GPTQ base",
    "monteclora_config": "its factors are drawn anew at every pass; only their mean could be read",
    "arrow_config": "it routes among other adapters by the input; load those and use TopAtoms or "
    "Route",
    "kasa_config": "it also cut the smallest singular values from the base's weights",
}
"""What makes an update something else than a sum of scaled low-rank products."""
MUTATING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that take the start of the factors out of the base's weights."""
HARMLESS = ("gaussian", "eva", "orthogonal", "mica", "true", "false")
"""Initialisations that leave the base as it is."""


def check_fields(source: Any, content: Mapping[str, Any]) -> None:
    """Raises :class:`InputError` for a configuration whose update cannot be computed rightly.

    ``content`` is an ``adapter_config.json``; ``source`` is what the error calls the adapter.
    """
    for key, value in content.items():
        if key in READ or key in NO_EFFECT or not value or value == default_of(key):
            continue
        reason = REFUSED.get(key, "geodapt does not know this setting, so not what it changes")
        raise InputError(
            f"adapter '{source}' sets {key[:80]}={shown(value)}: {reason}. Or merge it into its "
            "base with PEFT's merge_and_unload and use that as the base"
        )
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in HARMLESS:
        if not start.lower().startswith(MUTATING):
            raise InputError(
                f"adapter '{source}' was initialised by {shown(start)}, which geodapt does not "
                "know, so not whether it changed the base weights"
            )
        raise InputError(
            f"adapter '{source}' was initialised by {start[:80]}, which also changed the base "
            "weights; convert it with PEFT's path_initial_model_for_weight_conversion when saving"
        )


def default_of(name: str) -> Any:
    """The installed PEFT's default of a field, or None."""
    for known in dataclasses.fields(LoraConfig):
        if known.name == name and known.default is not dataclasses.MISSING:
            return known.default
    return None
