"""A compressed model on disk, as ``save_pretrained`` writes it.

::

    config.json           the model's configuration, and under quantization_config its weights'
    model.safetensors     all tensors; compressed ones in parts
    tokenizer.json, ...   the tokenizer

``from_pretrained`` and pipelines load it where :mod:`geodapt.compress` is imported; a model whose
layers are all plain int8 is written as torchao's, which transformers reads by itself.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from geodapt.cards import short, write_card
from geodapt.compress import torchao_format
from geodapt.compress.quantizer import METHOD, CompressionQuantizer, attach_geodapt
from geodapt.compress.source_model import quantization_of
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.models import as_input_errors, model_class, pretrained

FORMATS = (CompressionQuantizer, torchao_format.Quantizer)
OURS = ("geodapt.helm.registered",)  # register their configurations with transformers when imported


def save(
    model: PreTrainedModel,
    folder: Path | str,
    tokenizer: Any = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a compressed model, atomically, for :func:`load` and ``from_pretrained``.

    ``facts`` say in its card how it was made; ``base`` among them is the model's name. Raises
    :class:`InputError` when no layer of the model is compressed.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"{type(model).__name__} is no model of transformers, so it has no configuration to "
            "load it by; save its state_dict with torch.save"
        )
    if not isinstance(getattr(model, "hf_quantizer", None), FORMATS):
        describe_quantization(model)
    with atomic_folder(folder) as inside:
        # Names and shapes stay as in the model: there is nothing here that transformers would
        # convert.
        model.save_pretrained(inside, save_original_format=False)
        if tokenizer is not None:
            tokenizer.save_pretrained(inside)
        _write_card(model, inside, Path(folder).name, dict(facts or {}))


def describe_quantization(model: PreTrainedModel) -> None:
    """Make ``save_pretrained`` write a compressed model, in torchao's own format where that is
    enough."""
    if torchao_format.fits_torchao(model):
        torchao_format.attach_torchao(model)
    else:
        attach_geodapt(model)


def load(folder: Path | str) -> PreTrainedModel:
    """A model that :func:`save` or ``geodapt compress`` wrote, in eval mode on the CPU.

    Takes the model's folder, or the folder given to ``geodapt compress --out``, which holds it as
    ``model/``. Raises :class:`InputError` when the folder is not such a one, or is incomplete.
    """
    given = folder = Path(folder)
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{given} is no compressed model: it has neither a config.json nor model/config.json"
        )
    described = quantization_of(folder / "config.json")
    if described.get("quant_method") not in (METHOD, "torchao"):
        raise InputError(
            f"{folder / 'config.json'} describes no compressed weights: it is no compressed model; "
            "load it with from_pretrained"
        )
    with as_input_errors(str(folder)):
        model, info = pretrained(
            _class(folder),
            str(folder),
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
        )
    _require_whole(folder, info)
    if any(name.startswith("pooler.") for name in info["missing_keys"]):
        model.pooler = None  # the saved model had none, which no configuration records
    if described["quant_method"] == "torchao":
        torchao_format.wrap(model)
    return model.requires_grad_(False).eval()


def _class(folder: Path) -> Any:
    """The model's class by its name in config.json: one of transformers' or of geodapt's own."""
    try:
        config = pretrained(AutoConfig, str(folder))
    except ValueError:
        for module in OURS:
            importlib.import_module(module)
        config = pretrained(AutoConfig, str(folder))
    (name, *_) = config.architectures or [""]
    if found := model_class(name):
        return found
    if type(config).__module__.split(".")[0] == "geodapt":
        return AutoModelForCausalLM if str(name).endswith("ForCausalLM") else AutoModel
    raise InputError(
        f"{folder / 'config.json'} names the model class '{name}', which is no model of "
        "transformers or geodapt; install the version that wrote it"
    )


def _require_whole(folder: Path, info: dict[str, Any]) -> None:
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    problems = {
        "lacks the": missing,
        "has an unknown": sorted(info["unexpected_keys"]),
        "has another shape of the": sorted(name for name, *_ in info["mismatched_keys"]),
    }
    for problem, names in problems.items():
        if names:
            raise InputError(
                f"the weights in {folder} {problem} tensor '{names[0]}'; the folder is incomplete "
                "or mixes two models: compress the model again"
            )


def _write_card(model: PreTrainedModel, folder: Path, name: str, facts: dict[str, Any]) -> None:
    base = facts.pop("base", None) or model.config.name_or_path or None
    torchao = isinstance(model.hf_quantizer, torchao_format.Quantizer)
    needs = "import geodapt.compress  # from_pretrained then reads this folder\n"
    write_card(
        folder,
        f"{short(base)}, compressed" if base else f"A compressed {type(model).__name__}",
        "Its layers' weights are 8-bit integers of torchao."
        if torchao
        else "Its layers' weights are integers, low-rank factors, or both. transformers refuses "
        "the folder unless geodapt.compress is imported.",
        base=base,
        relation="quantized",
        library="transformers",
        tags=["compressed"],
        facts={"class": type(model).__name__, **facts},
        usage=("" if torchao else needs) + f"from transformers import {type(model).__name__}\n"
        f'model = {type(model).__name__}.from_pretrained("{name}")',
    )
