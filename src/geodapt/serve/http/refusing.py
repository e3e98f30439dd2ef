"""Refusals at the connection: where too many requests wait, before uvicorn's work for another."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from geodapt.serve.generation import Full
from geodapt.serve.http.api_errors import ApiError, api_error
from geodapt.serve.http.keys import Keys
from geodapt.serve.http.limits import TEXT
from geodapt.serve.http.service import Service
from geodapt.serve.http.traffic import count

LINES = {f"POST {path} HTTP/1.1".encode(): path for path in TEXT}
PATIENCE = 1.0
"""Seconds that a connection may be silent before uvicorn watches it."""


class Refusing(asyncio.Protocol):
    """A connection that was opened while the queue was full.

    A request for text that comes whole with its first bytes and brings a right key is answered 429
    at a third of the cost, which who is answered pays. With whatever else comes, or if there is
    room again, the connection goes on as ``make()``'s.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], service: Service, keys: Keys) -> None:
        self._make, self._service, self._keys = make, service, keys

    def connection_made(self, transport: Any) -> None:
        self._transport, self._begun = transport, time.perf_counter()
        self._silent = asyncio.get_running_loop().call_later(PATIENCE, self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        self._silent.cancel()

    def data_received(self, data: bytes) -> None:
        self._silent.cancel()
        if (path := self._right(data)) is not None:
            try:
                self._service.engine.check_room()
            except Full as error:
                self._transport.write(api_error(error).raw())
                self._transport.close()
                count(self._service, path, "POST", 429, time.perf_counter() - self._begun)
                return
        self._go_on().data_received(data)

    def _go_on(self) -> asyncio.Protocol:
        connection = self._make()
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        return connection

    def _right(self, data: bytes) -> str | None:
        """The path of a whole request for text with a right key; None for all else."""
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rest = head.split(b"\r\n")
        path = LINES.get(line)
        if path is None or self._service.draining:
            return None
        pairs = (field.partition(b":") for field in rest)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = str(len(body)).encode()
        if (
            headers.get(b"content-length") != length
            or len(body) > self._service.settings.body_bytes
        ):
            return None
        client = self._transport.get_extra_info("peername")
        scope = {"method": "POST", "path": path, "headers": headers.items(), "client": client}
        try:
            self._keys.check(scope)
        except ApiError:
            return None
        return path
