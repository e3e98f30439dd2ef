"""Size and error of every format of one layer."""

from jaxtyping import Float
from torch import Tensor

from geodapt.compress import quantization, svd
from geodapt.compress.budget import Option, hull
from geodapt.compress.layer_format import WIDTHS, CompressionMethod, LayerFormat, groups_of
from geodapt.compress.svd import Whitening


def curve(
    W: Float[Tensor, "out in"],
    method: CompressionMethod,
    whitening: Whitening,
    group: int | None = None,
) -> list[Option]:
    """Every format that a method may give this layer, with its size and error.

    The options of ``lowrank_plus_int`` are measured without the alternation of
    :func:`geodapt.compress.compressed_tensor.build_compressed`, which then does a little better.
    """
    whole = whitening.energy(W) or 1.0  # a layer of zeros loses nothing
    if not method.integers:
        return _ranks(W, LayerFormat(), whitening, whole, least=1)
    plain = {}
    for width in [method.width] if method.width else WIDTHS:
        for size in [group] if group else groups_of(W.shape[1]):
            form = LayerFormat(width, size)
            left = W - quantization.quantise(W, form).dequantize()
            plain[form] = (left, _option(W, form, whitening.energy(left) / whole))
    options = [option for _, option in plain.values()]
    if not method.lowrank:
        return options
    # Integers that are beaten by others of their size are no better a start for a correction.
    return [
        option
        for start in hull(options)
        for option in _ranks(plain[start.form][0], start.form, whitening, whole, least=0)
    ]


def _ranks(
    W: Float[Tensor, "out in"], start: LayerFormat, whitening: Whitening, whole: float, least: int
) -> list[Option]:
    lost = (svd.lost(W, whitening) / whole).tolist()
    return [
        _option(W, LayerFormat(start.width, start.group, rank), lost[rank])
        for rank in range(least, len(lost))
    ]


def _option(W: Tensor, form: LayerFormat, error: float) -> Option:
    out_features, in_features = W.shape
    return Option(form, form.bytes(out_features, in_features), error)
