"""From a text model's token states to one vector, as the model was trained to be read."""

from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.errors import InputError
from geodapt.files import read_json

Pooling = Literal["mean", "cls", "lasttoken"]
LEGACY = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


def pool(
    hidden: Float[Tensor, "n tokens d"], mask: Int[Tensor, "n tokens"], pooling: Pooling
) -> Float[Tensor, "n d"]:
    """The mean over the tokens that are not padding, the first token, or the last such."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)
    if pooling == "cls":
        return hidden[:, 0]
    positions = mask.new_ones(mask.shape).cumsum(-1) - 1
    last = (mask * positions).argmax(-1)
    return hidden[mask.new_ones(len(mask)).cumsum(0) - 1, last]


def declared(base: str, location: str) -> Pooling | None:
    """What a sentence-transformers folder says of its pooling; None where it is no such folder.

    Raises :class:`InputError` for modules behind the pooling that change the vector, and for a
    pooling that is not mean, cls or lasttoken.
    """
    modules = _file(location, "modules.json")
    if modules is None:
        return None
    found: Pooling | None = None
    for module in read_json(modules):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            found = _mode(base, location, module["path"])
        elif kind not in ("Transformer", "Normalize"):
            raise InputError(
                f"encoder '{base}' has the sentence-transformers module {kind}; geodapt reads "
                "those of a Transformer, a Pooling and a Normalize"
            )
    return found


def _mode(base: str, location: str, folder: str) -> Pooling:
    config = _file(location, f"{folder}/config.json")
    settings = {} if config is None else read_json(config)
    modes = settings.get("pooling_mode") or [m for key, m in LEGACY.items() if settings.get(key)]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in ("mean", "cls", "lasttoken"):
        raise InputError(
            f"encoder '{base}' pools by {' and '.join(modes) or 'nothing known'}; geodapt reads "
            "mean, cls and lasttoken"
        )
    return modes[0]


def _file(location: str, name: str) -> Path | None:
    """A file of a local folder or a hub repository, where it has one."""
    if Path(location).is_dir():
        path = Path(location) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(location, name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
