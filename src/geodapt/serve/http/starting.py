"""From what an operator names to a service that is ready to answer."""

from typing import Any

from geodapt.errors import InputError
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.engine import Engine
from geodapt.serve.http.answers import NoText, TextEngine
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service
from geodapt.serve.http.tracing import tracing_to
from geodapt.serve.loading import load_scoring, load_text_engine
from geodapt.serve.served import Served
from geodapt.serve.text_tokens import TextTokens


def start(served: Served, settings: ServeSettings) -> Service:
    """Load what is to be served, checked before the first request.

    Raises :class:`InputError` for what cannot be loaded, and where nothing is named.
    """
    served.check()
    engine: TextEngine
    tokens: TextTokens | None
    if served.base is not None:
        engine, adapters, tokens = load_text_engine(served)
    else:
        engine, adapters, tokens = NoText(), AdapterFolder(None, NoShelf()), None
    run = engine.score if isinstance(engine, Engine) else None
    scoring = load_scoring(served, run) if served.scores else None
    service = Service(settings, engine, adapters, tokens, ServerMetrics(engine.statistics), scoring)
    if settings.trace_to is not None:
        service.tracing = tracing_to(settings.trace_to)

    def close() -> None:
        if isinstance(engine, Engine):
            engine.close()
        if service.tracing is not None:
            service.tracing.close()

    service.close = close
    return service


class NoShelf:
    """In place of a bank, where there is no base."""

    def add(self, name: str, adapter: Any) -> None:
        raise InputError("there is no base for adapters")

    def remove(self, name: str) -> None:
        raise InputError("there is no base for adapters")
