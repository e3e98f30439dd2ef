"""No name in a request leads out of the folders that a server was given."""

import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.serve.opened import HOSTILE, opened

DEEP = ["../" * 12 + "etc/passwd", "..%2f..%2fsecret", "%2e%2e%2fsecret", "....//secret", "/secret"]


@pytest.mark.parametrize("encoded", [True, False])
def test_over_http_nothing_outside_of_the_folder_is_opened(serve, adapters, tmp_path, encoded):
    place, _ = adapters
    shutil.copytree(place / "toys", tmp_path / "secret")
    (place / "link").symlink_to(tmp_path / "secret")
    before = {path.name for path in place.iterdir()}
    names = [*HOSTILE, *DEEP, str(tmp_path / "secret")]
    found = {}
    with serve() as served, opened() as paths:
        assert served.ask("PUT", "/v1/adapters/new", {"source": "toys"}).status == 200
        for name in names:
            path = f"/v1/adapters/{quote(name, safe='') if encoded else name}"
            if path.isascii() and path.isprintable():
                for method in ("GET", "PUT", "DELETE"):
                    found[method, name] = served.ask(method, path, {"source": "toys"})
            load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
            found["load", name] = served.ask("POST", load, {"lora_name": "a", "lora_path": name})
            found["unload", name] = served.ask("POST", unload, {"lora_name": name})
            found["put", name] = served.ask("PUT", "/v1/adapters/a", {"source": name})
            found["ask", name] = served.complete(model=name or "..", max_tokens=1)
    taken = {key for key, answer in found.items() if answer.status == 200}
    # the list of all; and a name that a link has, put from another folder, and deleted
    assert taken <= {("GET", ""), ("PUT", "link"), ("DELETE", "link")}
    assert all(answer.status < 500 for answer in found.values())
    outside = {path for path in paths if not Path(path).is_relative_to(place)}
    # but for a folder that is removed by its descriptor, and lines of code for a log
    assert not {path for path in outside if not path.isdigit() and not path.endswith(".py")}
    made = {path.name for path in place.iterdir()} - before
    assert made <= {"aliases.json", "sha256", ".puts.lock", ".aliases.json.lock"}
