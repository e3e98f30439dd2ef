"""Regular expressions from files: compiled within limits, matched within a time limit.

Python's ``re`` backtracks without end over nested repetitions and holds the interpreter's lock
meanwhile. ``regex`` matches within a time limit, but expands counted and nested repetitions when it
compiles, so their size is bounded first.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import regex

from geodapt.errors import InputError

SECONDS = 1.0
"""Processor time that all patterns of one configuration may take together."""
LARGEST = 300_000
"""Upper bound of a pattern's size once its repetitions are written out."""
SPECIAL = frozenset("\\^$|?*+()[]{}")
"""Characters that mean something in a regular expression; a dot is left to the caller."""


@dataclass
class TimeBudget:
    """Seconds of processor time that are left for one configuration's patterns."""

    seconds: float = field(default_factory=lambda: SECONDS)

    @contextmanager
    def spend(self, what: str) -> Iterator[None]:
        """Charge the block's time; raises :class:`InputError` when there is none left."""
        start = time.thread_time()
        try:
            yield
        except (TimeoutError, MemoryError):
            self.seconds = 0.0
        self.seconds -= time.thread_time() - start
        if self.seconds <= 0:
            raise InputError(f"{what} takes too long to match; name the layers instead")


class SafeRegex:
    """A pattern in the syntax of ``re``.

    Raises :class:`InputError` when it is invalid or too large, or when compiling and matching
    take more than what is left of the budget.
    """

    def __init__(self, pattern: str, where: str, budget: TimeBudget) -> None:
        shown = pattern if len(pattern) <= 80 else pattern[:77] + "..."
        self.name, self.budget = f"{where}: the regular expression {shown!r}", budget
        if _size(pattern) > LARGEST:
            raise InputError(f"{self.name} is too large; name the layers instead")
        if "[:" in pattern or re.search(r"(?<!\\)\{(?![\d,]*\})", pattern):
            # POSIX classes and fuzzy matches in `regex`, plain characters in `re`.
            raise InputError(f"{self.name} can be read in two ways; name the layers instead")
        try:
            with budget.spend(self.name):
                re.compile(pattern)
                self.compiled = regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise InputError(f"{self.name} is not valid: {error}") from error

    def fullmatch(self, text: str) -> bool:
        """Whether the whole text matches."""
        with self.budget.spend(self.name):
            return self.compiled.fullmatch(text, timeout=self.budget.seconds) is not None
        return False


def _size(pattern: str) -> int:
    """An upper bound of the compiled size: each count multiplies, and each nested group doubles."""
    size, depth, deepest = len(pattern), 0, 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    for counts in re.findall(r"\{[\d,]*\}", pattern):
        for count in re.findall(r"\d+", counts):
            size *= max(int(count[:9]), 1)
    return size << min(deepest, 30)
