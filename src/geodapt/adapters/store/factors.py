"""One layer's adapters, stacked: all rows of A in one matrix, all columns of B in another."""

from collections.abc import Collection, Iterable
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.adapters.lowrank import rank_one_terms
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.store.layout import EMPTY, Span


class Stack:
    """``A (R, in)`` and ``B (R, out)`` over the adapters that are resident at one layer.

    Row ``i`` of ``B`` is the column of the adapter's B that belongs to row ``i`` of ``A``, times
    the adapter's scale. Row 0 is zero and pads adapters of unequal rank. An adapter occupies
    consecutive rows; the rows of a dropped adapter are used again.

    Rows in use are never written, and growing makes new tensors, so that readers in other
    threads need no lock as long as their adapters stay.
    """

    def __init__(
        self, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.A: Float[Tensor, "rows in_features"] = torch.zeros(
            1, in_features, dtype=dtype, device=device
        )
        self.B: Float[Tensor, "rows out_features"] = torch.zeros(
            1, out_features, dtype=dtype, device=device
        )
        self.layout = EMPTY

    @property
    def width(self) -> int:
        """``in_features + out_features``."""
        return self.A.shape[1] + self.B.shape[1]

    @property
    def spans(self) -> dict[str, Span]:
        """Where each adapter begins, and its rank."""
        return self.layout.spans

    def put(
        self,
        name: str,
        A: Float[Tensor, "rank in_features"],
        B: Float[Tensor, "rank out_features"],
    ) -> None:
        """Add an adapter's rows."""
        layout = self.layout.put(name, A.shape[0])
        more = layout.rows - self.layout.rows
        if more:
            self.A = torch.cat([self.A, self.A.new_zeros(more, self.A.shape[1])])
            self.B = torch.cat([self.B, self.B.new_zeros(more, self.B.shape[1])])
        start, rank = layout.spans[name]
        # Through .data: other adapters' rows may wait for a backward pass, and they do not change.
        self.A.data[start : start + rank] = A
        self.B.data[start : start + rank] = B
        self.layout = layout

    def drop(self, name: str) -> None:
        """Give an adapter's rows back."""
        self.layout = self.layout.drop(name)

    def move(self, device: torch.device) -> None:
        """Go to where the layer went."""
        self.A, self.B = self.A.to(device), self.B.to(device)

    def rows(self, names: list[str]) -> slice | Int[Tensor, "rows"]:
        """The rows of some adapters in order: a slice where they lie side by side."""
        spans = [self.spans[name] for name in names]
        if all(sum(a) == b[0] for a, b in pairwise(spans)):
            return slice(spans[0][0], sum(spans[-1]))
        return torch.tensor(
            [row for start, rank in spans for row in range(start, start + rank)],
            device=self.A.device,
        )

    def blocks(self, groups: list[list[str]]) -> tuple[Tensor, Tensor]:
        """``(n, r, in)`` and ``(n, r, out)``: every group's rows, padded to the largest with zeros.

        A view, without a copy, where the groups have one size and lie side by side.
        """
        spans = [[self.spans[name] for name in group] for group in groups]
        sizes = {sum(rank for _, rank in group) for group in spans}
        if len(sizes) == 1:
            rows = self.rows([name for group in groups for name in group])
            return (
                self.A[rows].view(len(groups), -1, self.A.shape[1]),
                self.B[rows].view(len(groups), -1, self.B.shape[1]),
            )
        widest = max(sizes)
        index = torch.zeros(len(groups), widest, dtype=torch.long, device="cpu")
        for i, group in enumerate(spans):
            ours = [row for start, rank in group for row in range(start, start + rank)]
            index[i, : len(ours)] = torch.tensor(ours, dtype=torch.long, device="cpu")
        index = index.to(self.A.device)
        return self.A[index], self.B[index]


class StackedLayer:
    """A layer's adapters stacked as factors, and as atoms once somebody asks for them."""

    def __init__(
        self, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._sizes = in_features, out_features
        self._factors: dict[str, Factors] = {}
        self._start(dtype, device)

    @property
    def dtype(self) -> torch.dtype:
        """The type that the factors are stacked in."""
        return self._plain.A.dtype

    def put(self, name: str, factors: Factors) -> None:
        """Add an adapter, or replace it."""
        if name in self._factors:
            self.drop(name)
        self._factors[name] = factors
        A, B, _ = factors.folded()
        self._plain.put(name, A, B.T)

    def lacks(self, names: Collection[str]) -> frozenset[str]:
        """Those of the names whose factors are not here."""
        return frozenset(names).difference(self._factors)

    def drop(self, name: str) -> None:
        """Take an adapter off."""
        del self._factors[name]
        for stack in (self._plain, self._atoms):
            if name in stack.spans:
                stack.drop(name)

    def get(self, like: Tensor, names: Iterable[str], as_atoms: bool) -> Stack:
        """The stack with these adapters in it, on the device of ``like`` and in no narrower type.

        A layer may compute in a wider type than that of its weight, as quantized ones do; then
        the factors are stacked anew from what was loaded.
        """
        if like.device.type == "meta":  # for shapes; what lies on a device stays there
            shapes = StackedLayer(*self._sizes, like.dtype, like.device)
            for name, factors in self._factors.items():
                shapes.put(name, factors)
            return shapes._plain
        if like.dtype != self.dtype:
            wide = torch.promote_types(self.dtype, like.dtype)
            if wide != self.dtype:
                self._start(wide, like.device)
        stack = self._atoms if as_atoms else self._plain
        if stack.A.device != like.device:
            stack.move(like.device)
        if as_atoms:
            for name in names:
                if name not in stack.spans:
                    factors = self._factors[name]
                    wide = torch.promote_types(stack.A.dtype, torch.float32)
                    A, B, _ = factors._replace(A=factors.A.to(wide), B=factors.B.to(wide)).folded()
                    terms = rank_one_terms(B, A)
                    stack.put(name, *_padded(*terms, rank=A.shape[0]))
        return stack

    def _start(self, dtype: torch.dtype, device: torch.device) -> None:
        self._plain = Stack(*self._sizes, dtype, device)
        self._atoms = Stack(*self._sizes, dtype, device)
        factors, self._factors = self._factors, {}
        for name, each in factors.items():
            self.put(name, each)


def _padded(A: Tensor, B: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """As many rows as the rank; a rank above the layer's width has fewer atoms."""
    more = (0, 0, 0, rank - A.shape[0])
    return torch.nn.functional.pad(A, more), torch.nn.functional.pad(B, more)
