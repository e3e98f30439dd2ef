"""Compressed weights in transformers' own loading and saving.

``config.json`` describes every compressed weight under ``quantization_config``. Importing this
module registers the format, so that ``save_pretrained``, ``from_pretrained`` and pipelines read and
write it like any other quantized model. In the file a weight is replaced by its parts, and its own
name holds an empty tensor: where the format is not registered, transformers finds a tensor of the
wrong shape and refuses the file instead of initialising the weight at random.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from geodapt.compress.compressed_tensor import (
    Compressed,
    Experts,
    format_of,
    is_compressed,
    put_together,
    take_apart,
)
from geodapt.compress.install import as_linear
from geodapt.compress.layer_format import LayerFormat
from geodapt.compress.quantization import narrow
from geodapt.errors import InputError, reason_of
from geodapt.extras import require_torchao
from geodapt.settings import Settings

METHOD = "geodapt"
EMPTY = torch.zeros(0, dtype=torch.uint8)


class Weight(Settings):
    """One compressed weight, as ``config.json`` has it."""

    shape: tuple[int, int]
    """Outputs and inputs; of each expert, where there are several."""
    form: str | list[str]
    """As :class:`Form` writes it; of every expert, where they differ."""
    experts: int | None = Field(default=None, ge=1, le=10_000)
    transposed: bool = False
    """Whether the model's stack of experts is ``(expert, in, out)``."""
    dtype: str | None = None
    """Float type in which it computes, where that is not the model's."""

    @property
    def forms(self) -> list[LayerFormat]:
        """The format of each matrix."""
        names = [self.form] * (self.experts or 1) if isinstance(self.form, str) else self.form
        if len(names) != (self.experts or 1):
            raise InputError(f"{len(names)} forms are given for {self.experts or 1} matrices")
        forms = [LayerFormat.parse(name) for name in names]
        for form in forms:
            if self.shape[1] % (form.group or 1) or form.rank > min(self.shape):
                raise InputError(f"'{form}' does not fit a matrix of {self.shape}")
        return forms

    @classmethod
    def of(cls, weight: Compressed | Experts) -> "Weight":
        """The description of a compressed weight."""
        dtype = str(weight.dtype).removeprefix("torch.")
        if not isinstance(weight, Experts):
            rows, columns = weight.shape
            return cls(shape=(rows, columns), form=str(format_of(weight)), dtype=dtype)
        forms = [str(format_of(each)) for each in weight.weights]
        rows, columns = weight.weights[0].shape
        return cls(
            shape=(rows, columns),
            form=forms[0] if len(set(forms)) == 1 else forms,
            experts=len(forms),
            transposed=weight.transposed,
            dtype=dtype,
        )


@register_quantization_config(METHOD)
class CompressionConfig(QuantizationConfigMixin):
    """What ``quantization_config`` in ``config.json`` holds."""

    def __init__(
        self,
        dtype: str,
        weights: Mapping[str, Any],
        without: list[str] | None = None,
        quant_method: str = METHOD,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.dtype = dtype
        """Float type of the model that was compressed."""
        self.weights = dict(weights)
        """Parameter -> :class:`Weight`."""
        self.without = without or []
        """Modules that the model's class has and this model does not."""

    @classmethod
    def of(cls, model: nn.Module) -> "CompressionConfig":
        """The description of a model's compressed weights."""
        dtype = str(model.dtype).removeprefix("torch.")
        weights = {}
        for name, weight in _found(model):
            described = Weight.of(weight).model_dump(exclude_defaults=True)
            weights[name] = {k: v for k, v in described.items() if (k, v) != ("dtype", dtype)}
        without = ["pooler"] if getattr(model, "pooler", model) is None else []
        return cls(dtype, weights, without)

    def parsed(self) -> dict[str, Weight]:
        """The weights' descriptions; raises :class:`InputError` when one is not well formed."""
        try:
            found = {name: Weight.model_validate(each) for name, each in self.weights.items()}
            for each in found.values():
                _ = each.forms
                if not getattr(torch, each.dtype or self.dtype).is_floating_point:
                    raise InputError(f"{each.dtype or self.dtype} is no float type")
            return found
        except (ValidationError, InputError, AttributeError, TypeError) as error:
            raise InputError(
                "quantization_config in config.json is not one that this version writes "
                f"({reason_of(error)}); compress the model again"
            ) from error


@register_quantizer(METHOD)
class CompressionQuantizer(HfQuantizer):
    """Puts compressed weights together while transformers loads a model, and takes them apart."""

    requires_calibration = True  # a dense model is compressed by geodapt.compress, not in loading
    quantization_config: CompressionConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        forms = [f for each in self.quantization_config.parsed().values() for f in each.forms]
        if any(form.width is not None for form in forms):
            require_torchao()

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        """Make room for the parts: parameters of bytes in place of each weight."""
        for name in self.quantization_config.without:
            if hasattr(model, name):
                setattr(model, name, None)
        self.weights = dict(_resolved(model, self.quantization_config.parsed()))
        for name, weight in self.weights.items():
            path, _, own = name.rpartition(".")
            module = as_linear(model, path)
            module._parameters[own] = _bytes_parameter(EMPTY)
            for part, size in _sizes(weight, self._stored(weight)).items():
                empty = torch.empty(size, dtype=torch.uint8, device="meta")
                module.register_parameter(f"{own}_{part}", _bytes_parameter(empty))

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Replace the parts by the weights that they make."""
        for name, weight in self.weights.items():
            stored = self._stored(weight)
            dtype = stored if weight.dtype else model.dtype
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            parts = {}
            for part in _sizes(weight, stored):
                loaded = module._parameters.pop(f"{own}_{part}")
                if loaded.is_meta or not getattr(loaded, "_is_hf_initialized", False):
                    raise InputError(
                        f"the tensor {path}.{own}_{part} was not loaded: the weights lack it, have "
                        "it in another shape, or are offloaded; compress the model again, or load "
                        "it on one device"
                    )
                parts[part] = loaded.data
            made = _assembled(weight, parts, stored, dtype)
            module._parameters[own] = nn.Parameter(made, requires_grad=False)
        return model

    def _stored(self, weight: Weight) -> torch.dtype:
        return getattr(torch, weight.dtype or self.quantization_config.dtype)

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        attach_geodapt(model)  # anew: the model may be in another float type by now
        state: dict[str, Tensor] = {}
        for name, tensor in model.state_dict().items():
            if is_compressed(tensor):
                state[name] = EMPTY.clone()
                weight = cast(Compressed | Experts, tensor)
                state |= {f"{name}_{part}": data for part, data in _parts(weight)}
            else:
                state[name] = tensor
        return state, {}

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True  # adapters on top; the compressed weights themselves are frozen


def attach_geodapt(model: Any) -> None:
    """Make ``save_pretrained`` write a compressed model as :class:`CompressionConfig` says."""
    config = CompressionConfig.of(model)
    if not config.weights:
        raise InputError("the model has no compressed layer; save it with save_pretrained")
    model.config.quantization_config = config
    model.hf_quantizer = CompressionQuantizer(config)


def _found(model: nn.Module) -> Iterator[tuple[str, Compressed | Experts]]:
    for name, parameter in model.named_parameters():
        if is_compressed(parameter):
            yield name, cast(Compressed | Experts, parameter.data)


def _resolved(model: Any, weights: dict[str, Weight]) -> Iterator[tuple[str, Weight]]:
    """The weights under the names that this class of model gives them.

    A model with a head names its body's parameters by a prefix that the bare body lacks. What the
    class does not have (another head) is left to transformers, which reports it.
    """
    prefix = f"{model.base_model_prefix}."
    for name, weight in weights.items():
        for candidate in (name, name.removeprefix(prefix), prefix + name):
            path, _, own = candidate.rpartition(".")
            try:
                module = model.get_submodule(path)
            except AttributeError:
                continue
            if own in module._parameters:
                yield candidate, weight
                break


def _parts(weight: Compressed | Experts) -> Iterator[tuple[str, Tensor]]:
    """The stored tensors of a weight, as bytes, which no loader converts to another float type."""
    if isinstance(weight, Experts):
        for number, each in enumerate(weight.weights):
            for part, tensor in take_apart(each).items():
                yield f"{number}_{part}", _bytes(tensor)
    else:
        for part, tensor in take_apart(weight).items():
            yield part, _bytes(tensor)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def _bytes_parameter(data: Tensor) -> nn.Parameter:
    return nn.Parameter(data.clone(), requires_grad=False)


def _layout(form: LayerFormat, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Part -> its shape and type, of one matrix."""
    rows, columns = shape
    layout: dict[str, Any] = {}
    if form.width is not None and form.group is not None:
        wide = form.is_int8_by_rows(columns)
        layout["codes"] = ((-(-rows * columns * form.width // 8),), torch.uint8)
        layout["scale"] = ((rows, columns // form.group), torch.float32 if wide else narrow(dtype))
    if form.rank:
        layout["A"] = ((form.rank, columns), narrow(dtype))
        layout["B"] = ((rows, form.rank), narrow(dtype))
    return layout


def _layouts(
    weight: Weight, dtype: torch.dtype
) -> Iterator[tuple[str, LayerFormat, dict[str, Any]]]:
    for number, form in enumerate(weight.forms):
        prefix = f"{number}_" if weight.experts else ""
        yield prefix, form, _layout(form, weight.shape, dtype)


def _sizes(weight: Weight, dtype: torch.dtype) -> dict[str, int]:
    """Part -> its bytes."""
    return {
        prefix + part: math.prod(shape) * kind.itemsize
        for prefix, _, layout in _layouts(weight, dtype)
        for part, (shape, kind) in layout.items()
    }


def _assembled(
    weight: Weight, parts: dict[str, Tensor], stored: torch.dtype, dtype: torch.dtype
) -> Tensor:
    """A weight rebuilt from its bytes; raises :class:`InputError` for a NaN among them."""
    matrices = []
    for prefix, form, layout in _layouts(weight, stored):
        found = {
            part: parts[prefix + part].view(kind).reshape(shape)
            for part, (shape, kind) in layout.items()
        }
        for part, tensor in found.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise InputError(
                    f"the part {prefix}{part} of a compressed weight holds NaN or infinite values; "
                    "the file is damaged: compress the model again"
                )
        matrices.append(put_together(found, form, weight.shape, dtype))
    return Experts(matrices, weight.transposed) if weight.experts else matrices[0]
