"""Counts requests, times them, and turns new ones away while the server ends."""

import time

from geodapt.serve.http.api_errors import ApiError, App, Message, Receive, Scope, Send, logger
from geodapt.serve.http.service import Service

LASTING = {"/health", "/ready", "/metrics"}
"""Routes that answer until the end."""


class Traffic:
    """The outermost layer of the application."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 0, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.service.running += 1
        try:
            if self.service.draining and scope["path"] not in LASTING:
                error = ApiError(
                    503, "the server is ending", "stopping", headers={"Retry-After": "5"}
                )
                await error.send(watched)
            else:
                await self.app(scope, receive, watched)
        finally:
            self.service.running -= 1
            # By the route's own path: a client cannot make new series.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "other"
            count(self.service, route, method, status, time.perf_counter() - start)


def count(service: Service, route: str, method: str, status: int, seconds: float) -> None:
    """Note a request that has ended; status 0 for who left before an answer."""
    service.metrics.requests.labels(route, method, str(status or 499)).inc()
    service.metrics.seconds.labels(route).observe(seconds)
    logger.info("%s %s %s %.3f s", method, route, status or "gone", seconds)
