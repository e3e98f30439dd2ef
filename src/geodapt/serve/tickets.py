"""What a client holds while the engine answers."""

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from geodapt.adapters.gates import Off, Route, Terms, TopAtoms
from geodapt.serve.generation import Event, Generation

_numbers = itertools.count()
Kind = tuple[int | float | None, str] | None
"""What rows must share to run in one pass: how many atoms stay, and per what; None for sums."""


class Ticket:
    """One request on its way: its events, in order, until one has a ``finish``.

    Iterate over it from any thread, or give ``on_event`` to :meth:`Engine.submit`, which is called
    in the engine's own thread for each event and must return at once
    (``loop.call_soon_threadsafe(queue.put_nowait, event)``).
    """

    def __init__(
        self, generation: Generation, on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.generation, self.number = generation, next(_numbers)
        self.adapters = frozenset(generation.adapters)
        self.submitted = time.monotonic()
        self.started: float | None = None
        self.blocked_since: float | None = None
        self.finished = threading.Event()
        self._cancelled = False
        self._on_event = on_event
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called, or its listener failed."""
        return self._cancelled

    @property
    def kind(self) -> Kind:
        """What this row must share with those that it runs with."""
        gate = self.generation.gate
        if isinstance(gate, TopAtoms) and self.terms:
            return gate.keep, gate.per
        return None

    @property
    def terms(self) -> Terms:
        """The weighted sum of adapters of this row."""
        return (self.generation.gate or Off()).entries[0]

    @property
    def tokens(self) -> int:
        """The most places that its row may need."""
        return len(self.generation.prompt) + self.generation.sampling.max_new_tokens

    def cancel(self) -> None:
        """End it: its row leaves before the next step."""
        self._cancelled = True

    def __iter__(self) -> Iterator[Event]:
        """Every event, waiting for those that are not there yet."""
        while True:
            event = self._events.get()
            yield event
            if event.finish is not None:
                return

    def put(self, event: Event) -> None:
        """Hand an event over. A listener that fails ends its own request alone."""
        if self.finished.is_set():
            return
        if event.finish is not None:
            self.finished.set()
        if self._on_event is None:
            self._events.put(event)
            return
        try:
            self._on_event(event)
        except Exception:
            logging.getLogger(__name__).exception("a listener failed; its request ends")
            self._cancelled = True


def rows_of(tickets: list[Ticket], kind: Kind) -> "Route | TopAtoms | None":
    """The gate under which some tickets' rows run together; None for the base alone."""
    entries = [dict(ticket.terms) or None for ticket in tickets]
    if not any(entries):
        return None
    route = Route(entries)
    return TopAtoms(kind[0], route, kind[1]) if kind else route  # type: ignore[arg-type]
