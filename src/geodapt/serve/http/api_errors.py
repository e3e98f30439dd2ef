"""Errors in OpenAI's shape, whatever they come from.

``{"error": {"message", "type", "param", "code"}}``, as OpenAI's API reference has it; its clients
raise their own classes by the status.
"""

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from geodapt.errors import InputError, one_line
from geodapt.serve.generation import Full, Stopped
from geodapt.serve.requested_gate import UnknownModel
from geodapt.serve.scoring import NotServed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application and what it is called with."""

logger = logging.getLogger("geodapt.serve")

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An answer with an error's status."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers or {}

    def body(self) -> dict[str, Any]:
        """What the client gets."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": one_line(str(self)),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)

    def _whole(self) -> tuple[dict[str, str], bytes]:
        content = json.dumps(self.body()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "connection": "close",
        }
        return headers | self.headers, content

    def raw(self) -> bytes:
        """The whole answer of a connection that ends with it."""
        headers, content = self._whole()
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + content

    async def send(self, send: Send) -> None:
        """Answer a request whose body was not read to its end, after which its connection ends."""
        headers, content = self._whole()
        pairs = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})


def api_error(error: Exception) -> ApiError:
    """What a client is told of an error. What is the program's own fault is only named as that."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UnknownModel | NotServed):
        return ApiError(404, str(error), "model_not_found", "model")
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    if isinstance(error, Full):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), "queue_full", headers=headers)
    if isinstance(error, Stopped):
        return ApiError(503, str(error) or "the server takes nothing more", "stopped")
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    return ApiError(500, "the server failed at this request; its log has the reason", "internal")


def _invalid(found: Sequence[Any]) -> ApiError:
    """What is wrong with a body, by its first fault, as fields are named in JSON."""
    first = found[0] if found else {"loc": (), "msg": "the request is not as documented"}
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first.get("type") == "json_invalid":
        return ApiError(400, "the body is not JSON")
    param = ".".join(where)[:200] or None
    said = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {said}" if param else said, param=param)


def register_errors(app: FastAPI) -> None:
    """Let every error of an application's routes have OpenAI's shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return api_error(error).response()

    async def fail(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return api_error(error).response()

    for kind in (
        *(ApiError, InputError, Full, Stopped),
        *(RequestValidationError, HTTPException),
    ):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, fail)
