"""A gate resolved against a bank: per layer, which factors act in which form."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import dropout

from geodapt.adapters import products
from geodapt.adapters.gates import Gate, Terms
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

Product = Callable[[Tensor, Tensor], Tensor]
"""``(x, y) -> y + update``."""


class Plan:
    """What a gate does at every layer. Prepared at the first use of a layer and then kept."""

    def __init__(self, bank: "AdapterBank", gate: Gate) -> None:
        self.bank, self.gate = bank, gate
        self.names = {name for terms in gate.entries for name, _ in terms}
        self.reset()

    def reset(self) -> None:
        """Forget what was prepared: an adapter changed, or the model moved."""
        self.training = self.names & self.bank.training_names
        self._layers: dict[tuple[str, torch.dtype, torch.device], Layer | None] = {}

    def apply(self, path: str, x: Tensor, y: Tensor, training: bool) -> Tensor:
        """The layer's output ``y`` with the gate's update of input ``x`` added."""
        key = (path, y.dtype, y.device)
        try:
            layer = self._layers[key]
        except KeyError:
            layer = self._layers[key] = self._prepare(path)
        if layer is None:
            return y
        return layer(x.to(y.dtype), y, training)

    def _prepare(self, path: str) -> "Layer | None":
        here = self.bank.names_at(path)
        entries = [tuple((n, w) for n, w in terms if n in here) for terms in self.gate.entries]
        return Layer(self.bank, path, entries, self.training) if any(entries) else None


class Layer:
    """One layer of a plan."""

    def __init__(
        self, bank: "AdapterBank", path: str, entries: list[Terms], training: Iterable[str]
    ) -> None:
        self.bank, self.path, self.entries = bank, path, entries
        names = {name for terms in entries for name, _ in terms}
        self.training = names & set(training)
        self.dropouts = {name: bank.dropout_of(name) for name in self.training}
        self._product: Product | None = None

    def __call__(self, x: Tensor, y: Tensor, training: bool) -> Tensor:
        count = x.numel() // x.shape[-1]
        if count % len(self.entries):
            raise InputError(
                f"the route has {len(self.entries)} entries, the batch {x.shape[0]} rows at layer "
                f"{self.path}; give one entry a row (None for the base alone)"
            )
        if training and any(self.dropouts.values()):
            return self._with_dropout(x, y)
        if self.training:  # their factors change from step to step
            return self._form(self.entries, x, y)(x, y)
        if self._product is None:
            with self.bank.lock:
                self._product = self._form(self.entries, x, y)
        return self._product(x, y)

    def _with_dropout(self, x: Tensor, y: Tensor) -> Tensor:
        """Adapters by their dropout, each set on its own drop of the input."""
        for p in sorted({0.0, *self.dropouts.values()}):
            entries = [
                tuple((n, w) for n, w in terms if self.dropouts.get(n, 0.0) == p)
                for terms in self.entries
            ]
            if any(entries):
                dropped = dropout(x, p) if p else x
                y = self._form(entries, dropped, y)(dropped, y)
        return y

    def _form(self, entries: list[Terms], x: Tensor, y: Tensor) -> Product:
        """The cheapest form for these entries; all agree to rounding."""
        distinct = list(dict.fromkeys(entries))
        if len(distinct) == 1:
            return self._shared(distinct[0], y)
        runs = [(terms, len(list(run))) for terms, run in groupby(entries)]
        if len({length for _, length in runs}) == 1:
            return self._blocks([terms for terms, _ in runs], y)
        return self._masked(entries, y)

    def _shared(self, terms: Terms, y: Tensor) -> Product:
        A, B = self._stacked([name for name, _ in terms], y)
        g = None
        if any(weight != 1 for _, weight in terms):
            g = y.new_tensor(self._weights(terms))
        return lambda x, y: products.shared(x, y, A, B, g)

    def _blocks(self, runs: list[Terms], y: Tensor) -> Product:
        groups = [[name for name, _ in terms] for terms in runs]
        if self.training:
            parts = [[self._part(name, y) for name in group] for group in groups]
            A = _pad([[a for a, _ in group] for group in parts], y)
            B = _pad([[b for _, b in group] for group in parts], y)
        else:
            A, B = (t.to(y.dtype) for t in self.bank.stack(self.path).blocks(groups))
        g = None
        if any(weight != 1 for terms in runs for _, weight in terms):
            rows = [self._weights(terms) for terms in runs]
            g = y.new_tensor([row + [0.0] * (A.shape[1] - len(row)) for row in rows])
        return lambda x, y: products.blocks(x, y, A, B, g)

    def _masked(self, entries: list[Terms], y: Tensor) -> Product:
        names = list(dict.fromkeys(name for terms in entries for name, _ in terms))
        A, B = self._stacked(names, y)
        weights = [dict(terms) for terms in entries]
        g = y.new_tensor(
            [self._weights(tuple((name, w.get(name, 0.0)) for name in names)) for w in weights]
        )
        return lambda x, y: products.masked(x, y, A, B, g)

    def _stacked(self, names: list[str], y: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of some adapters one below the other, ``(R, in)`` and ``(R, out)``."""
        if self.training & set(names):
            parts = [self._part(name, y) for name in names]
            return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
        stack = self.bank.stack(self.path)
        rows = stack.rows(names)
        return stack.A[rows].to(y.dtype), stack.B[rows].to(y.dtype)

    def _part(self, name: str, y: Tensor) -> tuple[Tensor, Tensor]:
        """One adapter's ``(r, in)`` and ``(r, out)``, through its float32 masters if it trains."""
        if name in self.training:
            A, B, scale = self.bank.masters_of(name, self.path)
            return A.to(y.dtype), (B.T * scale).to(y.dtype)
        stack = self.bank.stack(self.path)
        rows = stack.rows([name])
        return stack.A[rows].to(y.dtype), stack.B[rows].to(y.dtype)

    def _weights(self, terms: Terms) -> list[float]:
        """Every rank-one term's weight, adapter after adapter."""
        return [w for name, w in terms for _ in range(self.bank.rank_at(name, self.path))]


def _pad(groups: list[list[Tensor]], like: Tensor) -> Tensor:
    """Stack groups of rows, shorter ones filled up with zero rows."""
    width = next(part.shape[1] for group in groups for part in group)
    joined = [torch.cat(group) if group else like.new_zeros(0, width) for group in groups]
    most = max(len(rows) for rows in joined)
    return torch.stack(
        [torch.nn.functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in joined]
    )
