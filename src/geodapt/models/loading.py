"""Loading base models by name: the offline one, a folder saved by save_pretrained, a hub name.

Nothing here runs code that a folder or a hub repository brings, and only safetensors are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from geodapt.errors import InputError, reason_of
from geodapt.files import PICKLES, hash_tensors
from geodapt.models.blocks import transformer_blocks
from geodapt.models.hub import OFFLINE, locate_base
from geodapt.progress import bar

LAYERS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers"} | {
    *("decoder_layers", "num_decoder_layers"),
}
MOST_LAYERS = 10_000


def load_base(
    base: str, dtype: torch.dtype = torch.float32, head: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, frozen and in eval mode, and its tokenizer.

    It comes without its task head, or with the ``head`` that its configuration names.

    Raises :class:`InputError` when the name leads nowhere, when the weights are pickled, cut
    short or not those of the configuration, or when there are no blocks or no tokenizer.
    """
    location = locate_base(base)
    with as_input_errors(base):
        kind = _with_head(location) if head else AutoModel
        model = load_weights(base, location, dtype, kind)
        transformer_blocks(model)
    model.requires_grad_(False).eval()
    return model, load_base_tokenizer(base)


def load_base_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """A base's tokenizer, which can pad; raises :class:`InputError` where there is none."""
    location = locate_base(base)
    with as_input_errors(base):
        tokenizer = pretrained(AutoTokenizer, location)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"base '{base}' has no tokenizer beside its weights; "
            "save it there with tokenizer.save_pretrained"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pretrained(kind: Any, location: str, **options: Any) -> Any:
    """``kind.from_pretrained``, without the code that a folder or a hub repository may bring.

    By default, transformers asks on the terminal and runs that code after a ``y`` on standard
    input.
    """
    return kind.from_pretrained(location, trust_remote_code=False, **options)


def model_class(name: Any) -> type[PreTrainedModel] | None:
    """transformers' own model class of a name that a file gives; None where it has none."""
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


@contextmanager
def as_input_errors(base: str) -> Iterator[None]:
    """A block with a progress bar and without log messages, whose errors become
    :class:`InputError`."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # an unused pooler is no news
    try:
        with bar(f"loading {base}"):
            yield
    except InputError:
        raise
    except Exception as error:  # whatever a configuration or a file of somebody else leads to
        reason = reason_of(error).rstrip(".")
        raise InputError(
            f"base '{base}' could not be loaded: {reason}. Give a folder saved by "
            "save_pretrained (safetensors), a hub name that is reachable, or "
            f"'{OFFLINE}', which needs no network"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_weights(
    base: str, location: str, dtype: torch.dtype = torch.float32, kind: Any = AutoModel
) -> PreTrainedModel:
    """The model that a folder or a hub name holds, whole; by default without a task head.

    Raises :class:`InputError`, which calls it ``base``, when the weights are pickled, incomplete or
    not those of the configuration.
    """
    _refuse_pickles(base, Path(location))
    _refuse_size(base, pretrained(AutoConfig, location))
    model, info = pretrained(
        kind,
        location,
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are refused below, with their names
        output_loading_info=True,
    )
    _require_whole(base, info)
    return model


def _with_head(location: str) -> Any:
    """The class that a model was saved from, or one that follows from its task."""
    (name, *_) = pretrained(AutoConfig, location).architectures or ["AutoModel"]
    is_causal = str(name).endswith("ForCausalLM")
    return model_class(name) or (AutoModelForCausalLM if is_causal else AutoModel)


def fingerprint(model: PreTrainedModel) -> str:
    """A short hash that differs between base models, whatever dtype or path they were loaded with.

    It reads the name, the shape and 64 evenly spaced values (in bfloat16) of every parameter of
    the model without its task head, so it costs milliseconds. It guards against mistakes, not
    against an adversary.
    """
    body = getattr(model, "base_model", model)
    samples = {}
    for name, parameter in body.named_parameters():
        if "pooler" in name or not parameter.is_floating_point():
            continue
        flat = parameter.detach().flatten()
        positions = torch.linspace(0, flat.numel() - 1, min(64, flat.numel())).long()
        samples[f"{name} {tuple(parameter.shape)}"] = flat[positions.to(flat.device)].bfloat16()
    return hash_tensors(samples)[:16]


def _refuse_pickles(base: str, folder: Path) -> None:
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"base '{base}' has its weights in {pickles[0]}, a pickle, which can run any code "
            "when it is loaded; save it again with save_pretrained, which writes safetensors"
        )


def _refuse_size(base: str, config: Any) -> None:
    """Refuse more layers than any model has, which would be built for hours."""
    for key, value in config.to_dict().items():
        if key not in LAYERS or value is None:
            continue
        if not isinstance(value, int) or not 0 <= value <= MOST_LAYERS:
            raise InputError(
                f"base '{base}': {key} in its config.json is {value!r}; expected a whole number "
                f"up to {MOST_LAYERS}"
            )
    for part in config.sub_configs:
        if (below := getattr(config, part, None)) is not None:
            _refuse_size(base, below)


def _require_whole(base: str, info: dict) -> None:
    """Refuse weights that would leave a part of the model at random."""
    for name, saved, expected in info["mismatched_keys"]:
        raise InputError(
            f"base '{base}': tensor '{name}' is {tuple(saved)} in the weights, but "
            f"{tuple(expected)} by config.json; they belong to different models"
        )
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(
            f"base '{base}': its weights lack {len(missing)} tensors that config.json asks for, "
            f"such as '{missing[0]}'; the folder is incomplete or mixes two models"
        )


def default_dtype(device: torch.device | str | None = None) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32


def dtype_of(precision: str) -> torch.dtype:
    """The type that a ``precision`` setting names: ``float32``, ``bfloat16``, or ``auto``, which is
    :func:`default_dtype`'s."""
    named = {"auto": default_dtype(), "float32": torch.float32, "bfloat16": torch.bfloat16}
    return named[precision]
