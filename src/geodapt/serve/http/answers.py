"""The answers of one request, from the engine's thread into the server's event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Protocol, TypeVar

from geodapt.serve.adapter_folder import Lease
from geodapt.serve.generation import Event, Generation, Statistics
from geodapt.serve.http.api_errors import Receive
from geodapt.serve.scoring import NotServed

T = TypeVar("T")
NO_TEXT = "no language model is served here; start the server with one (geodapt serve BASE)"


class Cancellable(Protocol):
    """What the engine gives for a request."""

    def cancel(self) -> None: ...


class TextEngine(Protocol):
    """What is needed of the engine that makes text."""

    @property
    def alive(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    def check_room(self, beside: int = 0) -> None: ...
    def submit(
        self, generation: Generation, on_event: Callable[[Event], None] | None = None
    ) -> Cancellable: ...
    def statistics(self) -> Statistics: ...


class NoText:
    """In place of an engine, where no language model is served."""

    alive = ready = True

    def check_room(self, beside: int = 0) -> None:
        """There is nothing to wait for."""

    def submit(
        self, generation: Generation, on_event: Callable[[Event], None] | None = None
    ) -> Cancellable:
        raise NotServed(NO_TEXT)

    def statistics(self) -> Statistics:
        return Statistics(
            **dict.fromkeys((f.name for f in fields(Statistics) if f.name != "resident"), 0),
            resident=(),
        )


class Answers:
    """Events of several generations as they come, each with its generation's number.

    The lease of their adapters ends with the last of them, whether or not anybody still listens.
    """

    def __init__(
        self,
        generations: Sequence[Generation],
        lease: Lease,
        watch: Callable[[int, Event], None] | None = None,
        whole: bool = False,
    ) -> None:
        """``watch`` is called for each event, too, in the thread that it comes from.

        ``whole``: nothing is done between the first event and a generation's last, so that the
        event loop is woken for these alone.
        """
        self.generations, self._lease, self._watch = list(generations), lease, watch
        self._loop = asyncio.get_running_loop()
        self._events: deque[tuple[int, Event]] = deque()
        self._some, self._woken, self._whole, self._begun = asyncio.Event(), False, whole, False
        self._tickets: list[Cancellable] = []
        self._lock = threading.Lock()
        self._open = len(self.generations)

    def submit(self, engine: TextEngine) -> None:
        """Ask for all of them, or for none. Raises what ``engine.submit`` does."""
        try:
            for number, generation in enumerate(self.generations):
                ticket = engine.submit(generation, partial(self._arrived, number))
                self._tickets.append(ticket)
        except BaseException:
            self.cancel()
            self._ended(len(self.generations) - len(self._tickets))
            raise

    async def each(self) -> AsyncIterator[list[tuple[int, Event]]]:
        """What has come since the last time, until every generation has ended."""
        open_ones = len(self.generations)
        while open_ones:
            await self._some.wait()
            self._some.clear()
            self._woken = False  # before the events are taken: what comes later wakes again
            events = [self._events.popleft() for _ in range(len(self._events))]
            open_ones -= sum(event.finish is not None for _, event in events)
            if events:
                yield events

    def cancel(self) -> None:
        """Nobody listens any more. What has ended stays as it is."""
        for ticket in self._tickets:
            ticket.cancel()

    def _arrived(self, number: int, event: Event) -> None:
        if self._watch is not None:
            self._watch(number, event)
        self._events.append((number, event))
        if event.finish is not None:
            self._ended(1)
        elif self._whole and self._begun:
            return
        self._begun = True
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(self._some.set)

    def _ended(self, count: int) -> None:
        with self._lock:
            self._open -= count
            last = self._open == 0 and count > 0
        if last:
            self._lease.release()


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def while_connected(receive: Receive, work: Awaitable[T], seconds: float) -> T:
    """``work``'s result.

    It is cancelled, and :class:`ClientGone` raised, when the client goes away, or after
    ``seconds``, which raises :class:`TimeoutError`.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, going = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        done, _ = await asyncio.wait(
            {working, going}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if working in done:
            return working.result()
        if not done:
            raise TimeoutError
        raise ClientGone
    finally:
        for task in (working, going):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(working, going, return_exceptions=True)
