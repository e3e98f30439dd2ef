"""What adapters were merged into, as the merge left it: whether it can be taken out again."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from geodapt.adapters.store.base_weights import weight_sketch
from geodapt.errors import InputError

CHUNK = 1 << 24
"""How many numbers are converted to a wider type at a time."""


class MergedWeights:
    """Parameters and buffers right after a merge, by name.

    Between a merge and its end somebody may load other weights, train the model, replace a layer
    or change its type. The first three would be undone in silence.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] = ()) -> None:
        self._model = model
        places = {name: _at(model, name) for name in names}
        self._left = {name: (p, _mark(p)) for name, p in places.items() if p is not None}

    def there(self) -> dict[str, Tensor]:
        """Those that are still at their places, whatever they hold."""
        return {n: place for n, (place, _) in self._left.items() if _at(self._model, n) is place}

    def check(self) -> None:
        """Raises :class:`InputError` where something else is there now, or other numbers are."""
        changed = next(self._changed(), None)
        if changed is not None:
            raise InputError(
                f"{changed} was changed or replaced since adapters were merged into it (other "
                "weights were loaded, or it was trained), which unmerging would undo; load the "
                "base again, or call unmerge(discard=True) for the weights of before the merge"
            )

    def _changed(self) -> Iterator[str]:
        for name, (place, mark) in self._left.items():
            if _at(self._model, name) is not place or not _same(mark, place):
                yield name


def _at(model: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer of a name, which a model may no longer have."""
    path, _, last = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return module._parameters.get(last, module._buffers.get(last))


@torch.no_grad()
def _mark(place: Tensor) -> tuple[torch.dtype, Tensor, Tensor]:
    """A tensor's type, a sketch of it, and the lengths of its rows."""
    matrix = place.detach().reshape(len(place) if place.ndim else 1, -1)
    wide = torch.promote_types(matrix.dtype, torch.float32)
    parts = [part.to(wide) for part in matrix.split(max(1, CHUNK // matrix.shape[1]))]
    sketch = torch.cat([weight_sketch(part) for part in parts])
    return place.dtype, sketch, torch.cat([part.norm(dim=1) for part in parts])


def _same(mark: tuple[torch.dtype, Tensor, Tensor], place: Tensor) -> bool:
    """Whether a tensor holds what was marked, in another type or elsewhere perhaps."""
    before, sketch, size = mark
    if sketch.device == place.device and before == place.dtype:
        return torch.equal(_mark(place)[1], sketch)
    now = _mark(place)[1].to(sketch)
    eps = max(torch.finfo(each).eps for each in (before, place.dtype) if each.is_floating_point)
    return bool(((now - sketch).abs() <= 8 * eps * size * len(place) ** 0.5 + eps).all())
