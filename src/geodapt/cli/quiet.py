"""How much a command prints: its own messages, or with ``--debug`` those of all libraries."""

import importlib.util
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geodapt.errors import InputError, InputWarning

# Read by the libraries when they are imported, which the commands do late.
_VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
# torchao looks for kernels of other devices, and registers enums that torch now knows itself;
# lm-eval warns of a model that is passed to it already made.
_LOGGERS = ("torchao", "torch.utils._pytree", "lm_eval")

_show: Any = warnings.showwarning


def leave_foreign_backend() -> None:
    """Forget a backend of matplotlib that this environment lacks.

    A notebook names its own in the environment of the commands that it starts, of which libraries
    that import matplotlib would raise; nothing here draws with it.
    """
    backend = os.environ.get("MPLBACKEND", "")
    module = backend.removeprefix("module://")
    if module != backend and importlib.util.find_spec(module.split(".")[0]) is None:
        del os.environ["MPLBACKEND"]


def silence() -> None:
    """Silence libraries' messages that the user can do nothing about."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", InputWarning)
        warnings.showwarning = _tell


def _tell(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
    if issubclass(category, InputWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        _show(message, category, *where, **how)


@contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """Silence the libraries' messages in the block.

    With ``debug`` nothing is silenced, and an :class:`InputError` shows its traceback.
    """
    if not debug:
        silence()
    try:
        yield
    except InputError:
        if debug:
            traceback.print_exc()
        raise
