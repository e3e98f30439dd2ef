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
TOGETHER = socket.MSG_DONTWAIT | getattr(socket, "MSG_MORE", 0)
"""The answer leaves with the connection's end, where the system can: the client wakes once."""


class Refusals:
    """Answers 429 to new connections while the queue is full.

    A request for text that has come whole and brings a right key is refused at a third of what
    uvicorn and the application take for it: time that answers lack. All else is left to uvicorn.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._keys = service, Keys(service.settings)

    def full(self, beside: int) -> Full | None:
        """Why one more request for text would be refused; None where there is room.

        ``beside`` are those that the engine does not know of yet.
        """
        try:
            self._service.engine.check_room(beside)
        except Full as full:
            return full
        return None

    def read(self, connection: socket.socket) -> bytes:
        """What has come on a connection so far."""
        try:
            return connection.recv(MOST, socket.MSG_DONTWAIT)
        except OSError:  # nothing yet, or it was reset
            return b""

    def refuse(self, connection: socket.socket, path: str, full: Full) -> None:
        """Answer, and close the connection."""
        begun = time.perf_counter()
        with suppress(OSError):  # the client has gone
            connection.send(_answer(full.waiting, full.retry_after), TOGETHER)
        connection.close()
        count(self._service, path, "POST", 429, time.perf_counter() - begun)

    def path(self, data: bytes) -> str | None:
        """The route of a whole request for text with a right key; None for all else."""
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
