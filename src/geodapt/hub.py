"""Folders that a user names by a path or on the Hugging Face hub, and whether that is reached."""

from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import get_session

from geodapt.errors import InputError

SECONDS = 5.0
"""Seconds to wait for the hub's answer; its own client would retry for half a minute."""


def require_hub(name: str, *cached: str, repo_type: str = "model") -> None:
    """Raise :class:`InputError` at once where the hub, which has a repository, cannot be reached.

    Nothing is asked where one of the ``cached`` files of the repository is in the hub's cache, or
    under ``HF_HUB_OFFLINE``, when the hub's client looks at its cache alone.
    """
    if constants.HF_HUB_OFFLINE or any(_is_cached(name, file, repo_type) for file in cached):
        return
    try:
        _reach(constants.ENDPOINT)
    except Exception as error:  # whatever the HTTP library of the hub's client raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"'{name}' is not a folder here, and the hub at {constants.ENDPOINT} cannot be reached "
            f"({reason}); give a folder, or look at the network. HF_HUB_OFFLINE=1 takes what was "
            "downloaded before"
        ) from error


@cache  # of successes: an error is not kept
def _reach(endpoint: str) -> None:
    get_session().head(endpoint, timeout=SECONDS)


def _is_cached(name: str, file: str, repo_type: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, file, repo_type=repo_type), str)
    except ValueError:  # no name of a repository, which the hub's client says better
        return True


def find_folder(source: str | Path, what: str, expected: str, **download: Any) -> Path:
    """The local folder of an adapter or a saved model, downloaded first when it is a hub name.

    ``download`` are options of :func:`huggingface_hub.snapshot_download`. Raises
    :class:`InputError`, which calls it ``what`` and asks for what is ``expected`` of the folder,
    for a path that is no folder and for a hub name that cannot be reached.
    """
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
            f"{str(error).splitlines()[0]}"
        ) from error
