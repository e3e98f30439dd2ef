"""DoRA: an update that rescales each row of the base's weight to a trained length.

``y = m / |W0 + s B A| * (W0 x + s B A x) + b``, with the norm over each row of ``W0 + s B A`` and
a magnitude ``m`` per output (Liu et al. 2024, equation 5). So the factors act as those of plain
LoRA do, and what the base and they give is then multiplied with one number per output.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from geodapt.adapters.base_model.sites import Site
from geodapt.adapters.gates import Terms, TopAtoms
from geodapt.adapters.peft_files.factors import Factors
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

CHUNK = 1 << 24
"""How many numbers of ``W0 + s B A`` are formed at a time."""


def row_scale(
    site: Site, weight: Tensor, factors: Factors, magnitude: Float[Tensor, "out"]
) -> Float[Tensor, "out"]:
    """``m / |W0 + s B A|`` per row, in float32 at least, where the weight is."""
    matrix = site.matrix(weight.detach())
    wide = torch.promote_types(matrix.dtype, torch.float32)
    A, B = (factor.detach().to(matrix.device, wide) for factor in (factors.A, factors.B))
    rows = max(1, CHUNK // matrix.shape[1])
    norms = [
        torch.addmm(part.to(wide), b, A, alpha=factors.scale).norm(dim=1)
        for part, b in zip(matrix.split(rows), B.split(rows), strict=True)
    ]
    return magnitude.to(matrix.device, wide) / torch.cat(norms)


def rescale_rows(
    y: Float[Tensor, "*rows out"], scales: Float[Tensor, "n out"], bias: Tensor | None
) -> Float[Tensor, "*rows out"]:
    """Every run of rows of ``W0 x + s B A x + b`` with its own scale, which spares the bias."""
    n, out = scales.shape
    by_run = scales.to(y.dtype)[:, None]
    rows = y.reshape(n, -1, out) * by_run
    if bias is not None:
        rows = rows + bias.to(y.dtype) * (1 - by_run)
    return rows.view(y.shape)


class RowScales:
    """What the rows of a gate's runs are multiplied with at one layer.

    An adapter's scale is kept until the weight changes, which is seen from the weight's product
    with a random vector: ``weight.data += ...`` leaves no other trace.
    """

    def __init__(self, bank: "AdapterBank", path: str, entries: Sequence[Terms]) -> None:
        self.bank, self.path = bank, path
        self.names = [terms[0][0] if terms else None for terms in entries]
        if len(set(self.names)) == 1:
            self.names = self.names[:1]

    @classmethod
    def of(cls, bank: "AdapterBank", path: str, entries: Sequence[Terms]) -> "RowScales | None":
        """None where no DoRA adapter acts."""
        if any(path in bank.magnitudes_of(name) for terms in entries for name, _ in terms):
            return cls(bank, path, entries)
        return None

    def apply(self, y: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows out"]:
        """The rows of ``W0 x + s B A x + b`` rescaled."""
        site = self.bank.site(self.path)
        weight = _plain(site, self.path)
        one = y.new_ones(site.out_features)
        scales = [self._of(name, site, weight) for name in self.names]
        rows = torch.stack([one if s is None else s.to(y) for s in scales])
        return rescale_rows(y, rows, getattr(site.module, "bias", None))

    def _of(self, name: str | None, site: Site, weight: Tensor) -> Tensor | None:
        magnitude = self.bank.magnitudes_of(name).get(self.path) if name else None
        if name is None or magnitude is None:
            return None
        kept = self.bank.row_scales_of(name)
        sketch = site.matrix(weight) @ _random(site.in_features, weight.dtype).to(weight.device)
        known = kept.get(self.path)
        if known is not None and known[0].device == sketch.device and torch.equal(known[0], sketch):
            return known[1]
        factors = self.bank.factors_of(name, self.path)
        with torch.inference_mode(False), torch.no_grad():
            scale = row_scale(site, weight, factors, magnitude)
        kept[self.path] = sketch, scale
        return scale


def _plain(site: Site, path: str) -> Tensor:
    """A layer's weight in floating point."""
    weight = site.weight
    if weight.device.type == "meta":
        raise InputError(
            f"layer {path} is offloaded, and a DoRA adapter needs the lengths of its weight's "
            "rows; load it onto a device"
        )
    if type(weight) is nn.Parameter and weight.is_floating_point():
        return weight.detach()
    try:
        return dequantize_module_weight(site.module).detach()
    except (AttributeError, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"layer {path} is quantized in a way that PEFT cannot turn back, and a DoRA adapter "
            "needs the lengths of its weight's rows; load the base without quantization"
        ) from error


@cache
def _random(width: int, dtype: torch.dtype) -> Float[Tensor, "width"]:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, generator=generator).to(dtype)


def check_gate(plan: "Plan") -> None:
    """Raises :class:`InputError` for a gate under which a DoRA adapter has no meaning."""
    for name in sorted(plan.names):
        path = next(iter(plan.bank.magnitudes_of(name)), None)
        if path is None:
            continue
        if isinstance(plan.gate, TopAtoms):
            raise InputError(
                f"TopAtoms chooses among rank-one terms, and '{name}' is a DoRA adapter, which "
                f"also rescales the base's weight (layer {path}); use it in a Mix or a Route"
            )
        for path in plan.bank.magnitudes_of(name):
            _check_entries(plan.bank.restrict(plan.gate.entries, path), name, path)


def _check_entries(entries: Sequence[Terms], name: str, path: str) -> None:
    for terms in entries:
        if name in dict(terms) and terms != ((name, 1.0),):
            others = [other for other, _ in terms if other != name]
            raise InputError(
                f"'{name}' is a DoRA adapter, which rescales the base's weight at layer {path}, "
                + (
                    f"so it cannot be mixed with '{others[0]}' in one row"
                    if others
                    else f"so it has no weight of {dict(terms)[name]:g}"
                )
                + "; give it weight 1 in rows of its own, or merge it into the base first"
            )
