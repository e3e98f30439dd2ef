"""The formats that a layer's weight can be stored in, and their sizes in bytes."""

import re
from dataclasses import dataclass

from geodapt.errors import InputError

WIDTHS = range(2, 9)
GROUPS = (16, 32, 64, 128)
"""Inputs that may share a scale; a whole row of them always may."""
WORD = 2  # bytes of a scale or of an entry of a factor


@dataclass(frozen=True, order=True)
class LayerFormat:
    """Integers, low-rank factors, or both: ``W ~ scale * codes + B A``."""

    width: int | None = None
    """Bits of an integer; none: no integers."""
    group: int | None = None
    """Inputs of a row that share a scale."""
    rank: int = 0
    """Rank of the factors; 0: no factors."""

    def bytes(self, out_features: int, in_features: int) -> int:
        """What the weight takes on disk: codes packed bit by bit, scales and factors in 16 bits.

        The scales of plain int8 rows are torchao's 32-bit ones.
        """
        size = WORD * self.rank * (out_features + in_features)
        if self.width is not None and self.group is not None:
            scales = out_features * (in_features // self.group)
            word = 2 * WORD if self.is_int8_by_rows(in_features) else WORD
            size += -(-out_features * in_features * self.width // 8) + word * scales
        return size

    def is_int8_by_rows(self, in_features: int) -> bool:
        """Whether torchao has a tensor of its own for it, with a faster product."""
        return self.width == 8 and self.group == in_features

    @classmethod
    def parse(cls, text: str) -> "LayerFormat":
        """The format that ``str`` wrote; raises :class:`InputError` for another text."""
        found = re.fullmatch(r"(?:int([2-8]) by (\d{1,9}))?(?: \+ )?(?:rank (\d{1,9}))?", text)
        width, group, rank = map(int, found.groups(default=0)) if found else (0, 0, 0)
        form = cls(width or None, group or None, rank)
        if str(form) != text or not text:
            raise InputError(f"'{text}' is no form of a compressed weight")
        return form

    def __str__(self) -> str:
        parts = []
        if self.width is not None:
            parts.append(f"int{self.width} by {self.group}")
        if self.rank:
            parts.append(f"rank {self.rank}")
        return " + ".join(parts)


def groups_of(in_features: int) -> list[int]:
    """The group sizes that divide a row, the whole row last."""
    return [*(g for g in GROUPS if g < in_features and in_features % g == 0), in_features]


@dataclass(frozen=True)
class CompressionMethod:
    """Which formats a layer may get."""

    name: str
    integers: bool
    lowrank: bool
    width: int | None = None
    """The only width; none: whichever serves best."""

    @property
    def uniform(self) -> bool:
        """Whether all layers take the same form, as torchao's own configurations do."""
        return self.integers and not self.lowrank and self.width is not None

    @classmethod
    def named(cls, name: str) -> "CompressionMethod":
        """The method of a name in :data:`METHODS`; raises :class:`InputError` for another."""
        found = re.fullmatch(r"(svd)|(lowrank_plus_)?int([2-8])?", name)
        if not found:
            raise InputError(f"no method '{name}'; there are {', '.join(METHODS)}")
        svd, lowrank, width = found.groups()
        return cls(name, not svd, bool(svd or lowrank), int(width) if width else None)


METHODS = {
    "svd": "two thin matrices per layer; their rank by a budget over all layers",
    "int8": "8-bit integers, one scale per row (any width from int2 to int8)",
    "int4": "4-bit integers, one scale per group of inputs",
    "int": "integers, width and group of each layer by a budget over all layers",
    "lowrank_plus_int4": "4-bit integers and a low-rank correction of what they lose",
    "lowrank_plus_int": "the same, with the width of the integers by the budget, too",
}
"""Name -> what it does, in a line."""
