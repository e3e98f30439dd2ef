"""The errors of SVD and of integers at equal size, layer by layer."""

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.compress.budget import Option
from geodapt.compress.compressed_tensor import build_compressed
from geodapt.compress.error_shape import error_shape
from geodapt.compress.layer_format import CompressionMethod, LayerFormat
from geodapt.compress.rate_distortion import curve
from geodapt.compress.svd import Whitening
from geodapt.errors import InputError

KINDS = {"svd": "SVD", "int": "integers", "lowrank_plus_int": "integers and low rank"}
CORNER, BINS, POINTS = 48, 41, 60  # of the pictures


def analyse_layer(
    path: str,
    W: Float[Tensor, "out in"],
    moments: Float[Tensor, "in in"] | None,
    bits_per_weight: float,
    picture: bool = False,
) -> dict[str, Any]:
    """Error figures of one layer for each kind of compression, all within the same number of bytes.

    With moments, each kind minimises the error of the outputs. Raises :class:`InputError`
    when a kind cannot be as small.
    """
    whitening = Whitening(moments)
    found: dict[str, Any] = {"path": path, "kinds": {}}
    for kind in KINDS:
        form = _best(path, W, kind, whitening, bits_per_weight)
        weight = build_compressed(W, form, whitening)
        E = W - weight.dequantize()
        entry: dict[str, Any] = {"form": str(form), **error_shape(E, W, moments).as_dict()}
        if kind == "int":
            scale = cast(Any, weight.integers).scale
            steps = scale.to(E).repeat_interleave(form.group or 1, 1)
            entry["in_steps"] = error_shape(E / steps, W).as_dict()
        if picture:
            entry["picture"] = _picture(E)
        found["kinds"][kind] = entry
    return found


def _best(path: str, W: Tensor, kind: str, whitening: Whitening, bits: float) -> LayerFormat:
    """The format of a kind that loses least within a number of bits per weight."""
    allowed = bits * W.numel() / 8
    fitting: list[Option] = [
        option
        for option in curve(W, CompressionMethod.named(kind), whitening)
        if option.bytes <= allowed
    ]
    if not fitting:
        raise InputError(
            f"layer {path} cannot be analysed at {bits:g} bits per weight, which is too few for "
            f"{KINDS[kind]}; give --bits-per-weight 3 or more"
        )
    return min(fitting, key=lambda option: option.error).form


def _picture(E: Float[Tensor, "out in"]) -> dict[str, Any]:
    """A corner of the error, its spectrum, and a histogram, all over the error's spread."""
    std = E.std().item() or 1.0
    d = torch.linalg.svdvals(E.double())
    places = torch.linspace(0, len(d) - 1, min(POINTS, len(d))).round().long()
    shares, edges = np.histogram((E / std).numpy(), bins=BINS, range=(-5, 5), density=True)
    return {
        "corner": _digits(E[:CORNER, :CORNER] / std),
        "spectrum": {"at": places.tolist(), "d": _digits(d[places] / d.square().mean().sqrt())},
        "histogram": {
            "at": _digits(torch.from_numpy(edges[:-1] + edges[1:]) / 2),
            "density": _digits(torch.from_numpy(shares)),
        },
    }


def _digits(x: Tensor) -> Any:
    return np.round(x.double().numpy(), 4).tolist()
