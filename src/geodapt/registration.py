"""What is imported late: objects by name, and packages that register formats with transformers.

A recipe is checked before torch and transformers are imported, which takes seconds; yet ``import
geodapt.helm`` alone must be enough for transformers to load a HELM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

_SETTINGS_ONLY: ContextVar[bool] = ContextVar("settings_only", default=False)
_PENDING: list[str] = []
"""Modules whose packages were imported for their settings."""


def named_object(name: str) -> Any:
    """What ``module:name`` names; the module is imported now."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@contextmanager
def settings_only() -> Iterator[None]:
    """Within the block, packages are imported for their settings and register nothing yet."""
    token = _SETTINGS_ONLY.set(True)
    try:
        yield
    finally:
        _SETTINGS_ONLY.reset(token)


def register_formats(module: str) -> None:
    """Import the module that registers a package's formats, for the package's ``__init__``."""
    if _SETTINGS_ONLY.get():
        _PENDING.append(module)
    else:
        import_module(module)


def register_pending() -> None:
    """Register the formats of all packages that were imported for their settings."""
    while _PENDING:
        import_module(_PENDING.pop())
