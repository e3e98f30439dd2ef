"""What to run where an optional package is missing."""

import importlib.metadata
import importlib.util
import json
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from geodapt.errors import InputError

INDEX = "geodapt"
"""What to install where nothing says where this geodapt came from: the name on a package index."""


def install(extra: str) -> str:
    """The command that adds an extra to this very geodapt: its checkout, its wheel or the index."""
    return f"pip install {_source(extra)}"


def missing(what: str, extra: str) -> InputError:
    """The error for a feature whose packages are not there."""
    return InputError(f"{what}: {install(extra)}")


def require(package: str, what: str, extra: str) -> None:
    """Raise :func:`missing` where a package that an extra brings is not installed."""
    if importlib.util.find_spec(package) is None:
        raise missing(what, extra)


def require_transport() -> None:
    """Raise :func:`missing` where optimal transport, which the probe needs, is not installed."""
    require("ot", "Ollivier-Ricci curvature needs optimal transport", "probe")


def require_pillow() -> None:
    """Raise :func:`missing` where what reads pictures is not installed."""
    require("PIL", "pictures are read with Pillow, which is not installed", "vision")


def require_box_metrics() -> None:
    """Raise :func:`missing` where what measures boxes is not installed."""
    require("faster_coco_eval", "boxes are measured with faster-coco-eval", "vision")


def require_lm_eval() -> None:
    """Raise :func:`missing` where lm-eval is not installed."""
    what = "tasks are asked through lm-eval, which is not installed; leave tasks out (tasks=[]) and"
    require("lm_eval", f"{what} measure perplexity on a text, or install it", "eval")


def require_torchao() -> None:
    """Raise :func:`missing` where what multiplies integers is not installed."""
    what = "integers need torchao, which is not installed (the method svd does not)"
    require("torchao", what, "quant")


def require_optuna() -> None:
    """Raise :func:`missing` where what searches over merges is not installed."""
    require("optuna", "the search needs optuna", "search")


@cache
def _source(extra: str) -> str:
    """``-e '/folder[extra]'`` for a checkout, ``'/x.whl[extra]'``, or the name on an index."""
    try:
        written = importlib.metadata.distribution("geodapt").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        written = None
    try:
        origin = json.loads(written or "{}")
    except ValueError:
        origin = {}
    url = urlparse(str(origin.get("url", "")))
    path = Path(unquote(url.path))
    if url.scheme != "file" or not path.exists():
        return shlex.quote(f"{INDEX}[{extra}]")
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(f"{path}[{extra}]")
