"""A span a request, with the engine's stages within it, for whoever collects OpenTelemetry's.

Off unless an address is given. Spans say how a request went, never what it held: neither prompts
nor answers nor keys. Names of attributes are those of OpenTelemetry's semantic conventions for
HTTP servers and for generative models.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geodapt import __version__
from geodapt.extras import require
from geodapt.serve.generation import Event, Generation
from geodapt.serve.http.api_errors import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

NOT_TRACED = {"/health", "/ready", "/metrics", "/status"}
"""Routes that something asks every second."""


@dataclass(frozen=True)
class Tracing:
    """Where spans go."""

    tracer: "Tracer"
    close: Callable[[], object] = lambda: None
    """Hands over what is not sent yet."""


def tracing_to(address: str) -> Tracing:
    """Spans by OTLP over HTTP to a collector, such as ``http://localhost:4318/v1/traces``.

    Raises :class:`geodapt.errors.InputError` where the extra ``tracing`` is missing.
    """
    exporter = "opentelemetry.exporter"
    for package in ("opentelemetry", "opentelemetry.sdk", f"{exporter}", f"{exporter}.otlp"):
        require(package, "tracing needs OpenTelemetry and its OTLP exporter", "tracing")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "geodapt", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    return Tracing(provider.get_tracer("geodapt.serve", __version__), provider.shutdown)


class Traced:
    """An application whose requests have a span each, within that of who asked.

    The caller's span comes as W3C's ``traceparent``.
    """

    def __init__(self, app: App, tracing: Tracing) -> None:
        self.app, self.tracer = app, tracing.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NOT_TRACED:
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        caller = TraceContextTextMapPropagator().extract(headers)
        method, status = scope["method"], 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.tracer.start_as_current_span(method, caller, SpanKind.SERVER) as span:
            scope["span"] = span
            try:
                await self.app(scope, receive, watched)
            finally:
                route = getattr(scope.get("route"), "path", None)
                span.set_attribute("http.request.method", method)
                if route is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                if status:
                    span.set_attribute("http.response.status_code", status)
                if status >= 500 or not status:
                    span.set_status(Status(StatusCode.ERROR))


def engine_stages(
    tracing: Tracing | None, scope: Scope, model: str, generations: Sequence[Generation]
) -> Callable[[int, Event], None] | None:
    """What notes a request's stages; None where nothing is traced."""
    if tracing is None or "span" not in scope:
        return None
    return EngineStages(tracing, scope["span"], model, generations).event


class EngineStages:
    """Notes when each generation of a request waited, was read and was answered.

    Within the request's span: ``queue`` until the engine took it, ``prefill`` until its first
    token, ``decode`` until its end. What was read of an echoed prompt counts as ``prefill``.
    """

    def __init__(
        self, tracing: Tracing, span: "Span", model: str, generations: Sequence[Generation]
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer, self._within = tracing.tracer, set_span_in_context(span)
        self._begun = time.time_ns()
        self._first: dict[int, int] = {}
        self._several = len(generations) > 1
        span.set_attribute("gen_ai.request.model", model)
        span.set_attribute("geodapt.adapters", sorted({n for g in generations for n in g.adapters}))

    def event(self, number: int, event: Event) -> None:
        """What came for one of the generations, in the engine's thread."""
        now = time.time_ns()
        taken = self._begun + int(event.seconds_queued * 1e9)
        if number not in self._first and not event.echoed:
            self._first[number] = now
            if event.completion_tokens or event.finish not in ("cancelled", "error"):
                self._tell("queue", number, self._begun, min(taken, now))
                self._tell("prefill", number, min(taken, now), now, prompt=event.prompt_tokens)
            else:
                self._tell("queue", number, self._begun, now)
        if event.finish is None:
            return
        self._tell(
            "decode", number, self._first.get(number, now), now, event.completion_tokens,
            finish=event.finish,
        )  # fmt: skip

    def _tell(
        self,
        name: str,
        number: int,
        begin: int,
        end: int,
        made: int | None = None,
        prompt: int | None = None,
        finish: str | None = None,
    ) -> None:
        said: dict[str, Any] = {
            "geodapt.answer": number if self._several else None,
            "gen_ai.usage.input_tokens": prompt,
            "gen_ai.usage.output_tokens": made,
            "gen_ai.response.finish_reasons": [finish] if finish else None,
        }
        told = {key: value for key, value in said.items() if value is not None}
        span = self._tracer.start_span(name, self._within, attributes=told, start_time=begin)
        span.end(end)
