"""Two replicas by Ray against one server without it: started, asked, killed, ended.

Run by ``test_replicas.py`` in a process of its own, which has no network but loopback.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start as start_one
from geodapt.serve.served import Served as Named
from tests.commands import start
from tests.serve.asking import Served, eventually, running, streamed
from tests.serve.shelf import small_base, small_tokenizer, write_adapter_folders

GATES = [{}, {"model": "toys"}, {"model": "toys:0.5+tools:-0.5"}, {"model": "tools"}]
KEYS = {"Authorization": "Bearer a-key-for-everybody"}
ADMIN = {"Authorization": "Bearer a-key-for-the-admin"}


def made(folder):
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    model = small_base(tokenizer)
    model.save_pretrained(folder / "base")
    write_adapter_folders(model, folder / "adapters", ["toys", "tools"])
    for role, key in (("keys", KEYS), ("admins", ADMIN)):
        (folder / role).write_text(key["Authorization"].removeprefix("Bearer ") + "\n")
        (folder / role).chmod(0o600)


def asked(server, number, tokens=12, **more):
    """The text of one answer, whatever the gate; every request is answered with 200."""
    body = {"prompt": f"A hose and {number} trains", "max_tokens": tokens, "temperature": 0}
    body |= {"ignore_eos": True} | GATES[number % len(GATES)] | more
    answer = server.ask("POST", "/v1/completions", body, KEYS, timeout=120)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json["choices"][0]["text"]


def ready(server):
    try:
        return server.ask("GET", "/ready", headers=KEYS).status == 200
    except OSError:
        return False


def replicas(server):
    return server.ask("GET", "/status", headers=KEYS).json["replicas"]


def check(folder, server):
    for path in ("/v1/models", "/status", "/metrics"):
        assert server.ask("GET", path).status == 401
    assert server.ask("PUT", "/v1/adapters/mine", {"source": "toys"}, KEYS).status == 403
    bad = server.ask("POST", "/v1/completions", {"prompt": "a", "model": "none"}, KEYS)
    assert (bad.status, bad.json["error"]["code"]) == (404, "model_not_found")

    shutil.copytree(folder / "adapters", folder / "apart")  # the other server's own
    named = Named(base=str(folder / "base"), adapters=folder / "apart", dtype="float32")
    service = start_one(named, ServeSettings())
    with running(service) as one, ThreadPoolExecutor(8) as pool:
        numbers = range(24)
        expected = list(pool.map(lambda n: asked(one, n), numbers))
        assert list(pool.map(lambda n: asked(server, n), numbers)) == expected
        assert len(set(expected)) == len(expected)
        both = replicas(server)
        eventually(lambda: all(replica["tokens"] for replica in replicas(server)))

        put = server.ask("PUT", "/v1/adapters/mine", {"source": "toys"}, ADMIN)  # through one
        assert put.status == 200, put.body
        toys = [asked(one, n, model="toys") for n in range(8)]
        assert list(pool.map(lambda n: asked(server, n, model="mine"), range(8))) == toys
        assert server.ask("PUT", "/v1/adapters/mine", {"source": "tools"}, ADMIN).status == 200
        tools = [asked(one, n, model="tools") for n in range(8)]
        assert list(pool.map(lambda n: asked(server, n, model="mine"), range(8))) == tools

        # one replica is killed under load: its answers are asked again of the other
        long = [asked(one, n, 150) for n in range(16)]
        victim = both[0]["process"]

        def kill():
            eventually(lambda: all(r["running"] for r in replicas(server)), 120)
            os.kill(victim, signal.SIGKILL)

        killing = threading.Thread(target=kill)
        killing.start()
        found = list(pool.map(lambda n: asked(server, n % 16, 150), range(96)))
        killing.join()
        assert found == [long[n % 16] for n in range(96)]
        eventually(lambda: victim not in [r["process"] for r in replicas(server)], 120)
        eventually(lambda: len(replicas(server)) == 2, 180)
        assert list(pool.map(lambda n: asked(server, n), numbers)) == expected
    service.close()

    # who leaves is not answered any further, in whichever replica
    before = server.ask("GET", "/status", headers=KEYS).json["requests"]
    stream = streamed(server.port, 200, KEYS)
    stream.recv(1)
    stream.close()
    eventually(lambda: server.ask("GET", "/status", headers=KEYS).json["requests"] > before)
    text = server.ask("GET", "/metrics", headers=KEYS).body.decode()
    assert 'route="/v1/completions",status="200"' in text
    assert "geodapt_engine_tokens_total" in text
    assert "geodapt_first_token_seconds_count 0.0" not in text


def main():
    folder = Path(sys.argv[1])
    made(folder)
    names = ("--adapters", "adapters", "--api-key-file", "keys", "--admin-key-file", "admins")
    options = ("--ray", "--replicas", "2", "--port", "0", "--dtype", "float32")
    begun = time.monotonic()
    process = start(folder, "serve", "base", *names, *options)
    try:
        said = [process.stderr.readline()]
        while said[-1] and not said[-1].startswith("serving on http://127.0.0.1:"):
            said.append(process.stderr.readline())
        assert said[-1], "".join(said)
        seconds = {"start": round(time.monotonic() - begun, 1)}
        server = Served(None, int(said[-1].rstrip("/\n").rpartition(":")[2]))
        eventually(lambda: ready(server), 120)
        begun = time.monotonic()
        check(folder, server)
        seconds["check"] = round(time.monotonic() - begun, 1)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        seconds["end"] = round(time.monotonic() - begun, 1)
        told = "".join(said) + process.stderr.read()
        assert "Traceback" not in told, told
        assert "a replica died; /v1/completions is asked again" in told, told
        print(json.dumps(seconds))
    finally:
        process.kill()
        print(process.communicate()[1], file=sys.stderr)


if __name__ == "__main__":
    main()
