"""The engine: one thread owns the model, and requests join and leave its batch at every step."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from torch import nn

from geodapt.adapters.bank import AdapterBank
from geodapt.errors import InputError
from geodapt.serve.checked_generation import checked_generation
from geodapt.serve.generation import (
    EngineSettings,
    Event,
    Full,
    Generation,
    Statistics,
    Stopped,
)
from geodapt.serve.passes import Passes
from geodapt.serve.row_loop import RowLoop, told_of
from geodapt.serve.rows import RunningRow
from geodapt.serve.scheduler import Scheduler
from geodapt.serve.tickets import Ticket

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Engine:
    """Answers requests for text, each under its own gate, in one running batch.

    Between two steps newcomers join, finished and cancelled rows leave, a piece of a prompt is
    read and one piece of other work (:meth:`score`) is done. The answers are those of one request
    at a time, to the rounding of sums in other shapes. No other thread may run the model
    meanwhile; adapters may be loaded at any time, and are removed by :meth:`retire`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        bank: AdapterBank | None = None,
        settings: EngineSettings | None = None,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        """``bank`` is one on ``model``; ``on_death`` is called once if the thread dies.

        Raises :class:`InputError` for a model that cannot be served row by row.
        """
        self.settings = settings or EngineSettings()
        self.tokenizer, self.bank, self._on_death = tokenizer, bank, on_death
        self._passes = Passes(model.eval())
        self._loop = RowLoop(self._passes, bank, self.settings)
        capacity = bank.store.cache.capacity if bank is not None else None
        self._scheduler = Scheduler(self.settings, capacity)
        self._work: deque[tuple[Callable[[], Any], Future]] = deque()
        self._retiring: set[str] = set()
        self._changed = threading.Condition()
        self._closing = self._draining = False
        self._turning = False  # a step runs, whose rows may have ended and are not counted yet
        self._requests = self._failed = self._cancelled = self._hits = self._misses = 0
        self._evictions = 0
        self._resident: tuple[str, ...] = ()
        self._death: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # From any thread

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._death is None and self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.alive and not self._draining and not self._closing

    def check_room(self, beside: int = 0) -> None:
        """Raises :class:`Full` when one more request would be refused whatever it asks for.

        ``beside`` are those that are on their way to :meth:`submit`.
        """
        waiting = len(self._scheduler) + beside
        if waiting >= self.settings.queue:
            raise Full(waiting, self._retry_after())

    def submit(
        self, generation: Generation, on_event: Callable[[Event], None] | None = None
    ) -> Ticket:
        """Ask for an answer.

        Raises :class:`InputError` for what can never be answered, :class:`Full` when too many
        wait, and :class:`Stopped` when nothing is taken any more.
        """
        generation = self._checked(generation)
        ticket = Ticket(generation, on_event)
        with self._changed:
            if not self.ready:
                raise Stopped("the engine takes no more requests")
            self.check_room()
            self._scheduler.add(ticket)
            self._changed.notify()
        return ticket

    def score(self, work: Callable[[], T]) -> "Future[T]":
        """Call ``work``, which needs the model, in the engine's thread between two steps."""
        future: Future[T] = Future()
        with self._changed:
            if not self.ready:
                raise Stopped("the engine takes no more requests")
            if len(self._work) >= self.settings.queue:
                raise Full(len(self._work), self._retry_after())
            self._work.append((work, future))
            self._changed.notify()
        return future

    def retire(self, name: str) -> None:
        """Remove an adapter from the bank once no request that was taken uses it.

        New requests for it are refused at once. Those that run or wait keep it.
        """
        if self.bank is None or name not in self.bank:
            raise InputError(f"no adapter '{name}' is loaded")
        with self._changed:
            self._retiring.add(name)
            self._changed.notify()

    def statistics(self) -> Statistics:
        """What runs now, and what was done since the start."""
        with self._changed:
            loop = self._loop
            return Statistics(
                running=len(loop.tickets),
                queued=len(self._scheduler) + len(self._work),
                tokens=loop.tokens,
                prompt_tokens=loop.prompt_tokens,
                requests=self._requests,
                failed=self._failed,
                cancelled=self._cancelled,
                steps=loop.steps,
                step_seconds=loop.step_seconds,
                kv_tokens=loop.kv_tokens,
                resident=self._resident,
                adapter_hits=self._hits,
                adapter_misses=self._misses,
                evictions=self._evictions,
            )

    def drain(self, timeout: float | None = None) -> bool:
        """Take nothing more and wait until all that was taken has ended; whether it has."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._draining = True
            self._changed.notify_all()
            while self.alive and (
                self._turning or self._loop.tickets or len(self._scheduler) or self._work
            ):
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(0.5 if left is None else min(left, 0.5))
        return self.alive

    def close(self) -> None:
        """End what runs and waits as cancelled, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _checked(self, generation: Generation) -> Generation:
        """The request as it will run, or why it never can."""
        writes = self.tokenizer is not None
        checked = checked_generation(generation, self._passes, self.settings, self.bank, writes)
        for name in checked.adapters:
            if self.bank is None or name not in self.bank or name in self._retiring:
                raise InputError(f"no adapter '{name}' is loaded")
        capacity = self._scheduler.capacity
        if capacity is not None and len(checked.adapters) > capacity:
            raise InputError(
                f"the request mixes {len(checked.adapters)} adapters; {capacity} fit on the "
                "device at a time"
            )
        return checked

    def _retry_after(self) -> int:
        """A guess in whole seconds, from how long requests took so far."""
        each = self._loop.step_seconds / max(self._requests, 1)
        return math.ceil(min(max(1.0, each * self.settings.queue), 60.0))

    # In the engine's thread

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._end_all(Event(finish="cancelled"), Stopped("the engine was closed"))
        except BaseException as error:
            logger.exception("the engine died")
            self._death = error
            told = "the engine has failed; the server must be started again"
            self._end_all(Event(finish="error", error=told), Stopped(told))
            if self._on_death is not None:
                self._on_death(error)

    def _turn(self) -> bool:
        """One step of everything; False when the engine is to end."""
        with self._changed:
            while not (
                self._closing
                or self._loop.tickets
                or len(self._scheduler)
                or self._work
                or self._retiring
            ):
                self._changed.notify_all()  # who drains waits for this
                self._changed.wait()
            if self._closing:
                return False
            self._drop_cancelled()
            self._admit()
            work = self._work.popleft() if self._work else None
            self._turning = True
        if work is not None:
            _do(*work)
        ended = self._loop.turn()
        with self._changed:
            self._turning = False
            self._count(ended)
            self._retire()
            if self.bank is not None:
                self._resident = tuple(self.bank.resident)
            self._changed.notify_all()
            if not self._loop.tickets and len(self._scheduler):
                self._changed.wait(0.01)  # what waits finds no place just now
        return True

    def _drop_cancelled(self) -> None:
        for ticket in self._scheduler.take_cancelled():
            self._cancelled += 1
            self._requests += 1
            ticket.put(Event(finish="cancelled", prompt_tokens=len(ticket.generation.prompt)))

    def _admit(self) -> None:
        for ticket in self._scheduler.admit(self._loop.tickets):
            try:
                row = RunningRow(ticket, self._passes, self.tokenizer)
                self._hold(ticket)
            except Exception as error:
                self._requests, self._failed = self._requests + 1, self._failed + 1
                ticket.put(Event(finish="error", error=told_of(error)))
                continue
            self._loop.add(row)

    def _hold(self, ticket: Ticket) -> None:
        if self.bank is None or not ticket.adapters:
            return
        before = set(self.bank.resident)
        if ticket.adapters <= before:
            self._hits += 1
        else:
            self._misses += 1
        self.bank.store.require(ticket.adapters)
        self.bank.store.cache.hold(sorted(ticket.adapters), wait=False)
        self._evictions += len(before - set(self.bank.resident))

    def _count(self, ended: list[RunningRow]) -> None:
        for row in ended:
            self._requests += 1
            self._failed += row.finish == "error"
            self._cancelled += row.finish == "cancelled"
            if self.bank is not None and row.ticket.adapters:
                self.bank.store.cache.release(sorted(row.ticket.adapters))

    def _retire(self) -> None:
        used = {name for ticket in self._loop.tickets for name in ticket.adapters}
        for name in sorted(self._retiring - used):
            if self._scheduler.wants(name):
                continue
            self._retiring.discard(name)
            if self.bank is not None and name in self.bank:
                self.bank.remove(name)

    def _end_all(self, event: Event, reason: Stopped) -> None:
        with self._changed:
            self._closing = True
            for ticket in [*self._loop.tickets, *self._scheduler.clear()]:
                ticket.put(event)
            for _, future in self._work:
                future.set_exception(reason)
            self._work.clear()
            self._loop.clear()
            self._changed.notify_all()


def _do(work: Callable[[], Any], future: Future) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise
