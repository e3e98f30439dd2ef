"""One replica: the routes, the engine and the models of a server, in an actor of Ray Serve."""

import asyncio
import gc
import logging
import os
import platform
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import torch

from geodapt.errors import InputError
from geodapt.serve.generation import Statistics
from geodapt.serve.http.api_errors import Message, Scope
from geodapt.serve.http.app import build_inner
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start
from geodapt.serve.served import Served

logger = logging.getLogger("geodapt.serve")


@dataclass(frozen=True)
class ReplicaReport:
    """What a replica does, and how its last answers went."""

    process: int
    host: str
    statistics: Statistics
    recent: list[tuple[float, float]]
    """Seconds to the first token and to the end, of answers since the report before."""
    refused: str | None = None
    """Why there is nothing to serve."""


class Replica:
    """Answers what the front hands on. A dead engine ends its process; Ray starts another."""

    def __init__(self, served: Served, settings: ServeSettings, threads: int) -> None:
        torch.set_num_threads(threads)
        self._refused: str | None = None
        try:
            self._service = start(served, settings)
        except InputError as error:  # told by the front, once; another try would end the same
            self._refused = str(error)
            return
        self._routes = build_inner(self._service)
        gc.freeze()  # as a server of one process does

    def __del__(self) -> None:
        """Called by Ray at the end: what is kept for a collector of spans is sent."""
        if getattr(self, "_refused", "") is None:
            self._service.close()

    async def refused(self) -> str | None:
        """Why there is nothing to serve; None where there is."""
        return self._refused

    async def check_health(self) -> None:
        """Called by Ray every second."""
        if self._refused is None and not self._service.engine.alive:
            logger.error("the engine has died; the replica ends")
            os._exit(1)

    async def report(self) -> ReplicaReport:
        """What it does now."""
        service = self._service
        recent = [service.recent.popleft() for _ in range(len(service.recent))]
        return ReplicaReport(os.getpid(), platform.node(), service.engine.statistics(), recent)

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[list[Message]]:
        """The messages of an answer as they come, several at once where they wait.

        The first of them also says the route's own path. Whoever stops reading, cancels.
        """
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()  # who leaves, cancels
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "route": getattr(scope.get("route"), "path", "other")}
            messages.put_nowait(message)

        async def work() -> None:
            try:
                await self._routes(scope, receive, send)
            finally:
                messages.put_nowait(None)

        working = asyncio.create_task(work())
        begun = False
        try:
            while True:
                ready = [await messages.get()]
                while not messages.empty():
                    ready.append(messages.get_nowait())
                told: list[Any] = [message for message in ready if message is not None]
                if told:
                    begun = True
                    yield told
                if None in ready:
                    break
            try:
                await working
            except Exception:
                if not begun:  # else it is told, and logged
                    raise
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
