"""Answers as server-sent events, which end in ``[DONE]``, for readers that may be slow or leave."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from geodapt.serve.http.answers import Answers, ClientGone, while_connected
from geodapt.serve.http.api_errors import ApiError, Message, Receive, Scope, Send

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the stream back
]


class StalledReader(Exception):
    """A client takes nothing of what was sent."""


class EventStream(Response):
    """A response whose events are ``events``' mappings.

    Until the first of them, an :class:`ApiError` is an answer with its status; after that, an event
    with ``error``. When the client leaves, or takes nothing for ``stalled`` seconds, the answers
    are cancelled; the stalled connection is cut off.
    """

    def __init__(
        self, events: AsyncIterator[dict[str, Any]], answers: Answers, stalled: float, whole: float
    ) -> None:
        super().__init__()
        self.events, self.answers, self.stalled, self.seconds = events, answers, stalled, whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started = False
        try:
            try:
                await while_connected(receive, self._send_all(send), self.seconds)
            except TimeoutError:
                await self._fail(ApiError(408, "the answer took too long", "timeout"), send)
        except ClientGone:
            pass
        except StalledReader:
            abort = scope.get("abort")
            if abort is not None:
                abort()
        finally:
            self.answers.cancel()

    async def _send_all(self, send: Send) -> None:
        try:
            async with aclosing(self.events) as events:  # type: ignore[type-var]
                async for event in events:
                    await self._put(_written(event), send)
        except ApiError as error:
            await self._fail(error, send)
            return
        await self._put(b"data: [DONE]\n\n", send)
        await self._send({"type": "http.response.body", "body": b""}, send)

    async def _fail(self, error: ApiError, send: Send) -> None:
        if not self._started:
            await error.send(send)
            return
        await self._put(broken_off(error), send)
        await self._send({"type": "http.response.body", "body": b""}, send)

    async def _put(self, content: bytes, send: Send) -> None:
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": HEADERS}
            await self._send(start, send)
        message = {"type": "http.response.body", "body": content, "more_body": True}
        await self._send(message, send)

    async def _send(self, message: dict[str, Any], send: Send) -> None:
        await send_in_time(send, message, self.stalled)


async def send_in_time(send: Send, message: Message, seconds: float) -> None:
    """Send; uvicorn waits here while more than 64 KB lie unread.

    Raises :class:`StalledReader` where that lasts longer.
    """
    try:
        async with asyncio.timeout(seconds):
            await send(message)
    except TimeoutError:
        raise StalledReader from None


def broken_off(error: ApiError) -> bytes:
    """The last events of a stream that ends with an error."""
    return _written(error.body()) + b"data: [DONE]\n\n"


def _written(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n"
