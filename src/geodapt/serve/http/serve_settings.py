"""What an operator can set of the HTTP side."""

import ipaddress
from typing import Self

from pydantic import Field, SecretStr, model_validator

from geodapt.settings import Settings


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
