"""DoRA: an update that rescales each row of the base's weight to a trained length.

``y = m / |W0 + s B A| * (W0 x + s B A x) + b``, with the norm over each row of ``W0 + s B A`` and
a magnitude ``m`` per output (Liu et al. 2024, equation 5). So the factors act as those of plain
LoRA do, and what the base and they give is then multiplied with one number per output.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.base_model.sites import Site
from geodapt.adapters.gates import Terms
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.adapters.store.base_weights import plain_weight, row_scale, weight_sketch


def rescale_rows(
    y: Float[Tensor, "*rows out"], scales: Float[Tensor, "n out"], bias: Tensor | None
) -> Float[Tensor, "*rows out"]:
    """``W0 x + s B A x + b`` with each run of rows scaled by its own factor, without the bias."""
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

    def __init__(self, store: AdapterStore, path: str, entries: Sequence[Terms]) -> None:
        self.store, self.path = store, path
        self.names = [terms[0][0] if terms else None for terms in entries]
        if len(set(self.names)) == 1:
            self.names = self.names[:1]

    @classmethod
    def of(cls, store: AdapterStore, path: str, entries: Sequence[Terms]) -> "RowScales | None":
        """None where no DoRA adapter acts."""
        if any(path in store.adapters[name].magnitudes for terms in entries for name, _ in terms):
            return cls(store, path, entries)
        return None

    def apply(self, y: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows out"]:
        """The rows of ``W0 x + s B A x + b`` rescaled."""
        site = self.store.layers[self.path]
        weight = plain_weight(site, self.path)
        one = y.new_ones(site.out_features)
        scales = [self._of(name, site, weight) for name in self.names]
        rows = torch.stack([one if s is None else s.to(y) for s in scales])
        return rescale_rows(y, rows, getattr(site.module, "bias", None))

    def _of(self, name: str | None, site: Site, weight: Tensor) -> Tensor | None:
        magnitude = self.store.adapters[name].magnitudes.get(self.path) if name else None
        if name is None or magnitude is None:
            return None
        adapter = self.store.adapters[name]
        kept = self.store.row_scales.setdefault(adapter, {})
        sketch = weight_sketch(site.matrix(weight))
        known = kept.get(self.path)
        if known is not None and known[0].device == sketch.device and torch.equal(known[0], sketch):
            return known[1]
        factors = adapter.factors[self.path]
        with torch.inference_mode(False), torch.no_grad():
            scale = row_scale(site, weight, factors, magnitude)
        kept[self.path] = sketch, scale
        return scale
