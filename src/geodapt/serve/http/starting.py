"""From what an operator names to a service that is ready to answer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import SecretStr, ValidationError
from torch import nn

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.models import default_dtype, load_base
from geodapt.paths import given, regular
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.engine import Engine
from geodapt.serve.generation import EngineSettings
from geodapt.serve.http.answers import NoText, TextEngine
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service
from geodapt.serve.http.text_tokens import TextTokens
from geodapt.serve.loading import Served, load_scoring, model_folder

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


def start(served: Served, settings: ServeSettings) -> Service:
    """Load what is to be served, checked before the first request.

    Raises :class:`InputError` for what cannot be loaded, and where nothing is named.
    """
    if served.base is None and not served.scores:
        raise InputError(
            "name what to serve: a language model (BASE), --rank, --classify or --embed"
        )
    if served.base is None and served.adapters is not None:
        raise InputError("--adapters are a language model's; name it (BASE)")
    engine: TextEngine
    tokens: TextTokens | None
    if served.base is not None:
        engine, adapters, tokens = _text(served)
    else:
        engine, adapters, tokens = NoText(), AdapterFolder(None, _NoShelf()), None
    run = engine.score if isinstance(engine, Engine) else None
    scoring = load_scoring(served, run) if served.scores else None
    service = Service(settings, engine, adapters, tokens, ServerMetrics(engine.statistics), scoring)
    if isinstance(engine, Engine):
        service.close = engine.close
    return service


def _text(served: Served) -> tuple[Engine, AdapterFolder, TextTokens]:
    import geodapt.helm  # noqa: F401  # so that a HELM loads, too

    base = served.base or ""
    model, tokenizer = load_base(model_folder(base), default_dtype(), head=True)
    if not model.can_generate():
        raise InputError(
            f"'{base}' is no language model; give one, or serve it as an encoder (--embed)"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device)
    bank = AdapterBank(model, served.capacity)
    folder = given(served.adapters) if served.adapters is not None else None
    adapters = AdapterFolder(folder, bank, served.most_loaded)
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    tokens = TextTokens(tokenizer, config.vocab_size, longest)
    settings = EngineSettings(slots=served.slots, queue=served.queue, kv_tokens=served.kv_tokens)
    return Engine(model, tokenizer, bank, settings), adapters, tokens


class _NoShelf:
    def add(self, name: str, adapter: Any) -> None:
        raise InputError("there is no base for adapters")

    def remove(self, name: str) -> None:
        raise InputError("there is no base for adapters")
