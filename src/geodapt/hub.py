"""Whether the Hugging Face hub can be reached, asked once before anything is looked up on it."""

from functools import cache

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session

from geodapt.errors import InputError, reason_of

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
        raise InputError(
            f"'{name}' is not a folder here, and the hub at {constants.ENDPOINT} cannot be reached "
            f"({reason_of(error)}); give a folder, or look at the network. HF_HUB_OFFLINE=1 takes "
            "what was downloaded before"
        ) from error


@cache  # of successes: an error is not kept
def _reach(endpoint: str) -> None:
    get_session().head(endpoint, timeout=SECONDS)


def _is_cached(name: str, file: str, repo_type: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, file, repo_type=repo_type), str)
    except ValueError:  # no name of a repository, which the hub's client says better
        return True
