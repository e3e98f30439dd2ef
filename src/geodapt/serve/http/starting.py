"""From what an operator names to a service that is ready to answer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from geodapt.errors import InputError
from geodapt.paths import given, regular
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.engine import Engine
from geodapt.serve.http.answers import NoText, TextEngine
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service
from geodapt.serve.http.tracing import tracing_to
from geodapt.serve.loading import Served, load_scoring, load_text_engine
from geodapt.serve.text_tokens import TextTokens

API_KEY, ADMIN_KEY = "GEODAPT_API_KEY", "GEODAPT_ADMIN_KEY"
"""Environment variables that give a key."""


def read_keys(variable: str, given_keys: Sequence[str], file: Path | None) -> list[SecretStr]:
    """The keys of an option, of a file with one a line, and of an environment variable.

    Raises :class:`InputError` for a file that others may read, or that holds none.
    """
    keys = list(given_keys)
    if file is not None:
        path = regular(given(file))
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise InputError(f"{path} may be read by others; run: chmod 600 {path}")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"{path} holds no key; write one into each line")
        keys += found
    if os.environ.get(variable):
        keys.append(os.environ[variable])
    return [SecretStr(key) for key in dict.fromkeys(keys)]


def checked_settings(**values: Any) -> ServeSettings:
    """Settings. Raises :class:`InputError`, which does not show a key."""
    try:
        return ServeSettings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {said}" if where else said) from None


def check_named(served: Served) -> None:
    """Raises :class:`InputError` where nothing is named, or adapters without a base."""
    if served.base is None and not served.scores:
        raise InputError(
            "name what to serve: a language model (BASE), --rank, --classify or --embed"
        )
    if served.base is None and served.adapters is not None:
        raise InputError("--adapters are a language model's; name it (BASE)")


def start(served: Served, settings: ServeSettings) -> Service:
    """Load what is to be served, checked before the first request.

    Raises :class:`InputError` for what cannot be loaded, and where nothing is named.
    """
    check_named(served)
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
