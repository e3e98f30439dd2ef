"""Replaces the dense weights of a model by compressed ones, all of them or none."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.compress.compressed_tensor import Compressed, Experts
from geodapt.compress.layers import Expert, Layer, shape_of
from geodapt.compress.standin import READS
from geodapt.errors import InputError, reason_of

Undo = list[tuple[Any, str, Any]]
"""Dictionaries, keys, and the values that stood there."""


def install_weights(
    model: nn.Module,
    layers: Mapping[str, Layer],
    weights: Mapping[str, Compressed],
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Give every layer its compressed weight, and check that the model still runs.

    It runs on ``inputs``, or on some that suit its kind. Raises :class:`InputError`, with the model
    as it was, when it runs before and not after.
    """
    inputs = inputs if inputs is not None and runs(model, inputs) is None else examples(model)
    undo: Undo = []
    try:
        stacks: dict[tuple[nn.Module, str], list[Compressed]] = {}
        for path, layer in layers.items():
            if isinstance(layer, Expert):
                stacks.setdefault((layer.module, layer.name), []).append(weights[path])
            else:
                _replace(as_linear(model, path, undo), "weight", weights[path], undo)
        for (module, name), parts in stacks.items():
            transposed = bool(getattr(module, "is_transposed", False))
            _replace(module, name, Experts(parts, transposed), undo)
        if inputs is not None and (failure := runs(model, inputs)) is not None:
            raise InputError(
                f"the compressed {type(model).__name__} does not run ({failure}); choose another "
                "method; the model is left as it was"
            )
    except BaseException:
        for owner, name, value in reversed(undo):
            owner[name] = value
        raise


def as_linear(model: nn.Module, path: str, undo: Undo | None = None) -> Any:
    """The layer at a path; a Conv1D is first replaced by the ``nn.Linear`` that it computes."""
    layer: Any = model.get_submodule(path)
    if isinstance(layer, Conv1D):
        rows, columns = shape_of(layer)
        linear = nn.Linear(columns, rows, device="meta")
        linear._parameters["weight"] = None
        linear._parameters["bias"] = layer.bias
        linear.was_conv1d = True  # type: ignore[assignment]  # what the model's class builds
        parent, _, name = path.rpartition(".")
        modules = model.get_submodule(parent)._modules
        if undo is not None:
            undo.append((modules, name, layer))
        modules[name] = layer = linear.train(layer.training)
    return layer


def _replace(module: nn.Module, name: str, weight: Tensor, undo: Undo) -> None:
    undo.append((module._parameters, name, module._parameters[name]))
    module._parameters[name] = nn.Parameter(weight, requires_grad=False)


@torch.no_grad()
def runs(model: nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """None when the model computes finite outputs of these inputs, else what happened."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        output = model(**inputs)
    except Exception as error:  # whatever it is, the model does not run
        return f"{type(error).__name__}: {reason_of(error)[:200]}"
    finally:
        for module, training in modes.items():
            module.training = training
    values = output.values() if isinstance(output, Mapping) else [output]
    tensors = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
    return None if all(v.isfinite().all() for v in tensors) else "its outputs are not finite"


def only_multiplied(model: nn.Module) -> bool:
    """Whether the model uses its weights only in linear products, as far as one run shows."""
    with _reads() as found:
        inputs = examples(model)
    return inputs is not None and not found


@contextmanager
def _reads() -> Iterator[list[Any]]:
    found: list[Any] = []
    token = READS.set(found)
    try:
        yield found
    finally:
        READS.reset(token)


def examples(model: nn.Module) -> dict[str, Tensor] | None:
    """Inputs on which the model runs, or none where no guess is right."""
    config = getattr(model, "config", None)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for guess in _guesses(model, config) if config is not None else ():
        inputs = {name: value.to(device) for name, value in guess.items()}
        if runs(model, inputs) is None:
            return inputs
    return None


def _guesses(model: Any, config: Any) -> Iterator[dict[str, Tensor]]:
    vocabulary = getattr(config.get_text_config(), "vocab_size", None) or 100
    ids = torch.arange(8)[None] * 7 % vocabulary
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    pixels = _waves(model, 1, getattr(vision, "num_channels", 3), height, width)
    mels = getattr(config, "num_mel_bins", 80)
    frames = 2 * getattr(config, "max_source_positions", 64)
    yield {"input_ids": ids}
    yield {"input_ids": ids, "decoder_input_ids": ids}
    yield {"pixel_values": pixels}
    yield {"input_ids": ids, "pixel_values": pixels}
    yield {"input_features": _waves(model, 1, mels, frames), "decoder_input_ids": ids}
    yield {"input_features": _waves(model, 1, frames, mels)}
    yield {"input_values": _waves(model, 1, 4000)}


def _waves(model: Any, *shape: int) -> Tensor:
    """Values between -1 and 1 that differ from place to place."""
    return torch.arange(math.prod(shape)).sin().reshape(shape).to(model.dtype)
