"""Which model class an adapter's configuration names, and so whose layer paths it has."""

import re
from collections.abc import Collection
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from geodapt.adapters.peft_files.saved_modules import find_modules, holder_of

TASKS = {
    "CAUSAL_LM": set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()),
    "SEQ_2_SEQ_LM": set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()),
    "SEQ_CLS": set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()),
    "TOKEN_CLS": set(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values()),
    "QUESTION_ANS": set(MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES.values()),
}
PEFT_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Modules that PEFT trains in full for a task whether or not the configuration says so."""
CLASSIFYING = re.compile(r"For\w*(Classification|QuestionAnswering|MultipleChoice)$")


def class_of(model: nn.Module, heads: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a PEFT configuration that name a model's class.

    The task where there is one, by which PEFT and servers choose the class; else the class
    itself, and also where the adapter, whose ``heads`` are given, is without one that PEFT
    expects for the task.
    """
    name = type(model).__name__
    for task, names in TASKS.items():
        expected = find_modules(model, PEFT_HEADS.get(task, ()))
        if name in names and all(holder_of(path, heads) for path in expected):
            return {"task_type": task}
    return {"auto_mapping": {"base_model_class": name, "parent_library": type(model).__module__}}


def trained_on(config: LoraConfig) -> str | None:
    """The class that a configuration names itself."""
    mapping = config.auto_mapping
    return mapping.get("base_model_class") if isinstance(mapping, dict) else None


def task_heads(model: nn.Module) -> list[str]:
    """The modules of a classifier, tagger or question answerer that its base model lacks."""
    if not CLASSIFYING.search(type(model).__name__):
        return []
    base, parts = getattr(model, "base_model_prefix", ""), dict(model.named_children())
    if base not in parts:
        return find_modules(model, [name for names in PEFT_HEADS.values() for name in names])
    return [name for name, part in parts.items() if name != base and part.state_dict()]


def family(module: object) -> str | None:
    """The transformers package that a class's module is in: bert, clip, gpt2, ...; else None."""
    match = re.match(r"transformers\.models\.((?:deprecated\.)?\w+)", str(module))
    return match[1] if match else None


def holds_others(name: str) -> bool:
    """Whether a class may hold models of other families, as LLaVA holds a Llama."""
    return re.search(r"ForConditionalGeneration|EncoderDecoder|DualEncoder", name) is not None


def has_task(config: LoraConfig, model: nn.Module) -> bool:
    """Whether the model is of a class that a configuration's task stands for."""
    return type(model).__name__ in TASKS.get(str(config.task_type or ""), ())


def names_class_of(config: LoraConfig, model: nn.Module) -> bool:
    """Whether a configuration names this model's class, by its task or itself, or names none."""
    named = trained_on(config)
    if has_task(config, model) or (not config.task_type and named == type(model).__name__):
        return True
    return not config.task_type and named is None
