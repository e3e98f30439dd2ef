"""Second moments of the layers' inputs, a few layers at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from geodapt.compress.layers import Layer, shape_of
from geodapt.models.layer_inputs import Moments, require_tokens, second_moments
from geodapt.progress import bar


def passes(layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """The layers in groups whose moments are held at the same time.

    A group's moments take at most twice the memory of the largest layer's, so that the peak does
    not grow with the depth of the model; each group costs a pass over the texts.
    """
    room = 2 * max(_inputs(layer) ** 2 for layer in layers.values())
    groups: list[list[str]] = []
    taken = 0
    for path, layer in layers.items():
        size = _inputs(layer) ** 2
        if not groups or taken + size > room:
            groups.append([])
            taken = 0
        groups[-1].append(path)
        taken += size
    return groups


def observable(layers: Mapping[str, Layer]) -> dict[str, nn.Module]:
    """The layers whose inputs can be observed, which those of fused experts cannot."""
    return {path: layer for path, layer in layers.items() if isinstance(layer, nn.Module)}


def moments_by_group(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: list[Mapping[str, Any]]
) -> Iterator[dict[str, Moments]]:
    """The moments of all layers, a group of :func:`passes` at a time."""
    groups = passes(layers)
    with bar("calibrating", len(groups) * len(batches)) as progress:
        for group in groups:
            yield second_moments(
                model, {path: layers[path] for path in group}, _ticking(batches, progress)
            )


def _ticking(batches: list[Mapping[str, Any]], progress) -> Iterator[Mapping[str, Any]]:
    for batch in batches:
        yield batch
        progress.advance()


def check_size(layers: Mapping[str, nn.Module], batches: list[Mapping[str, Any]]) -> None:
    """Raise :class:`InputError` when there are fewer tokens than the widest layer has inputs."""
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    widest = max(layers, key=lambda path: _inputs(layers[path]))
    require_tokens(widest, _inputs(layers[widest]), tokens)


def _inputs(layer: nn.Module) -> int:
    return shape_of(layer)[1]
