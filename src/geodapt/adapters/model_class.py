"""Which model class an adapter's configuration names, and so whose layer paths it has."""

from typing import Any

from peft import LoraConfig
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

TASKS = {
    "CAUSAL_LM": set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()),
    "SEQ_2_SEQ_LM": set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()),
}


def class_of(model: nn.Module) -> dict[str, Any]:
    """The fields of a PEFT configuration that name a model's class.

    The task for a language model, by which PEFT and servers choose the class; else the class
    itself.
    """
    name = type(model).__name__
    for task, names in TASKS.items():
        if name in names:
            return {"task_type": task}
    return {"auto_mapping": {"base_model_class": name, "parent_library": type(model).__module__}}


def trained_on(config: LoraConfig) -> str | None:
    """The class that a configuration names itself."""
    mapping = config.auto_mapping
    return mapping.get("base_model_class") if isinstance(mapping, dict) else None


def has_task(config: LoraConfig, model: nn.Module) -> bool:
    """Whether the model is of a class that a configuration's task stands for."""
    return type(model).__name__ in TASKS.get(str(config.task_type or ""), ())
