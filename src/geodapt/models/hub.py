"""Folders that a user names by a path or by a name on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from geodapt.errors import InputError, reason_of
from geodapt.hub import require_hub

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
    try:
        return Path(snapshot_download(name, **download))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(
            f"{what} '{source}' is neither a folder nor a hub name that is reachable: "
            f"{reason_of(error)}"
        ) from error
