"""From a model to a smaller one: measure the layers, share out the budget, replace the weights."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from geodapt.compress.budget import (
    Option,
    allocate,
    allocate_uniform,
    hull,
    require_room,
)
from geodapt.compress.calibration import moments_by_group, observable
from geodapt.compress.compressed_tensor import Compressed, build_compressed
from geodapt.compress.install import install_weights
from geodapt.compress.layer_format import WIDTHS, CompressionMethod, LayerFormat, groups_of
from geodapt.compress.layers import Expert, Layer, shape_of, survey, weight_of
from geodapt.compress.rate_distortion import curve
from geodapt.compress.results import LayerReport
from geodapt.compress.storage import describe_quantization
from geodapt.compress.svd import Whitening
from geodapt.compress.target import Target
from geodapt.errors import InputError
from geodapt.extras import require_torchao
from geodapt.progress import track

DEFAULT_GROUP = 64


def check_fits(layers: Mapping[str, Layer], method: CompressionMethod, target: Target) -> None:
    """Raise :class:`InputError` for a target that these layers cannot meet, before any work.

    An allowed loss can only be checked later, when the errors are known.
    """
    target.check(method)
    smallest = {}
    for path, layer in layers.items():
        if method.integers and layer.weight.dtype == torch.float64:
            raise InputError(
                f"layer {path} has float64 weights, of which torchao makes no integers; give "
                "model.float()"
            )
        shape = shape_of(layer)
        _check_layer(path, shape, method, target)
        form = _smallest(shape, method, target)
        smallest[path] = Option(form, form.bytes(*shape), 0.0)
    budget = target.budget(count_weights(layers))
    if budget is not None:
        require_room(smallest, budget)


def _smallest(shape: tuple[int, int], method: CompressionMethod, target: Target) -> LayerFormat:
    if not method.integers:
        return LayerFormat(rank=1)
    return LayerFormat(method.width or WIDTHS[0], target.group or shape[1])


def _check_layer(
    path: str, shape: tuple[int, int], method: CompressionMethod, target: Target
) -> None:
    """Rank and group must suit the layer."""
    out_features, in_features = shape
    if target.group is not None and target.group < 2:
        raise InputError(
            f"groups of {target.group} would take a scale per weight, more than the weights "
            f"themselves; give one of {', '.join(map(str, groups_of(in_features)))}"
        )
    if target.group is not None and in_features % target.group:
        raise InputError(
            f"layer {path} has {in_features} inputs, which groups of {target.group} do not "
            f"divide; give one of {', '.join(map(str, groups_of(in_features)))}"
        )
    full = min(out_features, in_features)
    if target.rank is not None and not 1 <= target.rank <= full:
        raise InputError(
            f"rank {target.rank} is outside of 1 to {full}, the full rank of layer {path} "
            f"({out_features} x {in_features})"
        )


def options(
    W: Tensor, method: CompressionMethod, target: Target, whitening: Whitening
) -> list[Option]:
    """The formats that a layer may get, for :func:`choose_formats`."""
    out_features, in_features = W.shape
    if target.budget(1) is None:
        form = LayerFormat(method.width, _group(method, target, in_features), target.rank or 0)
        return [Option(form, form.bytes(out_features, in_features), 0.0)]
    found = curve(W, method, whitening, target.group)
    return found if method.uniform else hull(found)


def _group(method: CompressionMethod, target: Target, in_features: int) -> int | None:
    if not method.integers:
        return None
    if target.group is not None:
        return target.group
    by_groups = method.width != 8 and in_features % DEFAULT_GROUP == 0
    return DEFAULT_GROUP if by_groups else in_features


def choose_formats(
    curves: Mapping[str, list[Option]], method: CompressionMethod, target: Target, weights: int
) -> dict[str, LayerFormat]:
    """The format chosen for each layer."""
    budget = target.budget(weights)
    if budget is None:
        return {path: only.form for path, (only,) in curves.items()}
    share = allocate_uniform if method.uniform else allocate
    return {path: option.form for path, option in share(curves, budget).items()}


def compress_layer(
    path: str, W: Tensor, form: LayerFormat, moments: Tensor | None
) -> tuple[Compressed, LayerReport]:
    """The compressed weight, and a report of its size and error."""
    whitening, plain = Whitening(moments), Whitening()
    weight = build_compressed(W, form, whitening)
    left = W - weight.dequantize()
    if not torch.isfinite(left).all():
        raise InputError(
            f"layer {path} cannot be stored as {form}: its weights, up to {W.abs().max():.3g}, "
            "give scales or factors that 16 bits do not hold; load the model in bfloat16, or look "
            "whether its training diverged"
        )

    def share(measure: Whitening) -> float:
        return measure.energy(left) / (measure.energy(W) or 1.0)

    return weight, LayerReport(
        path,
        (W.shape[0], W.shape[1]),
        str(form),
        form.bytes(W.shape[0], W.shape[1]),
        share(plain),
        None if moments is None else share(whitening),
    )


@dataclass(frozen=True)
class Report:
    """What compression made of a model."""

    layers: list[LayerReport]
    numbers: int
    """Of the whole model."""
    left: dict[str, int]
    """Kind of parameter -> how many numbers of it were left as they are."""

    @property
    def compressed(self) -> int:
        """Numbers in the weights that were compressed."""
        return self.numbers - sum(self.left.values())

    def __str__(self) -> str:
        return describe_shares(self.compressed, self.numbers, self.left)


def by_stack(layers: Mapping[str, Layer], reports: Sequence[LayerReport]) -> list[LayerReport]:
    """The reports, with the experts of one stack combined: bytes summed, errors averaged."""
    stacks: dict[str, list[LayerReport]] = {}
    for (path, layer), report in zip(layers.items(), reports, strict=True):
        stack = path.rpartition(".")[0] if isinstance(layer, Expert) else path
        stacks.setdefault(stack, []).append(report)
    return [
        of[0]
        if of[0].path == path
        else replace(
            of[0],
            path=path,
            form=f"{len(of)} of {' or '.join(dict.fromkeys(each.form for each in of))}",
            bytes=sum(each.bytes for each in of),
            weight_error=sum(each.weight_error for each in of) / len(of),
        )
        for path, of in stacks.items()
    ]


def describe_shares(compressed: int, numbers: int, left: Mapping[str, int]) -> str:
    """What share of a model's parameters was compressed, and what was left, in a sentence."""
    kinds = sorted(left.items(), key=lambda entry: -entry[1])
    named = ", ".join(f"{kind} {100 * count / numbers:.2f} %" for kind, count in kinds)
    return f"Compressed {100 * compressed / numbers:.2f} % of the model's {numbers:,} numbers" + (
        f"; left as they are: {named}." if named else "."
    )


@torch.no_grad()
def compress(
    model: nn.Module,
    method: str,
    batches: Iterable[Mapping[str, Any]] | None = None,
    **target: Any,
) -> Report:
    """Compress a model's linear layers and fused experts in place.

    ``method`` is a name in :data:`geodapt.compress.METHODS`; ``target`` are the fields of
    :class:`Target`, such as ``bits_per_weight=4.5``. With ``batches`` of model inputs the error is
    that of the layers' outputs on them, without it that of the weights::

        print(compress(model, "lowrank_plus_int4", batches, bits_per_weight=4.5))
        save(model, "smaller/", tokenizer)
        model = load("smaller/")

    The report lists what is left as it is (embeddings, norms, biases, the output embedding), with
    its share. Moments of all layers are held in memory; ``geodapt compress`` keeps them on disk.
    Raises :class:`InputError`, with the model as it was, for what cannot be compressed, a target
    that cannot be met, and a model that would not run afterwards.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"compress() takes a model, got {model!r:.60}; load_base(name) reads one")
    if batches is not None:
        batches = list(batches)
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise InputError(f"a batch is {batch!r:.60}; expected a model's inputs by name")
    how, goal = CompressionMethod.named(method), Target(**target)
    if how.integers:
        require_torchao()
    found = survey(model)
    layers = found.layers
    check_fits(layers, how, goal)
    moments: dict[str, Tensor] = {}
    for group in (
        moments_by_group(model, observable(layers), batches) if batches is not None else ()
    ):
        moments |= {path: seen.matrix for path, seen in group.items()}
    curves = {}
    for path, layer in track(layers.items(), "measuring layers", len(layers)):
        W = weight_of(layer)
        curves[path] = options(W, how, goal, Whitening(moments.get(path)))
    forms = choose_formats(curves, how, goal, count_weights(layers))
    weights, reports = {}, []
    for path, layer in track(layers.items(), "compressing layers", len(layers)):
        weight, report = compress_layer(path, weight_of(layer), forms[path], moments.get(path))
        weights[path] = weight
        reports.append(report)
    install_weights(model, layers, weights, next(iter(batches or ()), None))
    if isinstance(model, PreTrainedModel):
        describe_quantization(model)
    return Report(reports, found.numbers, dict(found.left))


def count_weights(layers: Mapping[str, Layer]) -> int:
    """Entries of all layers' weights."""
    return sum(math.prod(shape_of(layer)) for layer in layers.values())
