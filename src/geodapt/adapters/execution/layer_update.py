"""What a resolved gate does at one layer."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from geodapt.adapters.base_model.lowering import lowering_of
from geodapt.adapters.execution.addition_update import AdditionUpdate
from geodapt.adapters.execution.costs import work_of
from geodapt.adapters.execution.dora import RowScales
from geodapt.adapters.execution.layer_entries import LayerEntries
from geodapt.adapters.execution.row_layout import Place
from geodapt.adapters.execution.strategy import Strategy
from geodapt.adapters.gates import Terms
from geodapt.adapters.store.adapter_store import AdapterStore, outside_inference
from geodapt.adapters.store.base_weights import weight_sketch
from geodapt.adapters.store.layer_factors import LayerFactors

LOOK = 16
"""Reading a weight once, to see whether it changed, costs about as much as this many tokens."""


class LayerUpdate:
    """The update that a gate adds to the output of one layer."""

    def __init__(self, store: AdapterStore, path: str, entries: LayerEntries) -> None:
        """``entries`` are the gate's at this layer, and maybe at others."""
        self.store, self.path, self._shared = store, path, entries
        self.entries, self._factors = entries.entries, entries.factors
        self.tells_rows_apart, self.training = entries.tells_rows_apart, entries.training
        self._chosen: dict[tuple[torch.dtype, torch.device, int], Strategy] = {}
        """The strategy by type, device and number of tokens per row (its magnitude)."""
        self._lower = lowering_of(store.layers[path].module)
        self._scales = RowScales.of(store, path, self._factors) if entries.more else None
        self._additions = AdditionUpdate.of(store, path, self.entries) if entries.more else None
        self._mergeable = entries.alike and self._may_merge()
        self._tokens = 0  # rows for which a sum of many adapters was computed in factors
        self.merged: tuple[Tensor, Tensor] | None = None
        """The weight with the update in it, where that is cheaper, and a mark of the base's."""

    def run(
        self, layer: nn.Module, base: Callable[[Tensor], Tensor], x: Tensor, place: Place
    ) -> Tensor:
        """The layer's output with the update; ``base`` computes it without."""
        own = getattr(base, "func", None) is nn.Linear.forward  # not another library's wrapper
        weight = self._merged_weight(layer, x) if own else None
        if weight is not None:
            return linear(x, weight, layer.bias)  # type: ignore[arg-type]
        return self.add(x, base(x), layer.training, place)

    def add(self, x: Tensor, y: Tensor, training: bool, place: Place) -> Tensor:
        """The base layer's output ``y`` with the update of input ``x`` added.

        ``place`` finds the rows in ``x`` where they have different adapters.
        """
        if not x.numel():  # such as an expert without tokens
            return y
        if self._lower is not None:
            x, y, restore = self._lower(x, y)
            return restore(self._add_rows(x, y, training, place))
        return self._add_rows(x.to(y.dtype), y, training, place)

    def _add_rows(self, x: Tensor, y: Tensor, training: bool, place: Place) -> Tensor:
        """The same for a linear layer's input, or one that was made into such."""
        if not self.tells_rows_apart:
            return self._add(x, y, training)
        layout, rows = place(self.path, x)
        first = layout.rows_first(y, rows)
        return layout.put_back(self._add(layout.rows_first(x, rows), first, training), y)

    def _add(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        """The same with the rows in the first dimension, where they matter."""
        if self._shared.any_factors:
            dropping = training and any(self._shared.dropouts.values())
            y = self._add_with_dropout(x, y) if dropping else self._strategy(x, y)(x, y)
        if self._scales is not None:
            y = self._scales.apply(y)
        return y if self._additions is None else self._additions.apply(x, y)

    def _strategy(self, x: Tensor, y: Tensor) -> Strategy:
        if self.training:  # their factors change from step to step
            return self._make(self._factors, x, y)
        # Which one is cheapest depends on the number of tokens per row, by its magnitude.
        each = x.numel() // x.shape[-1] // len(self._factors)
        key = (y.dtype, y.device, each.bit_length() if len(self._factors) > 1 else 0)
        chosen = self._chosen.get(key)
        if chosen is None:
            with self.store.lock:
                chosen = self._chosen[key] = self._choose(x, y)
        return chosen

    def _choose(self, x: Tensor, y: Tensor) -> Strategy:
        """The cheapest strategy, of adapters that do not train."""
        tables, top = self._shared.tables, self._shared.top
        if y.device.type == "meta":
            return self._make(self._factors, x, y)
        stack = self.store.stack(self.path, tables.names, y, atoms=top is not None)
        tokens = x.numel() // x.shape[-1]
        kind = (stack.layout, tokens, stack.A.dtype, y.dtype, y.device)
        work = tables.work.get(kind)
        if work is None:
            work = tables.work[kind] = work_of(self._source(y), self._factors, tokens)
        name = work.least(stack.width)
        if name == "indexed":
            return Strategy.indexed(stack, tables, partial(self._source, stack.A))
        for (dtype, device, _), made in self._chosen.items():
            if made.name == name and dtype == y.dtype and device == y.device:
                return made
        # A strategy made in inference mode could not be used in training.
        with outside_inference():
            return Strategy.make(name, self._source(y), self._factors, top)

    def _make(self, entries: list[Terms], x: Tensor, y: Tensor) -> Strategy:
        """A strategy for the present factors."""
        source = self._source(y)
        name = Strategy.cheapest(source, entries, x.numel() // x.shape[-1])
        return Strategy.make(name, source, entries, self._shared.top)

    def _source(self, like: Tensor) -> LayerFactors:
        atoms = self._shared.top is not None
        return LayerFactors(self.store, self.path, self.training, like, atoms)

    def _add_with_dropout(self, x: Tensor, y: Tensor) -> Tensor:
        """The update with dropout: adapters are grouped by their rate, and each group gets its own
        mask."""
        for p in sorted({0.0, *self._shared.dropouts.values()}):
            entries = [
                tuple((n, w) for n, w in terms if self._shared.dropouts.get(n, 0.0) == p)
                for terms in self._factors
            ]
            if any(entries):
                dropped = dropout(x, p) if p and x.is_floating_point() else x
                y = self._make(entries, dropped, y)(dropped, y)
        return y

    def _may_merge(self) -> bool:
        """Whether there is one constant sum, whose factors cost more than half of the layer."""
        if self.training or self._shared.top is not None:
            return False
        if self._scales is not None or self._additions is not None:
            return False
        site, adapters = self.store.layers[self.path], self.store.adapters
        rank = sum(adapters[name].factors[self.path].rank for name, _ in self._factors[0])
        width, out = site.in_features, site.out_features
        return 2 * rank * (width + out) >= width * out

    def _merged_weight(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """``W0 + sum of the updates`` where that is cheaper than the factors.

        A constant sum whose factors cost more than half of the layer itself is formed once its
        factors have cost as much as forming it. Only where the base does not train, and in float32
        and wider, where adding the update to the weight does not round it away. Whether the weight
        is still the one that it was formed of is seen from its product with a random vector: a
        weight may be changed in ways that leave no trace (``weight.data += ...``).
        """
        if not self._mergeable:
            return None
        weight = layer.weight
        if (
            type(weight) is not nn.Parameter
            or type(layer) is not nn.Linear
            or weight.dtype not in (torch.float32, torch.float64)
            or weight.dtype != x.dtype
            or weight.device.type != "cpu"  # comparing would make other devices wait
            or x.device != weight.device
            or hasattr(layer, "_hf_hook")  # accelerate's: the weight comes and goes
            or torch.is_autocast_enabled(x.device.type)
            or (weight.requires_grad and torch.is_grad_enabled())  # the base itself trains
        ):
            return None
        out, width = weight.shape
        tokens = x.numel() // width
        if tokens < LOOK:
            return None
        with torch.inference_mode(False), torch.no_grad():
            sketch = weight_sketch(weight)
        if self.merged is not None and torch.equal(self.merged[1], sketch):
            return self.merged[0]
        self._tokens += tokens
        if self._tokens * (width + out) < width * out:
            return None
        with self.store.lock, torch.inference_mode(False), torch.no_grad():
            source = self._source(weight)
            A, B = source.stacked([name for name, _ in self.entries[0]])
            g = weight.new_tensor(source.weights(self.entries[0]))
            merged = torch.addmm(weight, (B * g[:, None]).T, A)
        self.merged = merged, sketch
        return merged
