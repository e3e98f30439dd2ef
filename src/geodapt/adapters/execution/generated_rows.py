"""The rows that ``generate`` is given, and how many it makes of each."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationConfig


def expansion(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> int:
    """How many consecutive rows ``generate`` makes of each."""
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, GenerationConfig)]
    configs = (*given, getattr(model, "generation_config", None))  # what one leaves open, the next

    def option(name: str) -> int:
        values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
        return next((value for value in values if value is not None), 1)

    return max(option("num_beams"), option("num_return_sequences"))


def rows_generated_from(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> int | None:
    """How many rows ``generate`` is given; None where its arguments do not show it."""
    given = {"inputs": args[0], **kwargs} if args else kwargs
    main = str(getattr(model, "main_input_name", None))
    for name in ("inputs", "input_ids", "inputs_embeds", main, "encoder_outputs"):
        value = given.get(name)
        if name == "encoder_outputs" and value is not None:
            value = value[0]
        if isinstance(value, Tensor) and value.ndim:
            return value.shape[0]
    return None
