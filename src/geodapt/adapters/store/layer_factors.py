"""The factors at one layer, ready to multiply with."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.gates import Terms
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.adapters.store.factors import Stack


@dataclass(frozen=True)
class LayerFactors:
    """The factors of adapters at one layer, in the type and on the device of ``like``.

    Their scales are in B, whose rows are the columns of the update.
    """

    store: AdapterStore
    path: str
    training: Collection[str]
    """The adapters whose factors are their float32 masters, so that gradients reach them."""
    like: Tensor
    atoms: bool = False
    """Whether the factors are those of the singular value decomposition, for TopAtoms."""

    @property
    def width(self) -> int:
        """``in_features + out_features``."""
        site = self.store.layers[self.path]
        return site.in_features + site.out_features

    def ranks(self, terms: Terms) -> list[int]:
        """The rank of each adapter of a weighted sum."""
        adapters, path = self.store.adapters, self.path
        return [adapters[name].factors[path].rank for name, _ in terms]

    def rank(self, terms: Terms) -> int:
        """The rank of a weighted sum."""
        return sum(self.ranks(terms))

    def weights(self, terms: Terms) -> list[float]:
        """Every rank-one term's weight, adapter after adapter."""
        ranks = self.ranks(terms)
        return [w for (_, w), rank in zip(terms, ranks, strict=True) for _ in range(rank)]

    def stacked(
        self, names: list[str]
    ) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
        """The factors of some adapters one below the other."""
        if self.training:
            parts = [self._part(name) for name in names]
            return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
        stack = self.stack(names)
        rows = stack.rows(names)
        return stack.A[rows].to(self.like.dtype), stack.B[rows].to(self.like.dtype)

    def batched(
        self, groups: list[list[str]]
    ) -> tuple[Float[Tensor, "n rank in"], Float[Tensor, "n rank out"]]:
        """The factors of several groups of adapters, padded with zeros to the largest."""
        if self.training:
            parts = [[self._part(name) for name in group] for group in groups]
            A = _pad([[a for a, _ in group] for group in parts])
            return A, _pad([[b for _, b in group] for group in parts])
        names = [name for group in groups for name in group]
        A, B = self.stack(names).blocks(groups)
        return A.to(self.like.dtype), B.to(self.like.dtype)

    def stack(self, names: Collection[str]) -> Stack:
        """The whole stack of the layer, with these adapters in it.

        Its factors are in the type of ``like`` where they are :attr:`stacked_alike`.
        """
        return self.store.stack(self.path, names, self.like, self.atoms)

    @property
    def stacked_alike(self) -> bool:
        """Whether the stack is read as it lies: nothing trains, and its type is ``like``'s."""
        return not self.training and self.store.stacked_type(self.path) == self.like.dtype

    def _part(self, name: str) -> tuple[Tensor, Tensor]:
        """One adapter's factors, through its float32 masters if it trains."""
        if name in self.training:
            A, B, _ = self.store.master_factors(name, self.path).folded()
            return A.to(self.like), B.T.to(self.like)
        stack = self.store.stack(self.path, [name], self.like)
        rows = stack.rows([name])
        return stack.A[rows].to(self.like.dtype), stack.B[rows].to(self.like.dtype)


def _pad(groups: list[list[Tensor]]) -> Tensor:
    """Stack groups of rows, padding shorter ones with zero rows."""
    some = next(part for group in groups for part in group)
    joined = [torch.cat(group) if group else some[:0] for group in groups]
    most = max(len(rows) for rows in joined)
    return torch.stack(
        [torch.nn.functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in joined]
    )
