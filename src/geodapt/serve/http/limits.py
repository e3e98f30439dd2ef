"""Limits before the application sees a request: how often, how long, and how slowly it comes."""

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace

from geodapt.serve.generation import Full
from geodapt.serve.http.api_errors import (
    ApiError,
    App,
    Message,
    Receive,
    Scope,
    Send,
    api_error,
)
from geodapt.serve.http.keys import OPEN
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service

TEXT = ("/v1/completions", "/v1/chat/completions")
MOST_CLIENTS = 10_000
"""Clients whose requests are counted; the one that asked longest ago is forgotten."""


class TokenBuckets:
    """How many requests each client may still make: ``burst`` at once, ``rate`` a second."""

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._now = rate, burst, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Count a request: 0, or the seconds after which it may be made."""
        now = self._now()
        left, since = self._left.get(client, (float(self.burst), now))
        left = min(self.burst, left + (now - since) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[client] = (left - 1 if wait == 0 else left), now
        self._left.move_to_end(client)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return wait


class RateLimit:
    """Answers 429 with ``Retry-After`` to a client that asks too often."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app = app
        rate = settings.requests_per_second
        self.buckets = TokenBuckets(rate, settings.burst) if rate is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.buckets is not None and scope["type"] == "http" and scope["path"] != OPEN:
            wait = self.buckets.take(scope.get("client_key", ""))
            if wait:
                headers = {"Retry-After": str(math.ceil(wait))}
                error = ApiError(429, "too many requests", "rate_limit_exceeded", headers=headers)
                await error.send(send)
                return
        await self.app(scope, receive, send)


class QueueLimit:
    """Refuses text where too many requests wait, before a body is understood.

    The engine would refuse it, too, but at twice the cost: time that answers lack.
    """

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in TEXT and scope["method"] == "POST":
            try:
                self.service.engine.check_room()
            except Full as error:
                scope["route"] = SimpleNamespace(path=scope["path"])  # for what counts requests
                await api_error(error).send(send)  # closed: the next costs less
                return
        await self.app(scope, receive, send)


class BodyLimit:
    """Reads a body to its end before the application starts, or answers 413 or 408.

    An error raised inside of ``receive`` would be answered 400 by FastAPI, and uvicorn waits for
    the rest of a body for ever.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.most, self.seconds = app, settings.body_bytes, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            await ApiError(408, f"no whole body in {self.seconds:g} s", "body_timeout").send(send)
            return
        except ApiError as error:
            await error.send(send)
            return
        if body is None:  # the client has gone
            return
        if b"\\u" in body and not _is_text(body):
            await ApiError(400, "the body holds half a character, which is no text").send(send)
            return
        first = True

        async def replay() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and (
                not value.isdigit() or len(value) > 18 or int(value) > self.most
            ):
                raise self._too_large()
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self.most:
                raise self._too_large()
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"a request may have {self.most:,} bytes", "request_too_large")


def _is_text(body: bytes) -> bool:
    """Whether no string in a JSON body holds a lone surrogate; what is no JSON is not looked at."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        pass
    return True
