"""The front: takes requests over HTTP, and hands each to a replica, or to another if that dies."""

from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Protocol

from fastapi import FastAPI

from geodapt import __version__
from geodapt.serve.http import status_routes
from geodapt.serve.http.answers import ClientGone, while_connected
from geodapt.serve.http.api_errors import (
    ApiError,
    App,
    Message,
    Receive,
    Scope,
    Send,
    logger,
    register_errors,
)
from geodapt.serve.http.event_stream import StalledReader, broken_off, send_in_time
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import ASKED_AGAIN, Service

TRIES = 5
"""Replicas that may die over one request."""
HANDED_ON = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string",
             "root_path", "client", "server")  # fmt: skip
SECRET = {b"authorization", b"cookie"}
"""Headers that end at the front."""
BODY = "http.response.body"
PATIENCE = 5.0
"""Seconds that the front waits longer than a replica, which tells better what took too long."""


class Answering(Protocol):
    """A handle to the replicas' :meth:`Replica.answer`, which chooses one of them."""

    def remote(self, scope: Scope, body: bytes) -> Any: ...


def build_front(service: Service, replicas: Answering) -> App:
    """What a server of one process answers itself, about all replicas; the rest is handed on."""
    own = FastAPI(title="geodapt", version=__version__, openapi_url=None)
    own.state.service = service
    own.include_router(status_routes.router)
    register_errors(own)
    paths = {getattr(route, "path", "") for route in status_routes.router.routes}
    handing_on = HandingOn(replicas, service.settings)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] != "http" or scope["path"] in paths
        await (own if ours else handing_on)(scope, receive, send)

    return front


class HandingOn:
    """Hands requests to replicas.

    A request whose replica dies before the first byte of its answer is asked again of another,
    which is told so: what the first one may have deleted is no error there. After the first byte
    nothing can be taken back: a stream ends with an error event, and its client asks again.
    """

    def __init__(self, replicas: Answering, settings: ServeSettings) -> None:
        self._replicas, self._settings = replicas, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]  # which BodyLimit read to its end
        answer = Answer(scope, send, self._settings.stalled_seconds)
        try:
            work = self._answer(answer, body)
            await while_connected(receive, work, self._settings.request_seconds + PATIENCE)
        except ClientGone:
            pass
        except StalledReader:
            if (abort := scope.get("abort")) is not None:
                abort()
        except TimeoutError:
            await answer.fail(ApiError(408, "the answer took too long", "timeout"))
        except ApiError as error:
            await answer.fail(error)

    async def _answer(self, answer: "Answer", body: bytes) -> None:
        # Ray reads its settings when it is first imported: not before `joined` made them
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        scope = _handed_on(answer.scope)
        for _ in range(TRIES):
            try:
                async for messages in _read(self._replicas.remote(scope, body)):
                    await answer.put(messages)
                return
            except RayActorError:
                if answer.begun:
                    raise ApiError(503, "the replica that answered died", "replica_died") from None
                logger.warning("a replica died; %s is asked again", scope["path"])
                scope = {**scope, ASKED_AGAIN: True}
            except BackPressureError:
                headers = {"Retry-After": "1"}
                raise ApiError(429, "too many requests wait", "full", headers=headers) from None
            except (RayError, RayServeException):
                logger.exception("a request failed in a replica")
                raise ApiError(500, "the server failed at this request", "internal") from None
        raise ApiError(503, f"{TRIES} replicas died over this request", "replica_died")


class Answer:
    """One answer on its way out."""

    def __init__(self, scope: Scope, send: Send, stalled: float) -> None:
        self.scope, self.begun = scope, False
        self._send, self._stalled, self._streams = send, stalled, False

    async def put(self, messages: list[Message]) -> None:
        """Send what came. Raises :class:`StalledReader` where nobody takes it."""
        for message in messages:
            if message["type"] == "http.response.start":
                self.scope["route"] = SimpleNamespace(path=message.pop("route"))
                kinds = [v for k, v in message["headers"] if bytes(k).lower() == b"content-type"]
                self._streams = any(bytes(kind).startswith(b"text/event-stream") for kind in kinds)
            self.begun = True
            await send_in_time(self._send, message, self._stalled)

    async def fail(self, error: ApiError) -> None:
        """Tell an error: as an answer, as an event of a stream, else by cutting it off."""
        if not self.begun:
            await error.send(self._send)
        elif self._streams:
            with suppress(StalledReader):
                for content, more in ((broken_off(error), True), (b"", False)):
                    part = {"type": BODY, "body": content, "more_body": more}
                    await send_in_time(self._send, part, self._stalled)
        elif (abort := self.scope.get("abort")) is not None:
            abort()


async def _read(response: Any) -> AsyncIterator[list[Message]]:
    """What a replica sends, to the last of it, without waiting for Ray to say that this was all;
    whoever stops reading before, cancels it there."""
    whole = False
    try:
        async for messages in response:
            yield messages
            whole = any(m["type"] == BODY and not m.get("more_body") for m in messages)
            if whole:
                return
    finally:
        if not whole:
            response.cancel()


def _handed_on(scope: Scope) -> dict[str, Any]:
    kept = {name: scope[name] for name in HANDED_ON if name in scope}
    headers = [(bytes(k), bytes(v)) for k, v in scope["headers"] if bytes(k).lower() not in SECRET]
    return {**kept, "headers": headers, "asgi": {"version": "3.0"}, "extensions": {}}
