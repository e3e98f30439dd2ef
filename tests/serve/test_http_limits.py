"""Requests that are too large, too slow, too many, broken, or left alone."""

import asyncio
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from geodapt.serve.generation import EngineSettings
from geodapt.serve.http.event_stream import EventStream
from geodapt.serve.http.limits import TokenBuckets
from geodapt.serve.http.serve_settings import ServeSettings
from tests.serve.asking import KEY, eventually, read_all

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def body_of(raw):
    return json.loads(raw.partition(b"\r\n\r\n")[2])


def test_a_body_too_large_is_refused_before_it_is_read(serve):
    with serve(body_bytes=1000) as served:
        by_length = served.raw(f"{HEAD}Content-Length: 10000000000\r\n\r\n".encode())
        chunk = b"200\r\n" + b" " * 512 + b"\r\n"
        chunked = served.raw(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + 2 * chunk)
        no_number = served.raw(f"{HEAD}Content-Length: -5\r\n\r\n".encode())
        fits = served.complete(max_tokens=1)
    for raw in (by_length, chunked):
        assert raw.startswith(b"HTTP/1.1 413 ")
        assert body_of(raw)["error"]["code"] == "request_too_large"
    assert no_number.startswith(b"HTTP/1.1 400 ")
    assert fits.status == 200


def test_a_slow_sender_is_given_up(serve):
    with serve(body_seconds=0.3) as served, served.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 50\r\n\r\n{{".encode())
        raw = read_all(connection)
    assert raw.startswith(b"HTTP/1.1 408 ")
    assert body_of(raw)["error"]["code"] == "body_timeout"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"POST /v1/comple", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_without_a_request_is_closed(serve, sent):
    with serve(idle_seconds=1) as served, served.connect() as connection:
        with suppress(ConnectionError):  # on a slow machine it is closed before this is sent
            connection.sendall(sent)
            assert read_all(connection) == b""
        eventually(lambda: not served.connections)


def test_limits_are_those_that_the_guide_names():
    rows = (Path(__file__).parents[2] / "docs/serve.md").read_text().splitlines()
    cells = ([cell.strip("| ") for cell in row.split(" | ")] for row in rows)
    told = {row[0]: row[1] for row in cells if len(row) > 1}
    limits, engine = ServeSettings(), EngineSettings()
    assert told["body"] == f"1 MiB, in {limits.body_seconds:g} s"
    assert limits.body_bytes == 2**20
    assert told["prompts times `n`"] == str(limits.most_answers)
    running = told["answers that run, requests that wait"]
    assert running == f"`--slots`, {engine.slots}; `--queue`, {engine.queue}"
    assert told["an answer"] == f"`--request-seconds`, {limits.request_seconds:g}"
    assert told["a reader that takes nothing"] == f"{limits.stalled_seconds:g} s"
    assert told["a connection without a request"] == f"{limits.idle_seconds:g} s"
    assert told["after SIGTERM or Ctrl-C"] == f"`--drain-seconds`, {limits.drain_seconds:g}"


MALFORMED = {
    "nan": b'{"prompt": "a", "temperature": NaN}',
    "infinite": b'{"prompt": "a", "adapters": {"toys": 1e999}}',
    "brackets": b"[" * 30_000,
    "nested": b'{"prompt": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "bad utf-8": b'{"prompt": "\xff\xfe"}',
    "half a character": b'{"prompt": "\\ud800"}',
    "half a name": b'{"prompt": "a", "\\udfff": 1}',
    "empty": b"",
    "null": b"null",
    "text": b'"prompt"',
    "huge number": b'{"prompt": "a", "max_tokens": ' + b"9" * 4000 + b"}",
    "huger number": b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}",
    "mixed": b'{"prompt": [1, "a", [2]]}',
    "negative": b'{"prompt": [-1]}',
    "true": b'{"prompt": [true]}',
    "control": b'{"prompt": "a", "model": "\\u0000toys"}',
    "traversal": b'{"prompt": "a", "model": "../toys"}',
    "stop": b'{"prompt": "a", "stop": [""]}',
    "seed": b'{"prompt": "a", "seed": 99999999999999999999}',
    "bias": b'{"prompt": "a", "logit_bias": {"-1": 5}}',
}


def test_malformed_bodies_are_refused_in_one_shape(serve, engine):
    with serve() as served:
        for name, body in MALFORMED.items():
            answer = served.ask("POST", "/v1/completions", body)
            assert answer.status in (400, 404), (name, answer.body)
            assert set(answer.json["error"]) == {"message", "type", "param", "code"}, name
        assert served.complete(max_tokens=1).status == 200
    assert len(engine.gates) == 1


def test_overload_is_refused_at_once_and_what_runs_goes_on(serve, engine):
    """At once: while not one of those that run makes a step."""
    engine.most = 4
    with serve() as served, ThreadPoolExecutor(12) as pool:
        with engine.held():
            running = [pool.submit(served.complete, max_tokens=60) for _ in range(4)]
            eventually(lambda: len(engine.rows) == 4)
            for _ in range(20):
                refused = served.complete(max_tokens=5)
                assert (refused.status, refused.headers["retry-after"]) == (429, "3")
                assert refused.json["error"]["code"] == "queue_full"
            assert served.ask("POST", "/v1/chat/completions", b"{").status == 429  # not read
            metrics = served.ask("GET", "/metrics").body.decode()
            refusals = 'method="POST",route="/v1/completions",status="429"} 20.0'
            assert refusals in metrics
            assert len(engine.rows) == 4
        assert {future.result().status for future in running} == {200}
        assert served.ask("POST", "/v1/chat/completions", b"{").status == 400
        assert served.complete(max_tokens=1).status == 200
    assert not engine.rows


def test_in_overload_keys_and_sizes_are_asked_for_first_and_the_rest_is_answered(serve, engine):
    engine.most = 0
    with serve(api_keys=[KEY], body_bytes=1000) as served:
        key = {"Authorization": f"Bearer {KEY}"}
        for headers in ({}, {"Authorization": "Bearer a-wrong-one"}):
            told = served.ask("POST", "/v1/completions", b"{}", headers)
            assert (told.status, "retry-after" in told.headers) == (401, False)
        assert served.ask("POST", "/v1/completions", b" " * 1001, key).status == 413
        told = served.ask("POST", "/v1/completions", b"not read", key)
        assert (told.status, told.json["error"]["code"]) == (429, "queue_full")
        assert told.headers["retry-after"] == "3"
        assert served.ask("GET", "/health").status == 200
        assert served.ask("GET", "/ready", headers=key).status == 200
        assert served.ask("POST", "/tokenize", {"prompt": "a"}, key).status == 200


PARTS = {
    "at once": [HEAD + "Content-Length: 15\r\n\r\n" + '{"prompt": "a"}'],
    "in parts": [HEAD + "Content-", "Length: 15\r\n\r\n", '{"prompt"', ': "a"}'],
    "in chunks": [HEAD + "Transfer-Encoding: chunked\r\n\r\n", 'f\r\n{"prompt": "a"}\r\n0\r\n\r\n'],
    "in words of its own": [HEAD.replace("HTTP/1.1", "HTTP/1.0") + "Content-Length:  2\r\n\r\n{}"],
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_overload_refuses_what_comes_in_any_form(serve, engine, parts):
    engine.most = 0
    with serve() as served, served.connect() as connection:
        for part in parts:
            connection.sendall(part.encode())
            time.sleep(0.01)
        raw = read_all(connection)
        assert b" 429 " in raw.split(b"\r\n")[0]
        assert body_of(raw)["error"]["code"] == "queue_full"


def test_a_connection_from_an_overload_is_answered_when_there_is_room(serve, engine):
    engine.most = 0
    with serve() as served, served.connect() as silent, served.connect() as broken:
        eventually(lambda: len(served.connections) == 2)  # they are watched
        engine.most = 4
        for connection, body in ((silent, b'{"prompt": "a", "max_tokens": 1}'), (broken, b"{")):
            connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert silent.recv(15) == b"HTTP/1.1 200 OK"
        assert broken.recv(12) == b"HTTP/1.1 400"


def test_what_is_no_http_is_refused_in_the_shape_of_all_errors(serve):
    with serve() as served:
        raw = served.raw(b"GET /health HTTP/1.1\r\n" + b"no field\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert body_of(raw)["error"]["type"] == "invalid_request_error"


def test_no_part_of_a_request_runs_on_when_the_rest_is_refused(serve, engine, adapters):
    engine.most = 2
    with serve() as served:
        refused = served.complete(prompt=["a", "b", "c"], model="toys", max_tokens=10**4)
        assert refused.status == 400  # longer than the model reads
        refused = served.complete(prompt=["a", "b", "c"], model="toys", max_tokens=200)
        assert refused.status == 429
        eventually(lambda: not engine.rows)
        eventually(lambda: served.service.adapters.served("toys").requests == 0)


def test_a_client_that_asks_too_often_waits(serve):
    with serve(requests_per_second=0.5, burst=3) as served:
        answers = [served.ask("GET", "/v1/models") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert served.ask("GET", "/health").status == 200


def test_buckets_fill_again_and_forget_nobody_early():
    clock = [0.0]
    buckets = TokenBuckets(rate=2.0, burst=2, now=lambda: clock[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
    assert buckets.take("b") == 0
    clock[0] = 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(0.5)
    clock[0] = 100.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_a_client_that_left_end_within_a_step(serve, engine, stream):
    engine.pause = 0.05  # ten seconds for an answer: whoever leaves is noticed long before
    draw = random.Random(0)
    with serve() as served:
        adapters = served.service.adapters
        for _ in range(8):
            body = json.dumps({"prompt": "a", "max_tokens": 200, "model": "toys", "stream": stream})
            with served.connect() as connection:
                head = f"{HEAD}Content-Length: {len(body)}\r\n\r\n"
                connection.sendall((head + body).encode())
                eventually(lambda: engine.rows)
                time.sleep(0.03 * draw.random())
            eventually(lambda: not engine.rows)
        eventually(lambda: adapters.served("toys").requests == 0)
        eventually(lambda: engine.counts["cancelled"] == 8)


def test_a_reader_that_takes_nothing_is_dropped_and_others_go_on(serve, engine):
    engine.decode = lambda tokens: "x" * 200_000
    with serve(stalled_seconds=0.5) as served:
        body = json.dumps({"prompt": "a", "max_tokens": 250, "stream": True})
        with served.connect() as connection:
            connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            eventually(lambda: engine.counts["cancelled"] + engine.counts["ended"] > 0)
            assert served.complete(max_tokens=2).status == 200
            eventually(lambda: served.service.running == 0)
            eventually(lambda: not served.connections)
            taken = b""
            with suppress(ConnectionError):  # cut off, rather than ended
                while part := connection.recv(2**20):
                    taken += part
            assert b"[DONE]" not in taken
            assert len(taken) < 250 * 200_000 / 2


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_takes_too_long_is_cancelled(serve, engine, stream):
    with serve(request_seconds=0.3) as served:
        with engine.held():  # so that the first token takes longer
            late = served.complete(max_tokens=200, stream=stream)
        eventually(lambda: not engine.rows)
    assert (late.status, late.json["error"]["code"]) == (408, "timeout")
    eventually(lambda: engine.counts["cancelled"] == 1)


def test_a_stream_that_takes_too_long_ends_with_an_event():
    sent, cancelled = [], []

    async def events():
        yield {"choices": []}
        await asyncio.Event().wait()

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message.get("body", b""))

    answers = SimpleNamespace(cancel=lambda: cancelled.append(1))
    stream = EventStream(events(), answers, stalled=60.0, whole=0.1)
    asyncio.run(stream({"type": "http"}, receive, send))
    first, error, done = b"".join(sent).decode().strip().split("\n\n")
    assert json.loads(first.removeprefix("data: ")) == {"choices": []}
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
    assert done == "data: [DONE]"
    assert cancelled == [1]


def test_an_error_of_the_engine_has_a_status_before_the_first_token_and_an_event_after(
    serve, engine
):
    with serve() as served:
        engine.decode = lambda tokens: "x"
        engine.pause = 0.05
        with ThreadPoolExecutor(1) as pool:
            stream = pool.submit(served.complete, max_tokens=200, stream=True)
            eventually(lambda: engine.counts["tokens"] > 2)
            engine.rows[0].end("error")
            events = stream.result().events
        engine.alive = False
        stopped = served.complete(max_tokens=2, stream=True)
        for method in ("GET", "HEAD"):  # load balancers ask by either
            assert served.ask(method, "/ready").status == 503
            assert served.ask(method, "/health").status == 200
    assert json.loads(events[-2])["error"]["type"] == "server_error"
    assert events[-1] == "[DONE]"
    assert stopped.status == 503
    assert stopped.json["error"]["type"] == "overloaded_error"
