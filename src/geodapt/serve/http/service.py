"""What one server serves, and what it does just now."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.http.answers import NO_TEXT, TextEngine
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.tracing import Tracing
from geodapt.serve.requested_gate import BASE
from geodapt.serve.scoring import NotServed, Scoring
from geodapt.serve.text_tokens import TextTokens

RECENT = 512
"""Answers whose times the page shows."""
ASKED_AGAIN = "geodapt.asked_again"
"""In the scope of a request whose first try may have been carried out, though nobody said so."""


@dataclass
class Service:
    """The engine, the adapters and the systems behind a server's routes."""

    settings: ServeSettings
    engine: TextEngine
    adapters: AdapterFolder
    tokens: TextTokens | None
    """None where no language model is served."""
    metrics: ServerMetrics
    scoring: Scoring | None = None
    waiting: set[Future] = field(default_factory=set)
    """Scores that were asked for and are not there yet."""
    replicas: Callable[[], list[Mapping[str, Any]]] | None = None
    """What each of several processes does, where this one is their front."""
    tracing: Tracing | None = None
    close: Callable[[], object] = lambda: None
    """Ends what still runs, after the drain."""
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    running: int = 0
    """Requests that are being answered."""
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Of the last answers, the seconds to their first token and to their end."""

    @property
    def text_tokens(self) -> TextTokens:
        """The tokenizer. Raises :class:`NotServed` where no language model is served."""
        if self.tokens is None:
            raise NotServed(NO_TEXT)
        return self.tokens

    @property
    def base_names(self) -> set[str]:
        """What requests may call the base."""
        return {self.settings.name, BASE}

    @property
    def silence(self) -> str:
        """Why nothing is answered any more, where nothing is."""
        return "the engine has died" if self.replicas is None else "no replica answers any more"

    @property
    def ready(self) -> bool:
        """Whether a new request would be taken."""
        return self.engine.alive and self.engine.ready and not self.draining


def service_of(request: Request) -> Service:
    """The service behind a request's route."""
    return request.app.state.service


def may_be_done(request: Request) -> bool:
    """Whether a change may have been made already, by a replica that died before it said so."""
    return bool(request.scope.get(ASKED_AGAIN))
