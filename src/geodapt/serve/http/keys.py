"""Who may ask: keys, and pages of other sites that a browser asks for."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

from pydantic import SecretStr

from geodapt.serve.http.api_errors import ApiError, App, Receive, Scope, Send
from geodapt.serve.http.serve_settings import ServeSettings

OPEN = "/health"
"""The one route without a key."""
LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}

Role = Literal["user", "admin"]


def is_admin(method: str, path: str) -> bool:
    """Whether a request changes what is served to others."""
    if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        return True
    shared = ("/v1/adapters", "/v1/indexes", "/v1/catalogues")
    return method not in ("GET", "HEAD") and path.startswith(shared)


class Keys:
    """Who may ask for what.

    A key comes as ``Authorization: Bearer KEY``, or as the password of ``Basic``, which is what a
    browser asks for when it opens the page. Without keys, which only an address of this machine
    may do, requests are taken under this machine's names alone, so that no other site can point
    its own name here (DNS rebinding). A page of another site cannot ask in either case.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.keys = [
            *((_digest(key), "user") for key in _plain(settings.api_keys)),
            *((_digest(key), "admin") for key in _plain(settings.admin_keys)),
        ]

    def check(self, scope: Scope) -> None:
        """Note who asks. Raises :class:`ApiError` for who may not."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        scope["client_key"] = (scope.get("client") or ("",))[0]
        if scope["path"] == OPEN:
            return
        if origin is not None and origin.rpartition(b"//")[2] != host:
            raise ApiError(403, "pages of other sites may not ask this server", "foreign_origin")
        if not self.keys:
            if host.decode("latin-1").rsplit(":", 1)[0].lower() not in LOCAL_HOSTS and (
                host.decode("latin-1").lower() not in LOCAL_HOSTS
            ):
                raise ApiError(403, "without a key, ask for this server as localhost", "host")
            return
        given = _given(headers.get(b"authorization", b""))
        role, mark = None, _digest(given)
        for digest, of in self.keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(digest, mark):
                role = of
        if role is None:
            raise ApiError(
                401,
                "give a key: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="geodapt", charset="UTF-8"'},
            )
        if role != "admin" and is_admin(scope["method"], scope["path"]):
            raise ApiError(403, "this needs an admin key (--admin-key-file)", "admin_key_needed")
        scope["client_key"] = mark.hex()


class KeyCheck:
    """Asks every request but ``/health`` for a key, before its body is read."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.keys = app, Keys(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.keys.check(scope)
        except ApiError as error:
            await error.send(send)
            return
        await self.app(scope, receive, send)


def _given(authorization: bytes) -> bytes:
    """The key in a header, empty where there is none."""
    scheme, _, value = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()  # of one length, as compare_digest wants it


def _plain(keys: Sequence[SecretStr]) -> list[bytes]:
    return [key.get_secret_value().encode() for key in keys]
