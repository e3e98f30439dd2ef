"""Biases and rows of tokens, added to a layer's output under a gate."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.adapters.base_model.lowering import multiplier
from geodapt.adapters.gates import Terms
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError


class AdditionUpdate:
    """What the entries of a gate add at one module, row by row.

    A replacement counts by its difference from the base's present value, since a weight may be
    changed in place; while adapters are merged, from the value before the merge.
    """

    def __init__(self, store: AdapterStore, path: str, entries: Sequence[Terms]) -> None:
        self.store, self.path = store, path
        self.entries = list(entries[:1] if len(set(entries)) == 1 else entries)
        self._shifts: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self._places: dict[tuple[str, torch.device], Tensor] = {}
        names = dict.fromkeys(name for terms in self.entries for name, _ in terms)
        found = {name: store.adapters[name].additions.get(path) for name in names}
        self._brought = {name: each for name, each in found.items() if each is not None}

    @classmethod
    def of(
        cls, store: AdapterStore, path: str, entries: Sequence[Terms]
    ) -> "AdditionUpdate | None":
        """None where no adapter brings more than factors."""
        if any(path in store.adapters[name].additions for terms in entries for name, _ in terms):
            return cls(store, path, entries)
        return None

    def apply(self, x: Tensor, y: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows out"]:
        """The output ``y`` of input ``x`` with what the entries add to each run of rows."""
        module, n = self.store.layers[self.path].module, len(self.entries)
        shift = self._shift(module, y)
        if shift is not None:
            y = (y.reshape(n, -1, y.shape[-1]) + shift.to(y.dtype)[:, None]).view(y.shape)
        for name, addition in self._brought.items():
            if addition.tokens is None:
                continue
            weights = [dict(terms).get(name, 0.0) for terms in self.entries]
            runs = torch.tensor([i for i, w in enumerate(weights) if w], device=y.device)
            g = y.new_tensor([w for w in weights if w])[:, None, None]
            ids = addition.tokens.ids.to(y.device)
            delta = self._delta(module, addition.tokens.rows, ids).to(y.dtype)
            part = x.reshape(n, -1, x.shape[-1])[runs]
            if isinstance(module, nn.Embedding):
                rows = torch.cat([torch.zeros_like(delta[:1]), delta])
                update = g * rows[self._place(name, module, ids)[part[..., 0]]]
                y = y.reshape(n, -1, y.shape[-1]).index_add(0, runs, update).view(y.shape)
            else:
                full = y.new_zeros(*part.shape[:-1], y.shape[-1])
                full = full.index_add(-1, ids, g * (part.to(y.dtype) @ delta.T))
                y = y.reshape(n, -1, y.shape[-1]).index_add(0, runs, full).view(y.shape)
        return y

    def _shift(self, module: nn.Module, y: Tensor) -> Float[Tensor, "n out"] | None:
        """The entries' weighted sums of biases, minus the base's."""
        if all(a.bias is None and a.lora_bias is None for a in self._brought.values()):
            return None
        wide = torch.promote_types(y.dtype, torch.float32)
        key = wide, y.device
        if key not in self._shifts:
            with torch.inference_mode(False):
                self._shifts[key] = self._summed(wide, y.device)
        total, share = self._shifts[key]
        if not share.any():
            return total
        own = self.store.original(self.path, "bias")
        base = _base(module, self.path, "bias") if own is None else own
        return total - share[:, None] * base.to(total)

    def _summed(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[Float[Tensor, "n out"], Float[Tensor, " n"]]:
        """The entries' biases, and how much of the base's they stand in place of."""
        width = self.store.layers[self.path].out_features
        total = torch.zeros(len(self.entries), width, dtype=dtype, device="cpu")
        share = torch.zeros(len(self.entries), dtype=dtype, device="cpu")
        for i, terms in enumerate(self.entries):
            for name, weight in terms:
                addition = self._brought.get(name)
                if addition is not None and addition.bias is not None:
                    total[i] += weight * addition.bias.to(dtype)
                    share[i] += weight
                if addition is not None and addition.lora_bias is not None:
                    factors = self.store.adapters[name].factors[self.path]
                    total[i] += weight * factors.scaled(addition.lora_bias.to(dtype))
        return total.to(device), share.to(device)

    def _delta(
        self, module: nn.Module, rows: Float[Tensor, "k width"], ids: Int[Tensor, " k"]
    ) -> Float[Tensor, "k width"]:
        own = self.store.original(self.path, "weight")
        weight = _base(module, self.path, "weight") if own is None else own
        wide = torch.promote_types(weight.dtype, torch.float32)
        return (rows.to(weight.device, wide) - weight[ids].to(wide)) * multiplier(module)

    def _place(self, name: str, module: nn.Embedding, ids: Tensor) -> Int[Tensor, " vocabulary"]:
        """The number of each token's row, from 1; 0 for all others."""
        key = name, ids.device
        if key not in self._places:
            with torch.inference_mode(False):
                table = torch.zeros(module.num_embeddings, dtype=torch.long, device=ids.device)
                table[ids] = torch.arange(1, len(ids) + 1, device=ids.device)
                self._places[key] = table
        return self._places[key]


def _base(module: nn.Module, path: str, parameter: str) -> Tensor:
    """A parameter of the base that an addition stands in place of."""
    tensor: Tensor = getattr(module, parameter)
    if tensor.device.type == "meta":
        raise InputError(
            f"the {parameter} of {path} is offloaded, and the adapter's stands in its place; load "
            "the model without offloading"
        )
    return tensor.detach()
