"""uvicorn around the application: an end that waits for answers, and connections that stall."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from geodapt.serve.http.acceptor import Acceptor
from geodapt.serve.http.api_errors import ApiError, App, Receive, Scope, Send, logger
from geodapt.serve.http.app import build_app
from geodapt.serve.http.refusing import Refusals
from geodapt.serve.http.service import Service

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAST_MOMENT = 1.0
"""Seconds for responses to leave after the drain."""


class Connection(H11Protocol):
    """A connection that its application can cut off, and that closes where no request comes.

    uvicorn closes idle connections only after a first request, and lets half a head wait for ever.
    """

    first = b""
    """What was read before it began."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        inner = self.app

        async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
            scope["abort"] = transport.abort
            await inner(scope, receive, send)

        self.app = with_abort
        self._idle: asyncio.TimerHandle | None = None
        self._wait()
        if self.first:
            self.data_received(self.first)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests:
            self._wait()
        elif self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the shape of all errors."""
        self.transport.write(ApiError(400, msg).raw())
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

    @property
    def _between_requests(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _wait(self) -> None:
        """From the last whole request on, however many bytes of the next one trickle in."""
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle = None
        if self._between_requests and not self.transport.is_closing():
            self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server behind an :class:`Acceptor`; :func:`serve_until_told` minds signals."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._refusals = Refusals(service)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        acceptors = [Acceptor(each, self._connection, self._refusals) for each in sockets or ()]
        await super().startup([])
        self.servers = acceptors  # type: ignore[assignment]

    def _connection(self, first: bytes) -> asyncio.Protocol:
        connection = Connection(self.config, self.server_state, self.lifespan.state)
        connection.first = first
        return connection

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(service: Service, app: App | None = None) -> Server:
    """A server of a service, not yet running."""
    config = uvicorn.Config(
        app or build_app(service),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(service.settings.idle_seconds) or 1,
        timeout_graceful_shutdown=max(1, int(LAST_MOMENT)),
    )
    return Server(config, service)


def serve_until_told(
    service: Service,
    listening: socket.socket,
    tell: Callable[[str], None] = logger.info,
    app: App | None = None,
) -> int:
    """Serve until SIGTERM, Ctrl-C or the engine's death; the exit status.

    After a signal new requests are turned away, those that run may end for ``drain_seconds``, then
    what is left is ended, and the status is 0. A second signal ends
    the waiting. When the engine has died the status is 1, at once. ``app`` is what answers, where
    it is not the service's own.
    """
    gc.freeze()  # models and modules stay: looking through them would stop everything for 0.3 s
    server = make_server(service, app)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        return runner.run(_serve(server, service, listening, tell))


async def _serve(
    server: Server, service: Service, listening: socket.socket, tell: Callable[[str], None]
) -> int:
    loop = asyncio.get_running_loop()
    told, again = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (again if told.is_set() else told).set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve([listening]))
    died = asyncio.create_task(_death(service))
    stopping = asyncio.create_task(told.wait())
    await asyncio.wait({serving, died, stopping}, return_when=asyncio.FIRST_COMPLETED)
    dead = died.done()
    service.draining = True
    if dead:
        tell(f"{service.silence}; the server ends")
    elif not serving.done():
        tell(f"ending: {service.running} requests may end in {service.settings.drain_seconds:g} s")
        await _drained(service, again, died)
        dead = died.done()
    await asyncio.to_thread(service.close)
    server.should_exit = True
    await serving
    for task in (died, stopping):
        task.cancel()
    return 1 if dead else 0


async def _death(service: Service) -> None:
    while service.engine.alive:
        await asyncio.sleep(0.1)


async def _drained(service: Service, again: asyncio.Event, died: asyncio.Task) -> None:
    """Until nothing runs, time is up, somebody asks again, or the engine dies."""
    end = asyncio.get_running_loop().time() + service.settings.drain_seconds
    while service.running and not again.is_set() and not died.done():
        if asyncio.get_running_loop().time() >= end:
            return
        await asyncio.sleep(0.02)
