"""Refusals at the connection: where too many requests wait, before uvicorn's work for another."""

import socket
import time
from contextlib import suppress
from functools import lru_cache

from geodapt.serve.generation import Full
from geodapt.serve.http.api_errors import ApiError, api_error
from geodapt.serve.http.keys import Keys
from geodapt.serve.http.limits import TEXT
from geodapt.serve.http.service import Service
from geodapt.serve.http.traffic import count

LINES = {f"POST {path} HTTP/1.1".encode(): path for path in TEXT}
MOST = 65_536
"""Bytes that are read of a connection at first."""


class Refusals:
    """Answers 429 to new connections while the queue is full.

    A request for text that has come whole and brings a right key is refused at a third of the
    cost, which who is answered pays. All else is left to uvicorn.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._keys = service, Keys(service.settings)

    @property
    def full(self) -> Full | None:
        """Why one more request for text would be refused; None where there is room."""
        try:
            self._service.engine.check_room()
        except Full as full:
            return full
        return None

    def refuse(self, connection: socket.socket, full: Full) -> bytes | None:
        """What has come on a connection so far; None where it was answered, and is closed."""
        begun = time.perf_counter()
        try:
            data = connection.recv(MOST, socket.MSG_DONTWAIT)
        except OSError:  # nothing yet, or it was reset
            return b""
        path = self._right(data)
        if path is None:
            return data
        with suppress(OSError):  # who asked has gone
            connection.send(_answer(full.waiting, full.retry_after), socket.MSG_DONTWAIT)
        connection.close()
        count(self._service, path, "POST", 429, time.perf_counter() - begun)
        return None

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
        scope = {"method": "POST", "path": path, "headers": headers.items()}
        try:
            self._keys.check(scope)
        except ApiError:
            return None
        return path


@lru_cache(64)
def _answer(waiting: int, retry_after: int) -> bytes:
    return api_error(Full(waiting, retry_after)).raw()
