"""Takes in connections: each as it comes, or, while too many requests wait, in bunches."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from geodapt.serve.http.api_errors import logger
from geodapt.serve.http.refusing import Refusals

BACKLOG = 2048
"""Connections that the system holds until they are taken in."""
BUNCH = 0.01
"""Seconds between two bunches. Each time that the connections' thread wakes the engine's loses
its core and its caches, which costs more than a refusal."""
SHORT = 1.0
"""Seconds until the next try where no file descriptor is left."""


class Door:
    """Listens at a socket, in place of a server of asyncio's.

    What comes while the queue is full is refused by ``refusals`` where that can be done at once.
    All else goes on as ``make(first)``'s, which takes ``first`` for the bytes that came first.
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
        """Connections of the last bunch on which nothing had come."""
        self._entering: set[asyncio.Task] = set()
        self._later: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening, self._come)

    def close(self) -> None:
        """Take in no more."""
        self._loop.remove_reader(self._listening)
        if self._later is not None:
            self._later.cancel()
        for connection in self._silent:
            connection.close()

    async def wait_closed(self) -> None:
        """As servers of asyncio have it."""

    def _come(self) -> None:
        """Take in all that have come."""
        silent, self._silent = self._silent, []
        for connection in silent:
            self._take(connection, again=True)
        pause = 0.0
        while not pause:
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:  # too many open files
                logger.warning("nobody can be taken in for %g s: %s", SHORT, error)
                pause = SHORT
            else:
                self._take(connection)
        if self._silent or self._refusals.full is not None:
            pause = pause or BUNCH
        if pause:
            self._loop.remove_reader(self._listening)
            self._later = self._loop.call_later(pause, self._come)
        elif self._later is not None:
            self._later = None
            self._loop.add_reader(self._listening, self._come)

    def _take(self, connection: socket.socket, again: bool = False) -> None:
        full = self._refusals.full
        first = b"" if full is None else self._refusals.refuse(connection, full)
        if first is None:
            return
        if full is not None and not first and not again:
            self._silent.append(connection)
            return
        connection.setblocking(False)
        make = partial(self._make, first)
        task = self._loop.create_task(self._loop.connect_accepted_socket(make, connection))
        self._entering.add(task)
        task.add_done_callback(self._entered)

    def _entered(self, task: asyncio.Task) -> None:
        self._entering.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("a connection failed at its start: %s", error)
