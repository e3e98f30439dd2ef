"""Keys: who may ask what, and from where."""

import base64
import logging

import pytest
from fastapi.routing import APIRoute
from pydantic import ValidationError

from geodapt.serve.http.app import build_routes
from geodapt.serve.http.keys import is_admin
from geodapt.serve.http.serve_settings import ServeSettings, read_keys
from tests.serve.asking import ADMIN, KEY

KEYS = {"api_keys": [KEY], "admin_keys": [ADMIN]}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def all_routes(service):
    """Every method and path that the application knows, its own schema among them."""
    schema = build_routes(service).openapi()
    found = [
        (method.upper(), path.replace("{name}", "toys"))
        for path, methods in schema["paths"].items()
        for method in methods
    ]
    return [*found, ("GET", "/openapi.json")]


def test_every_route_but_health_asks_for_a_key(serve):
    with serve(**KEYS) as served:
        routes = all_routes(served.service)
        assert len(routes) >= 18
        for method, path in [*routes, ("GET", "/no/such/route"), ("POST", "/health/../v1/models")]:
            expected = 200 if path == "/health" else 401
            for headers in ({}, bearer("wrong"), bearer(KEY[:-1]), {"Authorization": KEY}):
                answer = served.ask(method, path, {} if method != "GET" else None, headers)
                assert answer.status == expected, (method, path)
            if expected == 401:
                assert answer.json["error"]["code"] == "invalid_api_key"


def test_the_schema_names_every_route(serve):
    with serve() as served:
        app = build_routes(served.service)
    paths = {path for _, path in all_routes(served.service)}
    own = {r.path.replace("{name}", "toys") for r in app.routes if isinstance(r, APIRoute)}
    assert {path.replace("{name:path}", "toys") for path in own} <= paths


def test_a_user_asks_and_an_admin_changes(serve):
    with serve(**KEYS) as served:
        for method, path in all_routes(served.service):
            if is_admin(method, path):
                refused = served.ask(method, path, {}, bearer(KEY))
                assert (refused.status, refused.json["error"]["code"]) == (403, "admin_key_needed")
        body = {"source": "toys"}
        assert served.ask("PUT", "/v1/adapters/new", body, bearer(ADMIN)).status == 200
        assert served.ask("GET", "/v1/models", headers=bearer(KEY)).status == 200
        assert served.ask("GET", "/v1/models", headers=bearer(ADMIN)).status == 200


def test_a_browser_gives_the_key_as_a_password(serve):
    with serve(**KEYS) as served:
        asked = served.ask("GET", "/")
        encoded = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        page = served.ask("GET", "/", headers={"Authorization": f"Basic {encoded}"})
        broken = served.ask("GET", "/", headers={"Authorization": "Basic %%%"})
    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert (page.status, broken.status) == (200, 401)


def test_pages_of_other_sites_cannot_ask(serve):
    with serve() as served:
        here = f"127.0.0.1:{served.port}"
        assert served.complete(max_tokens=1).status == 200
        own = served.ask("GET", "/status", headers={"Origin": f"http://{here}"})
        foreign = served.ask("GET", "/status", headers={"Origin": "http://evil.example"})
        rebound = served.ask("GET", "/status", headers={"Host": "evil.example"})
        form = served.ask(
            "POST",
            "/v1/load_lora_adapter",
            b'{"lora_name": "toys"}',
            {"Content-Type": "text/plain"},
        )
    assert [a.status for a in (own, foreign, rebound, form)] == [200, 403, 403, 400]


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    (tmp_path / "keys").write_text("first\n# a remark\nsecond\n", encoding="utf-8-sig")
    (tmp_path / "keys").chmod(0o600)
    keys = read_keys("GEODAPT_NO_SUCH_KEYS", [], tmp_path / "keys")
    assert [key.get_secret_value() for key in keys] == ["first", "second"]


def test_no_key_is_logged(serve, caplog):
    caplog.set_level(logging.DEBUG)
    with serve(**KEYS) as served:
        served.ask("GET", "/v1/models", headers=bearer(KEY))
        served.ask("GET", "/v1/models", headers=bearer("another-secret"))
        shown = repr(served.service.settings)
    assert KEY not in caplog.text + shown
    assert ADMIN not in caplog.text + shown
    assert "another-secret" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "give a key"),
        ({"host": "::"}, "give a key"),
        ({"host": "example.org"}, "give a key"),
        ({"api_keys": ["short"]}, "at least 8"),
        ({"api_keys": ["with a space"]}, "without spaces"),
        ({"api_keys": [KEY], "admin_keys": [KEY]}, "make them different"),
    ],
)
def test_unsafe_settings_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        ServeSettings(**settings)


def test_only_this_machine_needs_no_key():
    assert ServeSettings().host == "127.0.0.1"
    assert ServeSettings(host="::1").loopback
    assert not ServeSettings(host="0.0.0.0", api_keys=[KEY]).loopback
