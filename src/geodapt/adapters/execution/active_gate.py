"""Which gate acts in the running thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from geodapt.adapters.execution.resolved_gate import ResolvedGate


class ActiveGate:
    """The gate of the running thread, or the one that rests where a thread has none."""

    def __init__(self, resting: ResolvedGate) -> None:
        self.resting = resting
        self._own: ContextVar[ResolvedGate | None] = ContextVar("gate", default=None)

    def __call__(self) -> ResolvedGate:
        """The gate that acts now."""
        return self._own.get() or self.resting

    @property
    def nested(self) -> bool:
        """Whether the thread has a gate of its own."""
        return self._own.get() is not None

    @contextmanager
    def under(self, gate: ResolvedGate) -> Iterator[None]:
        """Let a gate act in this thread, for the ``with`` block."""
        token = self._own.set(gate)
        try:
            yield
        finally:
            self._own.reset(token)
