"""What an adapter brings for a part that this model is without: a head, a pooler, a decoder."""

import warnings
from collections.abc import Collection, Iterable

from torch import nn

from geodapt.adapters.base_model.naming import Naming
from geodapt.errors import InputError, InputWarning


def fit_paths(
    model: nn.Module, name: str, naming: Naming, paths: Iterable[str], brings: str
) -> dict[str, str]:
    """The model's path of each module for which an adapter ``brings`` something.

    Warns of those in a part that the model is without. Raises :class:`InputError` for others that
    it lacks; ``brings`` says what the adapter does, with a place for the path.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    here = {path: naming.to_model(path) for path in paths}
    lacking = [path for path, local in here.items() if local not in modules]
    parts = absent_parts(model, [here[path] for path in lacking])
    for path in lacking:
        if parts[here[path]] is None:
            raise InputError(
                f"adapter '{name}' {brings.format(path)}, which {type(model).__name__} does not "
                "have; was it trained on another model?"
            )
    if lacking:
        warn_left_out(model, name, parts.values())
    return {path: local for path, local in here.items() if path not in lacking}


def absent_parts(model: nn.Module, paths: Iterable[str]) -> dict[str, str | None]:
    """The named part of a model that each path needs and the model lacks; None within a block.

    A model without a decoder, a pooler or a head computes the rest as the whole model does; a
    model with fewer blocks, or with other layers in them, does not, and neither may one that has
    such a part elsewhere.
    """
    names = {path.rpartition(".")[2] for path, _ in model.named_modules()}
    return {path: _absent_part(model, path, names) for path in paths}


def warn_left_out(model: nn.Module, name: str, parts: Iterable[str | None]) -> None:
    warnings.warn(
        f"adapter '{name}' also changes {', '.join(map(str, dict.fromkeys(parts)))}, which this "
        f"{type(model).__name__} is without; the rest is used",
        InputWarning,
        stacklevel=4,
    )


def _absent_part(model: nn.Module, path: str, names: Collection[str]) -> str | None:
    module, walked = model, []
    for part in path.split("."):
        walked.append(part)
        if part.isdigit():
            return None
        child = getattr(module, part, None)
        if not isinstance(child, nn.Module):
            return None if part in names else ".".join(walked)
        module = child
    return None
