"""Who comes next: first in, first out, with a bound on being overtaken."""

import time
from collections import deque
from collections.abc import Callable, Collection

from geodapt.serve.generation import EngineSettings
from geodapt.serve.tickets import Ticket


class Scheduler:
    """The requests that wait.

    A request whose adapters find no place on the device is overtaken by requests that find one,
    but for at most ``overtaken_seconds``: then no other that needs adapters is admitted before
    it, so that places become free. Requests for the base alone need none and never wait for them.
    """

    def __init__(
        self,
        settings: EngineSettings,
        capacity: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.capacity, self._clock = settings, capacity, clock
        self._waiting: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ticket: Ticket) -> None:
        """Put a request at the end."""
        self._waiting.append(ticket)

    def clear(self) -> list[Ticket]:
        """Take out all of them."""
        tickets, self._waiting = list(self._waiting), deque()
        return tickets

    def take_cancelled(self) -> list[Ticket]:
        """Take out those that were cancelled."""
        gone = [ticket for ticket in self._waiting if ticket.cancelled]
        if gone:
            self._waiting = deque(t for t in self._waiting if not t.cancelled)
        return gone

    def wants(self, name: str) -> bool:
        """Whether a waiting request uses an adapter."""
        return any(name in ticket.adapters for ticket in self._waiting)

    def admit(self, running: Collection[Ticket]) -> list[Ticket]:
        """Take out those that may run now beside these, in order."""
        admitted: list[Ticket] = []
        rows = list(running)
        held = {name for ticket in rows for name in ticket.adapters}
        closed = False  # to everything that needs adapters
        for ticket in list(self._waiting):
            if len(rows) >= self.settings.slots or not self._caches_fit([*rows, ticket]):
                break
            if ticket.adapters:
                if closed:
                    continue
                if self.capacity is not None and len(held | ticket.adapters) > self.capacity:
                    now = self._clock()
                    if ticket.blocked_since is None:
                        ticket.blocked_since = now
                    closed = now - ticket.blocked_since >= self.settings.overtaken_seconds
                    continue
            held |= ticket.adapters
            rows.append(ticket)
            admitted.append(ticket)
        if admitted:
            chosen = set(admitted)
            self._waiting = deque(t for t in self._waiting if t not in chosen)
        return admitted

    def _caches_fit(self, rows: list[Ticket]) -> bool:
        """Whether the caches stay within the budget, however long the answers become.

        Rows of one kind are padded to the longest.
        """
        by_kind: dict = {}
        for ticket in rows:
            by_kind.setdefault(ticket.kind, []).append(ticket.tokens)
        return sum(len(t) * max(t) for t in by_kind.values()) <= self.settings.kv_tokens
