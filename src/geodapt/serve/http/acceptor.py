"""Accepts connections: each as it comes, or in batches while too many requests wait."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from geodapt.serve.http.api_errors import logger
from geodapt.serve.http.refusing import Refusals

BACKLOG = 2048
"""Connections that the system holds until they are accepted."""
BATCH = 0.02
"""Seconds between two batches. Each time that the connections' thread wakes the engine's loses
its core and its caches, which costs more than a refusal."""
PAUSE = 1.0
"""Seconds until the next try where no file descriptor is left."""


class Acceptor:
    """Listens at a socket, in place of a server of asyncio's.

    From when the queue is full until a batch in which all find room, what comes is looked at
    first: ``refusals`` refuses what can be refused at once, and only as many requests as there is
    room for go on. What goes on is ``make(first)``'s, which takes ``first`` for the bytes that
    came first.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[bytes], asyncio.Protocol],
        refusals: Refusals,
    ) -> None:
        self._listening, self._make, self._refusals = listening, make, refusals
        self._loop = asyncio.get_running_loop()
        self._silent: list[socket.socket] = []
        """Connections of the last batch on which nothing had come."""
        self._refused, self._on_their_way = False, 0
        """Of this batch: whether any was refused, and the requests for text that went on."""
        self._starting: set[asyncio.Task] = set()
        self._later: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listening)
        if self._later is not None:
            self._later.cancel()
        for connection in self._silent:
            connection.close()

    async def wait_closed(self) -> None:
        """As servers of asyncio have it."""

    def _accept(self) -> None:
        """Accept all that have come."""
        looks = self._later is not None or self._refusals.full(0) is not None
        self._refused, self._on_their_way = False, 0
        silent, self._silent = self._silent, []
        for connection in silent:
            self._look(connection, again=True)
        pause = 0.0
        while not pause:
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:  # too many open files
                logger.warning("no connection can be accepted for %g s: %s", PAUSE, error)
                pause = PAUSE
            else:
                if looks:
                    self._look(connection)
                else:
                    self._go_on(connection, b"")
        full = self._refused or self._refusals.full(self._on_their_way) is not None
        if full or self._silent:
            pause = pause or BATCH
        if pause:
            self._loop.remove_reader(self._listening)
            self._later = self._loop.call_later(pause, self._accept)
        elif self._later is not None:
            self._later = None
            self._loop.add_reader(self._listening, self._accept)

    def _look(self, connection: socket.socket, again: bool = False) -> None:
        """Refuse a connection, leave it for the next batch, or let it go on."""
        first = self._refusals.read(connection)
        path = self._refusals.path(first)
        if path is not None:
            full = self._refusals.full(self._on_their_way)
            if full is not None:
                self._refused = True
                self._refusals.refuse(connection, path, full)
                return
            self._on_their_way += 1
        elif not first and not again:
            self._silent.append(connection)
            return
        self._go_on(connection, first)

    def _go_on(self, connection: socket.socket, first: bytes) -> None:
        connection.setblocking(False)
        make = partial(self._make, first)
        task = self._loop.create_task(self._loop.connect_accepted_socket(make, connection))
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("a connection failed at its start: %s", error)
