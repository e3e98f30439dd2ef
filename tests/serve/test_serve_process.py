"""A server's process: how it begins, and how it ends."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

import psutil
import pytest

from tests.commands import start
from tests.forked import fork
from tests.serve.asking import Served, eventually, read_all, streamed
from tests.serve.steady_server import serve_steadily

pytestmark = pytest.mark.slow


@contextmanager
def steady_server(folder, drain=600):
    process = fork(folder, run=partial(serve_steadily, folder, drain))
    try:
        served = Served(None, int(process.line(timeout=300)))
        eventually(lambda: answers(served))
        yield process, served
    finally:
        process.kill()
        process.communicate()


def answers(served):
    try:
        return served.ask("GET", "/ready").status == 200
    except OSError:
        return False


def test_after_sigterm_streams_end_and_new_requests_are_turned_away(tmp_path):
    with steady_server(tmp_path) as (process, served), ThreadPoolExecutor(16) as pool:
        streams = [streamed(served.port, 40) for _ in range(16)]
        for stream in streams:
            stream.recv(1, 2)  # it has begun (MSG_PEEK)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: served.ask("GET", "/ready").status == 503)
        refused = served.complete(max_tokens=1)
        assert (refused.status, refused.json["error"]["code"]) == (503, "stopping")
        process.send_signal(signal.SIGUSR2)  # what runs may end now
        whole = list(pool.map(read_all, streams))
        assert process.wait(120) == 0
    assert all(b"data: [DONE]" in content for content in whole)
    assert all(content.count(b'"text"') == 40 for content in whole)


def test_bodies_that_are_refused_leave_no_memory(tmp_path):
    """Ten times what a body may have, announced and in chunks, from many at once."""
    with steady_server(tmp_path) as (process, served), ThreadPoolExecutor(8) as pool:

        def send(number):
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
            with served.connect() as connection, suppress(ConnectionError):
                if number % 2:
                    head += b"Content-Length: %d\r\n\r\n" % (10 * 2**20)
                    connection.sendall(head + b" " * 10 * 2**20)
                else:
                    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 160)
            return served.complete(max_tokens=0).status

        def memory():
            return psutil.Process(process.pid).memory_info().rss / 2**20

        assert set(pool.map(send, range(8))) == {200}
        most = before = memory()
        sent = [pool.submit(send, number) for number in range(64)]
        while not all(each.done() for each in sent):
            most = max(most, memory())
            time.sleep(0.005)
        assert {each.result() for each in sent} == {200}
        assert most - before < 24  # where eight bodies at once would be 80


def test_what_does_not_end_in_time_is_ended_and_told(tmp_path):
    with steady_server(tmp_path, drain=0.5) as (process, served):
        stream = streamed(served.port, 240)
        stream.recv(1, 2)
        process.send_signal(signal.SIGTERM)
        content = read_all(stream)
        assert process.wait(120) == 0
    assert b'"code": "cancelled"' in content


def test_a_dead_engine_ends_the_process(tmp_path):
    with steady_server(tmp_path) as (process, _):
        process.send_signal(signal.SIGUSR1)
        assert process.wait(120) == 1


def test_the_command_serves_an_encoder_until_it_is_told(tmp_path):
    process = start(tmp_path, "serve", "--embed", "minilm", "--port", "0")
    try:
        said = process.stderr.readline()
        assert said.startswith("serving on http://127.0.0.1:")
        served = Served(None, int(said.rstrip("/\n").rpartition(":")[2]))
        eventually(lambda: answers(served), 120)
        found = served.ask("POST", "/v1/embeddings", {"input": "a bird"}, timeout=60).json
        assert len(found["data"][0]["embedding"]) == 384
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_command_refuses_what_is_not_safe(geodapt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("# none\n")
    keys.chmod(0o600)
    readable = tmp_path / "readable"
    readable.write_text("a-key-for-everybody\n")
    readable.chmod(0o644)
    for arguments, says in (
        (["--embed", "minilm", "--host", "0.0.0.0"], "give a key"),
        (["--embed", "minilm", "--api-key", "short"], "at least 8"),
        (["--embed", "minilm", "--api-key-file", keys], "holds no key"),
        (["--embed", "minilm", "--api-key-file", readable], "chmod 600"),
        (["--embed", "minilm", "--host", "256.0.0.1", "--api-key", "x" * 20], "cannot be listened"),
        ([], "name what to serve"),
        (["--adapters", tmp_path, "--embed", "minilm"], "for a language model"),
        (["--embed", "minilm", "--dtype", "float32"], "--dtype is for a language model"),
        (["--embed", "minilm", "--slots", "16"], "--slots is for a language model"),
        (["--embed", "minilm", "--queue", "9"], "--queue is for a language model"),
        (["--embed", "minilm", "--kv-tokens", "9"], "--kv-tokens is for a language model"),
        (["--embed", "minilm", "--capacity", "9"], "--capacity is for a language model"),
        ([tmp_path, "--adapters-in-memory", "9"], "--adapters-in-memory is for adapters"),
        ([tmp_path, "--store", tmp_path], "--store is for catalogues"),
        (["--embed", "nobody/nothing/here"], "does not exist"),
    ):
        done = geodapt("serve", "--port", "0", *arguments)
        assert (done.code, says in done.err) == (2, True), done.err
        assert "short" not in done.err
