"""PEFT's adapter folders: ``adapter_config.json`` beside ``adapter_model.safetensors``."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError
from peft import LoraConfig
from safetensors import safe_open
from torch import Tensor

from geodapt.adapters.adapter import Adapter, Factors, rank_of, scale_of
from geodapt.errors import InputError
from geodapt.files import atomic_folder, read_json, read_tensors, write_json, write_tensors

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KEY = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$")

# What a plain low-rank update says in its configuration; any other field that is set means an
# adapter whose update is something else.
PLAIN = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
    *("revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
    *("lora_dropout", "fan_in_fan_out", "use_rslora", "modules_to_save", "init_lora_weights"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    # These take part only when another field switches them on, or only while training.
    *("megatron_core", "qalora_group_size", "runtime_config", "loftq_config", "eva_config"),
    *("ensure_weight_tying", "lora_ga_config", "corda_config"),
}
REASONS = {
    "use_dora": "DoRA rescales the base weight's rows, so its update is not low-rank",
    "bias": "it changes the base's biases, which other adapters share",
    "lora_bias": "its factors carry biases, so its update is not linear",
    "trainable_token_indices": "it changes rows of the embedding, which other adapters share",
    "target_parameters": "it changes parameters that are not linear layers",
    "layer_replication": "it needs a base with replicated layers",
}
MUTATING = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read(source: str | Path) -> Adapter:
    """Read an adapter folder or hub name; see :meth:`Adapter.from_pretrained`."""
    folder = find(source)
    config = _config(folder, read_json(folder / CONFIG))
    weights = folder / WEIGHTS
    if not weights.is_file():
        if (folder / PICKLE).is_file():
            read_tensors(folder / PICKLE)  # says why a pickle is not read
        raise InputError(f"{folder} has no {WEIGHTS}; save the adapter again with PEFT")
    tensors = read_tensors(weights)
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata() or {}
    factors, heads = _factors(folder, config, tensors)
    return Adapter(factors, config, metadata.get("base_sha256"), heads)


def write(adapter: Adapter, folder: str | Path) -> None:
    """Write an adapter folder; see :meth:`Adapter.save_pretrained`."""
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a file; give a folder to save the adapter in")
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            _write_files(adapter, temporary)
    else:
        _write_files(adapter, folder)


def find(source: str | Path) -> Path:
    """The local folder of an adapter, downloaded first when ``source`` is a hub name."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    name = str(source)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(
            f"adapter '{source}' is not a folder; give a folder with {CONFIG} and {WEIGHTS}, "
            "or a hub name"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, PICKLE]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"adapter '{source}' is neither a folder nor a hub name that is reachable: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _write_files(adapter: Adapter, folder: Path) -> None:
    tensors = {}
    for path, (A, B, _) in adapter.factors.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.weight"] = B
    metadata = {"format": "pt"}
    if adapter.base_sha256:
        metadata["base_sha256"] = adapter.base_sha256
    settings = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in adapter.config.to_dict().items()
    }
    write_tensors(folder / WEIGHTS, tensors, metadata)
    write_json(folder / CONFIG, settings | {"inference_mode": True})


def _config(folder: Path, content: Any) -> LoraConfig:
    """PEFT's configuration; raises when it describes something else than a low-rank update."""
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        kind = content.get("peft_type") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{folder / CONFIG} has peft_type {kind!r}; geodapt reads LORA adapters")
    known = {field.name: field for field in dataclasses.fields(LoraConfig)}
    for key, value in content.items():
        if key in PLAIN or not value or (key == "bias" and value == "none"):
            continue
        reason = REASONS.get(key, "geodapt knows only plain LoRA")
        raise InputError(
            f"adapter '{folder}' sets {key}={value!r}: {reason}. Merge it into its base with "
            "PEFT's merge_and_unload and use that as the base, or train a plain LoRA adapter"
        )
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(MUTATING):
        raise InputError(
            f"adapter '{folder}' was initialised by {start}, which also changed the base weights; "
            "convert it with PEFT's path_initial_model_for_weight_conversion when saving"
        )
    try:
        return LoraConfig(**{key: value for key, value in content.items() if key in known})
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder / CONFIG} is not a valid LoRA configuration: {error}") from error


def _factors(
    folder: Path, config: LoraConfig, tensors: dict[str, Tensor]
) -> tuple[dict[str, Factors], tuple[str, ...]]:
    pairs: dict[str, dict[str, Tensor]] = {}
    heads: set[str] = set()
    for key, tensor in tensors.items():
        if match := KEY.match(key):
            pairs.setdefault(match[1], {})[match[2]] = tensor
        elif "lora_embedding" in key:
            raise InputError(
                f"adapter '{folder}' adapts an embedding ({key}); geodapt adapts linear layers"
            )
        elif config.modules_to_save:
            heads.add(key.removeprefix("base_model.model.").rsplit(".", 1)[0])
        else:
            raise InputError(
                f"adapter '{folder}' holds '{key}', which is no LoRA factor of a linear layer"
            )
    if not pairs:
        raise InputError(f"adapter '{folder}' holds no LoRA factors")
    factors = {}
    for path, pair in pairs.items():
        for side in "AB":
            if side not in pair:
                raise InputError(
                    f"adapter '{folder}' lacks {path}.lora_{side}.weight: the file is not "
                    "complete, save or download it again"
                )
        A, B = pair["A"], pair["B"]
        if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
            raise InputError(
                f"adapter '{folder}', layer {path}: lora_A is {tuple(A.shape)} and lora_B "
                f"{tuple(B.shape)}; expected (rank, in) and (out, rank) of a linear layer"
            )
        rank = rank_of(config, path)
        if A.shape[0] != rank:
            raise InputError(
                f"adapter '{folder}', layer {path} has rank {A.shape[0]}, its {CONFIG} says {rank}"
            )
        factors[path] = Factors(A, B, scale_of(config, path, A.shape[0]))
    return factors, tuple(sorted(heads))
