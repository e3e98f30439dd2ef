"""Which gate acts in the running thread."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from threading import Lock

import torch

from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.errors import InputError


class ActiveGate:
    """The gate of the running thread, or the one that rests where a thread has none."""

    def __init__(self, resting: ResolvedGate) -> None:
        self.resting = resting
        self.chosen = False
        """Whether the user said which gate rests."""
        self._own: ContextVar[ResolvedGate | None] = ContextVar("gate", default=None)
        self._open, self._lock = 0, Lock()

    def __call__(self) -> ResolvedGate:
        """The gate that acts now.

        Raises :class:`InputError` where it would be none, and is probably meant to be another.
        """
        own = self._own.get()
        if own is not None:
            return own
        if not self.resting.names:
            self._check_meant()
        return self.resting

    @property
    def now(self) -> ResolvedGate:
        """The gate that acts now, meant or not."""
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

    @contextmanager
    def opened(self, gate: ResolvedGate) -> Iterator[None]:
        """The same for a block of the user's, which may be left elsewhere than it was entered.

        Raises :class:`InputError` when blocks end in another order than they nest in.
        """
        token = self._own.set(gate)
        with self._lock:
            self._open += 1
        try:
            yield
        except BaseException:
            self._end(gate, token)
            raise
        if not self._end(gate, token):
            raise InputError(
                f"the block of {gate.gate} ended while another one was open, or in another "
                "context than it began in, as generators that hold a bank.use across their yields "
                "do: what ran meanwhile may have run under the other's gate. Open bank.use inside "
                "of each step, or call what runs later through bank.bind(function)"
            )

    def _end(self, gate: ResolvedGate, token: Token) -> bool:
        """End a block; whether it was this context's innermost."""
        innermost = self._own.get() is gate
        with self._lock:
            self._open -= 1
        with suppress(ValueError):  # of another context, whose gate is not this one's to change
            self._own.reset(token)
        return innermost

    def _check_meant(self) -> None:
        if self._open and not self.chosen:
            raise InputError(
                "this thread is under no gate, while a bank.use is open in another one, from which "
                "threads, executors and callbacks inherit nothing; run the work as "
                "bank.bind(function), made inside of the block, or under bank.use(Off()) for the "
                "base alone"
            )
        if self.resting.store.training and torch._C._current_graph_task_id() >= 0:
            raise InputError(
                "a backward pass runs a part of the model again (checkpointing) after the forward "
                "pass's gate ended, so that the adapters would get no gradients; checkpoint "
                "bank.bind(block) instead of the block, or use bank.set"
            )
