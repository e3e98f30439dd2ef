"""A model whose layers are plain int8, saved as transformers and torchao save it themselves.

Such a folder loads wherever those two are installed.
"""

import json
from typing import Any

from torch import Tensor, nn
from transformers import TorchAoConfig
from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer

from geodapt.compress.compressed_tensor import Compressed, is_compressed
from geodapt.compress.install import only_multiplied
from geodapt.compress.quantization import torchao_quantization


class Quantizer(TorchAoHfQuantizer):
    """transformers' own; what it saves also loads in a class with another prefix of names."""

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

        state, found = flatten_tensor_state_dict(
            {
                name: _plain(tensor) if isinstance(tensor, Compressed) else tensor
                for name, tensor in model.state_dict().items()
            }
        )
        # A body saved with its head names its weights by a prefix that the bare body lacks.
        prefix = f"{model.base_model_prefix}."
        metadata: dict[str, str] = {}
        for name, description in found.items():
            if name not in state and name != "tensor_names":  # a compressed one
                other = name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
                metadata |= {name: description, other: description}
        metadata["tensor_names"] = json.dumps(list(metadata))
        return state, metadata


def _plain(weight: Compressed) -> Any:
    """torchao's tensor, without the zero points, which are zero for integers about zero."""
    tensor: Any = weight.integers
    return type(tensor)(tensor.qdata, tensor.scale, tensor.block_size, tensor.dtype)


def fits_torchao(model: nn.Module) -> bool:
    """Whether torchao's own layers would compute what this model's compressed ones do.

    They do where every compressed weight is a linear layer's in rows of int8, of a class of
    transformers that takes the weights for linear products alone.
    """
    found = [
        (module, parameter.data)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None and is_compressed(parameter.data)
    ]
    return (
        type(model).__module__.startswith("transformers.")
        and bool(found)
        and all(
            isinstance(module, nn.Linear)
            and not hasattr(module, "was_conv1d")
            and isinstance(weight, Compressed)
            and weight.A is None
            and type(weight.integers).__name__ == "Int8Tensor"
            for module, weight in found
        )
        and only_multiplied(model)
    )


def attach_torchao(model: Any) -> None:
    """Let ``save_pretrained`` write a model that :func:`fits_torchao`."""
    config = TorchAoConfig(torchao_quantization().Int8WeightOnlyConfig())
    model.config.quantization_config = config
    model.hf_quantizer = Quantizer(config)


def wrap(model: nn.Module) -> None:
    """Turn the weights that transformers loads into those that :func:`geodapt.compress` makes."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and type(parameter.data).__name__ == "Int8Tensor":
                weight = Compressed(integers=parameter.data)
                module._parameters[name] = nn.Parameter(weight, requires_grad=False)
    model.hf_quantizer = Quantizer(model.hf_quantizer.quantization_config)  # type: ignore
