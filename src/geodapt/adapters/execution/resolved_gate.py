"""A gate resolved against a bank: per layer, which factors act, and in which form."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from geodapt.adapters.base_model.lowering import lowering_of
from geodapt.adapters.execution.addition_update import AdditionUpdate
from geodapt.adapters.execution.dora import RowScales, check_gate
from geodapt.adapters.execution.parameters import ParameterUpdate
from geodapt.adapters.execution.strategy import LayerFactors, Strategy
from geodapt.adapters.gates import Gate, Mix, Route, Terms, TopAtoms, names_of
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

LOOK = 16
"""Reading a weight once, to see whether it changed, costs about as much as so many tokens."""
Product = Callable[[Tensor, Tensor], Tensor]
"""``(x, y) -> y + update``."""


class ResolvedGate:
    """What a gate does at every layer. Prepared at the first use of a layer and then kept."""

    looks = False
    """Whether the model runs only to see whose the inputs of its layers are."""

    def __init__(self, bank: "AdapterBank", gate: Gate) -> None:
        self.bank, self.gate = bank, gate
        self.names = names_of(gate)
        within = gate.of if isinstance(gate, TopAtoms) else gate
        self.routes = within if isinstance(within, Route) else None
        self.per_sequence = isinstance(gate, TopAtoms) and gate.per == "sequence"
        self.needs_rows = self.routes is not None or self.per_sequence
        self.tells_rows_apart = len(set(gate.entries)) > 1 or self.per_sequence
        self.reset()

    def reset(self) -> None:
        """Forget what was prepared: an adapter changed, or the model moved."""
        self.training = self.names & self.bank.training_names
        self._steps: dict[str, LayerUpdate | None] = {}
        self._parameters: dict[str, ParameterUpdate] = {}
        check_gate(self)
        self.parts: list[tuple[ResolvedGate, int]] | None = None  # made where rows must run apart
        self._alone: dict[Terms, ResolvedGate] = {}
        if self.training and isinstance(self.gate, TopAtoms):
            raise InputError(
                f"TopAtoms acts on frozen adapters, and '{min(self.training)}' is training; "
                "call train_only() first"
            )

    def alone(self, terms: Terms) -> "Plan":
        """What the gate does to rows with these terms, when they run by themselves."""
        if terms not in self._alone:
            mix, top = Mix(dict(terms)), self.gate
            gate = TopAtoms(top.keep, mix, top.per) if isinstance(top, TopAtoms) else mix
            self._alone[terms] = ResolvedGate(self.bank, gate)
        return self._alone[terms]

    def run(
        self, path: str, layer: nn.Module, base: Callable[[Tensor], Tensor], x: Tensor
    ) -> Tensor:
        """The layer's output under the gate; ``base`` computes it without."""
        step = self.step(path)
        return base(x) if step is None else step.run(layer, base, x)

    def note(self, path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Write down what a layer gets, where the plan :attr:`looks`."""

    def record(self, path: str, x: Tensor) -> None:
        """The same of any module."""

    def step(self, path: str) -> "Step | None":
        """What happens at a layer; None where no adapter acts."""
        try:
            return self._steps[path]
        except KeyError:
            entries = self.bank.restrict(self.gate.entries, path)
            step = LayerUpdate(self, path, entries) if any(entries) else None
            self._steps[path] = step
            return step

    def parameter(self, path: str) -> ParameterUpdate:
        """What happens to a parameter that its module uses by itself."""
        if path not in self._parameters:
            self._parameters[path] = ParameterUpdate(self, path, self.bank.parameter(path))
        return self._parameters[path]


class LayerUpdate:
    """One layer of a plan."""

    def __init__(self, plan: ResolvedGate, path: str, entries: list[Terms]) -> None:
        self.bank, self.gate, self.path, self.entries = plan.bank, plan.gate, path, entries
        self.plan = plan
        self.tells_rows_apart = len(set(entries)) > 1 or plan.per_sequence
        names = {name for terms in entries for name, _ in terms}
        self.training = names & plan.training
        self.dropouts = {name: self.bank.dropout_of(name) for name in self.training}
        self._forms: dict[tuple[torch.dtype, torch.device, int], Strategy] = {}  # by sort of input
        self._made: dict[tuple[torch.dtype, torch.device, str], Strategy] = {}
        self._lower = lowering_of(self.bank.site(path).module)
        self._factors = self.bank.with_factors(entries, path)
        self._scales = RowScales.of(self.bank, path, self._factors)
        self._additions = AdditionUpdate.of(self.bank, path, entries)
        self._tokens = 0  # rows that a sum of many adapters was computed for in factors
        self._merged: tuple[Tensor, Tensor] | None = None

    def run(self, layer: nn.Module, base: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        weight = self._merged_weight(layer, x)
        if weight is not None:
            return linear(x, weight, layer.bias)  # type: ignore[arg-type]
        return self.add(x, base(x), layer.training)

    def add(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        """The base layer's output ``y`` with the update of input ``x`` added."""
        if self._lower is not None:
            x, y, restore = self._lower(x, y)
            return restore(self._add_rows(x, y, training))
        return self._add_rows(x.to(y.dtype), y, training)

    def _add_rows(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        """The same for a linear layer's input, or one that was made into such."""
        if not self.tells_rows_apart:
            return self._add(x, y, training)
        layout, rows = self.bank.rows.place(self.path, x, self.plan)
        first = layout.rows_first(y, rows)
        return layout.put_back(self._add(layout.rows_first(x, rows), first, training), y)

    def _add(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        """The same with the rows in the first dimension, where they matter."""
        if any(self._factors):
            y = self._add_update(x, y, training)
        if self._scales is not None:
            y = self._scales.apply(y)
        return y if self._additions is None else self._additions.apply(x, y)

    def _add_update(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        if training and any(self.dropouts.values()):
            return self._add_with_dropout(x, y)
        if self.training:  # their factors change from step to step
            return self._form(self._factors, x, y)(x, y)
        # Which form is cheapest depends on the number of tokens a row, by its magnitude.
        each = x.numel() // x.shape[-1] // len(self._factors)
        key = (y.dtype, y.device, each.bit_length() if len(self._factors) > 1 else 0)
        form = self._forms.get(key)
        if form is None:
            # A form made in inference mode could not be used in training.
            with self.bank.lock, torch.inference_mode(False):
                form = self._forms[key] = self._form(self._factors, x, y, self._made)
        return form(x, y)

    def _form(
        self, entries: list[Terms], x: Tensor, y: Tensor, made: dict | None = None
    ) -> Strategy:
        source = LayerFactors(
            self.bank, self.path, self.training, y, isinstance(self.gate, TopAtoms)
        )
        top = self.gate if isinstance(self.gate, TopAtoms) else None
        name = Strategy.cheapest(source, entries, x.numel() // x.shape[-1])
        if made is None:
            return Strategy.make(name, source, entries, top)
        key = (y.dtype, y.device, name)
        if key not in made:
            made[key] = Strategy.make(name, source, entries, top)
        return made[key]

    def _add_with_dropout(self, x: Tensor, y: Tensor) -> Tensor:
        """Adapters by their dropout, each set on its own drop of the input."""
        for p in sorted({0.0, *self.dropouts.values()}):
            entries = [
                tuple((n, w) for n, w in terms if self.dropouts.get(n, 0.0) == p)
                for terms in self._factors
            ]
            if any(entries):
                dropped = dropout(x, p) if p and x.is_floating_point() else x
                y = self._form(entries, dropped, y)(dropped, y)
        return y

    def _merged_weight(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """``W0 + sum of the updates`` where that is cheaper than the factors.

        A constant sum whose factors cost more than half of the layer itself is formed once its
        factors have cost as much as forming it. Only in float32 and wider, where adding the
        update to the weight does not round it away. Whether the weight is still the one that it
        was formed of is seen from its product with a random vector: a weight may be changed in
        ways that leave no trace (``weight.data += ...``).
        """
        if len(set(self.entries)) > 1 or self.training or isinstance(self.gate, TopAtoms):
            return None
        if self._scales is not None or self._additions is not None:
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
        ):
            return None
        out, width = weight.shape
        tokens = x.numel() // width
        rank = sum(self.bank.rank_at(name, self.path) for name, _ in self.entries[0])
        if 2 * rank * (width + out) < width * out or tokens < LOOK:
            return None
        with torch.inference_mode(False), torch.no_grad():
            sketch = weight @ _random(width, weight.dtype)
        if self._merged is not None and torch.equal(self._merged[1], sketch):
            return self._merged[0]
        self._tokens += tokens
        if self._tokens * (width + out) < width * out:
            return None
        with self.bank.lock, torch.inference_mode(False), torch.no_grad():
            source = LayerFactors(self.bank, self.path, frozenset(), weight, atoms=False)
            A, B = source.stacked([name for name, _ in self.entries[0]])
            g = weight.new_tensor(source.weights(self.entries[0]))
            merged = torch.addmm(weight, (B * g[:, None]).T, A)
        self._merged = merged, sketch
        return merged


@cache
def _random(width: int, dtype: torch.dtype) -> Float[Tensor, "width"]:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, generator=generator, dtype=dtype)
