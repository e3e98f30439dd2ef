"""What an operator can set of the HTTP side: keys, limits, and the address."""

import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator

from geodapt.errors import InputError
from geodapt.paths import given, regular
from geodapt.settings import Settings

API_KEY, ADMIN_KEY = "GEODAPT_API_KEY", "GEODAPT_ADMIN_KEY"
"""Environment variables that give a key."""


class ServeSettings(Settings):
    """Address, keys and limits. Raises pydantic's ``ValidationError`` for what is not safe."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    """0 takes any free one."""
    name: str = Field("base", min_length=1, max_length=200)
    """What ``/v1/models`` calls the base; ``base`` always names it, too."""
    api_keys: list[SecretStr] = []
    """Any of them opens every route that does not change what is served."""
    admin_keys: list[SecretStr] = []
    """Open the rest, too: adapters, catalogues and indexes put and deleted."""
    body_bytes: int = Field(2**20, ge=1)
    body_seconds: float = Field(10.0, gt=0)
    """For a whole body to arrive."""
    idle_seconds: float = Field(75.0, gt=0)
    """A connection without a request is closed after this, and one with half a header."""
    stalled_seconds: float = Field(30.0, gt=0)
    """A reader that takes nothing of what was sent is dropped after this."""
    request_seconds: float = Field(600.0, gt=0)
    """An answer that takes longer is cancelled."""
    drain_seconds: float = Field(30.0, gt=0)
    """After SIGTERM, for what runs to end."""
    requests_per_second: float | None = Field(None, gt=0)
    """For each key, or each address where there are no keys; none: no limit."""
    burst: int = Field(20, ge=1)
    """Requests that may come at once before ``requests_per_second`` counts."""
    most_answers: int = Field(128, ge=1)
    """Prompts times ``n`` of one request."""
    trace_to: str | None = Field(None, pattern=r"https?://[^\s]+")
    """Where spans go by OTLP over HTTP; none: there are none."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        keys = [key.get_secret_value() for key in (*self.api_keys, *self.admin_keys)]
        for key in keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError("a key has at least 8 characters of ASCII, without spaces")
        if set(self.api_keys) & set(self.admin_keys):
            raise ValueError("an admin key is also an API key; make them different")
        if not keys and not self.loopback:
            raise ValueError(
                f"host {self.host} can be reached from other machines; give a key "
                "(--api-key-file), or serve on 127.0.0.1"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_keys(variable: str, given_keys: Sequence[str], file: Path | None) -> list[SecretStr]:
    """The keys of an option, of a file with one a line, and of an environment variable.

    Raises :class:`InputError` for a file that others may read, or that holds none.
    """
    keys = list(given_keys)
    if file is not None:
        path = regular(given(file))
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise InputError(f"{path} may be read by others; run: chmod 600 {path}")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
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


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 takes any free one.

    Raises :class:`InputError` where it is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        raise InputError(
            f"{host}:{port} cannot be listened on: {error.strerror}; give another --port"
        ) from error
    return opened
