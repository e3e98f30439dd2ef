"""Many adapters into one.

Each method is a small file with a pure function on one layer's factors; :func:`merge` streams
the layers through it, one a thread, so that memory stays near a layer for each thread.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.naming import aligned
from geodapt.adapters.merging import (  # noqa: F401 - importing a method registers it
    atoms,
    cat,
    dare,
    dense_blocks,
    linear,
    magnitude,
    registry,
    svd,
    ties,
)
from geodapt.adapters.merging.additions import summed_additions
from geodapt.adapters.merging.compatible import check_compatible
from geodapt.adapters.merging.heads import carried
from geodapt.adapters.merging.layers import each_layer
from geodapt.adapters.merging.registry import METHODS, LowRank, MergeMethod
from geodapt.adapters.merging.scaling import as_it_is, normalise, restore_scale
from geodapt.adapters.merging.truncation import Truncated, cut_to_rank, relative
from geodapt.adapters.peft_files.configuration import configure
from geodapt.adapters.peft_files.factor_checks import check_values
from geodapt.adapters.peft_files.factors import Factors, level_matrices
from geodapt.checks import check_count
from geodapt.errors import InputError

__all__ = ["METHODS", "Method", "merge"]


def merge(
    adapters: Sequence[Adapter],
    method: str = "svd",
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    energy: float | None = None,
    density: float | None = None,
    tile: int | None = None,
    seed: int | None = None,
    calibration: Mapping[str, Float[Tensor, "tokens in"]] | None = None,
    same_base: bool = False,
) -> Adapter:
    """One adapter out of several; ranks, targets, alphas and rsLoRA may differ.

    Args:
        adapters: what to merge; a layer that only some of them touch merges those.
        method: a name in ``METHODS`` (``geodapt merge --list`` explains each).
        weights: one per adapter; ``1 / n`` each unless the method averages by itself.
        rank: rank of the result, for the methods that cut it; the adapters' largest by default.
        energy: instead of a rank, the share of the squared norm that each layer keeps.
        density: the share of entries or tiles that stays, for the methods that thin out.
        tile: tile size of ``dense_blocks``.
        seed: of the random choice in ``dare`` and ``dare_ties``.
        calibration: each layer's inputs for ``atoms``, see :func:`geodapt.adapters.calibrate`.
        same_base: the adapters are of one base although their configurations do not name it or
            name it differently, or they have no layer in common.

    Returns:
        An adapter on the CPU in float32 (float64 if one of them is), with the heads that its
        parts bring trained in full. ``errors`` says by layer, and ``error`` over all layers, how
        much of the merged update the cut to its rank lost, or, for ``atoms``, how far the result
        is from the weighted sum, as a relative Frobenius norm.

    Raises:
        InputError: unknown method, an option that the method does not take, weights of the
            wrong number, a rank or density out of range, an adapter that changes nothing,
            adapters of which it is not known that they belong to one base, two different
            heads of one module, or values that overflow.
    """
    chosen = registry.method(method)
    if isinstance(adapters, Adapter):
        raise InputError("merge takes a list of adapters, got one; give [one, another]")
    for adapter in adapters:
        if not isinstance(adapter, Adapter):
            raise InputError(
                f"merge takes adapters, got {adapter!r}; give bank[name] or "
                "Adapter.from_pretrained(folder)"
            )
    # What is written is for the class that the first names, or the one that brings a head.
    first = next((a for a in adapters if a.heads), adapters[0]) if adapters else None
    parts, adapters = adapters, aligned(adapters, first) if first else []
    check_compatible(adapters, same_base)
    heads = carried(adapters)
    given = {"density": density, "tile": tile, "seed": seed, "calibration": calibration}
    options = {key: value for key, value in given.items() if value is not None}
    if rank is not None and "rank" in chosen.options:
        options["rank"] = rank
    _check_options(chosen, options, rank, energy)
    shares = _weights(chosen, len(adapters), weights)
    if rank is None:
        rank = max(adapter.rank for adapter in adapters)
    else:
        _check_rank(adapters, rank)
    paths = list(dict.fromkeys(path for adapter in adapters for path in adapter.factors))
    _check_calibration(calibration, paths)
    layer = partial(_layer, adapters, chosen, shares, rank, energy, options)
    kinds = {path: kind for adapter in adapters for path, kind in adapter.kinds.items()}
    parts_of_sum = [share / len(adapters) if chosen.averages else share for share in shares]
    additions = summed_additions(adapters, parts_of_sum, kinds)
    factors, errors = {}, {}
    lost, whole = [0.0], [0.0]
    for path, result in zip(paths, each_layer(layer, paths), strict=True):
        factors[path] = Factors(result.A.contiguous(), result.B.contiguous(), 1.0)
        errors[path] = relative(result.lost, result.whole)
        lost.append(result.lost)
        whole.append(result.whole)
    assert first is not None
    copies = {name: copy for adapter in adapters for name, copy in adapter.copies.items()}
    factors = level_matrices(factors, kinds)
    sha = first.base_sha256 if first.factors.keys() == factors.keys() else None
    config = configure(factors, first, kinds)
    names = (name for adapter in adapters for name in adapter.config.modules_to_save or ())
    config.modules_to_save = list(dict.fromkeys(names)) if heads else None
    if not chosen.truncates and "rank" not in options:
        rank = None
    made = {"merged by": method, "rank": None if energy else rank, "energy": energy, **options}
    return Adapter(
        factors,
        config,
        sha,
        heads,
        kinds=kinds,
        additions=additions,
        copies=copies,
        made=_made(made, parts, shares),
        errors=errors,
        error=relative(math.hypot(*lost), math.hypot(*whole)),
    )


def _made(
    options: Mapping[str, Any], adapters: Sequence[Adapter], weights: Sequence[float]
) -> dict[str, Any]:
    """How a merged adapter was made, for its model card."""
    sources = [
        {"adapter": one.name or f"number {place}", "weight": weight, "sha256": one.sha256}
        for place, (one, weight) in enumerate(zip(adapters, weights, strict=True), 1)
    ]
    if "calibration" in options:
        tokens = max(len(inputs) for inputs in options["calibration"].values())
        options = {**options, "calibration": f"up to {tokens} inputs of each layer"}
    return {**options, "from": sources}


def _layer(
    adapters: Sequence[Adapter],
    method: MergeMethod,
    weights: Sequence[float],
    rank: int,
    energy: float | None,
    options: Mapping[str, Any],
    path: str,
) -> Truncated:
    touching = [
        (adapter.factors[path], weight)
        for adapter, weight in zip(adapters, weights, strict=True)
        if path in adapter.factors
    ]
    for factors, _ in touching:
        check_values("an adapter", {path: factors})
    parts, size = normalise(touching)
    calibration = options.get("calibration")
    if calibration is not None:
        options = {**options, "calibration": calibration[path]}
    if "seed" in method.options:
        options = {**options, "seed": layer_seed(path, options.get("seed", 0))}
    try:
        merged = method(parts, **options)
        if isinstance(merged, LowRank) and not method.truncates:
            cut = as_it_is(merged, cat.cat(parts), method.exact)
        else:
            cut = cut_to_rank(merged, rank, energy, near=cat.cat(parts))
    except torch.linalg.LinAlgError as error:
        raise InputError(f"layer {path} cannot be merged: {str(error)[:200]}") from error
    cut = restore_scale(cut, size)
    check_values("the merged adapter", {path: Factors(cut.A, cut.B)})
    return cut


def layer_seed(path: str, seed: int = 0) -> int:
    """The seed at a layer, so that other entries are chosen at each."""
    return seed + zlib.crc32(path.encode())


def _weights(method: MergeMethod, count: int, weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [1.0 if method.averages else 1 / count] * count
    if len(weights) != count:
        raise InputError(f"{len(weights)} weights for {count} adapters; give one for each")
    numbers = []
    for weight in weights:
        try:
            numbers.append(float(weight))
        except (TypeError, ValueError, OverflowError):
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise InputError(f"weight {str(weight)[:40]} is not a finite number")
    return numbers


def _check_options(
    method: MergeMethod, options: Mapping[str, Any], rank: int | None, energy: float | None
) -> None:
    for key in options:
        if key not in method.options:
            takes = [m.name for m in METHODS.values() if key in m.options]
            raise InputError(f"merge method '{method.name}' takes no {key}; {', '.join(takes)} do")
    if rank is not None and not method.truncates and "rank" not in method.options:
        raise InputError(f"merge method '{method.name}' is exact and takes no rank; svd does")
    if energy is not None:
        if not method.truncates:
            raise InputError(f"merge method '{method.name}' takes no energy share; svd does")
        if rank is not None:
            raise InputError("give a rank or an energy share, not both")
        if not 0 < energy <= 1:
            raise InputError(f"energy share {energy} is out of range; give one above 0, up to 1")
    density = options.get("density")
    if density is not None and not 0 < density <= 1:
        raise InputError(f"density {density} is out of range; give one above 0, up to 1")
    if not 0 <= options.get("seed", 0) < 2**62:
        raise InputError(f"seed {options['seed']} is out of range; give 0 or more, below 2^62")
    if options.get("tile", 1) < 1:
        raise InputError(f"tile {options['tile']} is out of range; give at least 1")


def _check_calibration(calibration: Mapping[str, Tensor] | None, paths: Sequence[str]) -> None:
    for path in paths:
        if calibration is not None and path not in calibration:
            raise InputError(f"the calibration inputs have none for layer {path}")


def _check_rank(adapters: Sequence[Adapter], rank: int) -> None:
    check_count("rank", rank)
    for adapter in adapters:
        for path, (A, B, _) in adapter.factors.items():
            largest = min(A.shape[1], B.shape[0])
            if rank > largest:
                raise InputError(
                    f"rank {rank} is more than layer {path} ({B.shape[0]} x {A.shape[1]}) can "
                    f"have; give at most {largest}"
                )
