"""Tensors of a file that belong into a module, or are refused."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.files import read_tensors


def load_saved_tensors(module: nn.Module, path: Path) -> None:
    """Put what a file holds into a module; raises :class:`InputError` as :func:`require_shapes`."""
    tensors = read_tensors(path)
    require_shapes(path, tensors, {n: tuple(t.shape) for n, t in module.state_dict().items()})
    module.load_state_dict(tensors)


def require_shapes(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise :class:`InputError` where a file's tensors have other names or shapes than expected."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in [*expected, *given]:
        here, there = given.get(name, "absent"), expected.get(name, "absent")
        if here != there:
            raise InputError(
                f"{path} does not fit: {name} has shape {here}, expected {there}; the files of its "
                "folder do not belong together, or it was trained with another base or settings"
            )
