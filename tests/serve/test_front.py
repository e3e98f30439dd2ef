"""What the front does when replicas die, without any of them."""

import asyncio
import json
import threading
from dataclasses import replace
from http.client import HTTPException

import pytest

from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.http.app import around
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import ASKED_AGAIN, Service
from geodapt.serve.http.starting import NoShelf, start
from geodapt.serve.served import Served
from tests.serve.asking import eventually, running, streamed
from tests.serve.shelf import small_base, small_tokenizer, write_base_and_adapters

pytest.importorskip("ray")
WHOLE = [
    {"type": "http.response.start", "status": 200, "route": "/v1/completions",
     "headers": [(b"content-type", b"application/json")]},
    {"type": "http.response.body", "body": b'{"choices": []}'},
]  # fmt: skip
STREAM = [
    {"type": "http.response.start", "status": 200, "route": "/v1/completions",
     "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]},
    {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True},
]  # fmt: skip
COMPLETED = 'geodapt_http_requests_total{method="POST",route="/v1/completions",status="200"} 1'


class Script:
    """Replicas that do what stands here, one request after the other."""

    def __init__(self, *turns):
        self.turns, self.asked, self.cancelled = list(turns), [], 0

    def remote(self, scope, body):
        self.asked.append((scope, body))
        return Turn(self, self.turns.pop(0))


class Turn:
    def __init__(self, script, messages):
        self.script, self.messages = script, messages

    async def __aiter__(self):
        for message in self.messages:
            if isinstance(message, BaseException):
                raise message
            if message == "wait":
                await asyncio.Event().wait()
            yield [dict(message)]

    def cancel(self):
        self.script.cancelled += 1


@pytest.fixture
def front():
    """``with front(script, **settings) as server``."""
    from geodapt.serve.replicas.front import build_front
    from geodapt.serve.replicas.reports import Reports

    reports = Reports(lambda: [])

    def begin(script, **settings):
        shelf, metrics = AdapterFolder(None, NoShelf()), ServerMetrics(reports.statistics)
        service = Service(ServeSettings(**settings), reports, shelf, None, metrics)
        return running(service, around(build_front(service, script), service))

    yield begin
    reports.close()


def died():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def test_a_request_whose_replica_dies_is_asked_again_of_another(front):
    script = Script([died()], [died()], WHOLE)
    with front(script, api_keys=["a-key-for-everybody"]) as server:
        headers = {"Authorization": "Bearer a-key-for-everybody"}
        answer = server.ask("POST", "/v1/completions", {"prompt": "a"}, headers)
        # It is counted once it is sent, which the client may see first.
        eventually(
            lambda: COMPLETED in server.ask("GET", "/metrics", headers=headers).body.decode()
        )
        assert server.ask("GET", "/ready", headers=headers).status == 503  # there is none
        assert server.ask("POST", "/v1/completions", {"prompt": "a"}).status == 401
    assert (answer.status, answer.json) == (200, {"choices": []})
    assert len(script.asked) == 3
    assert all(body == b'{"prompt": "a"}' for _, body in script.asked)
    assert "everybody" not in str([scope["headers"] for scope, _ in script.asked])


def test_what_is_asked_again_is_told_so(front):
    """So that an adapter that the first replica has deleted already is no error in the second."""
    script = Script([died()], WHOLE, WHOLE)
    with front(script) as server:
        assert server.ask("DELETE", "/v1/adapters/toys").status == 200
        assert server.ask("DELETE", "/v1/adapters/toys").status == 200
    assert [scope.get(ASKED_AGAIN, False) for scope, _ in script.asked] == [False, True, False]


def test_after_the_first_byte_a_death_is_told(front):
    script = Script([*STREAM, died()], [*WHOLE[:1], died()])
    with front(script) as server:
        stream = server.complete(stream=True)
        with pytest.raises((OSError, HTTPException)):  # cut off: no half answer looks whole
            server.complete()
    assert stream.events[0] == "{}"
    assert "replica_died" in stream.events[1]
    assert stream.events[2] == "[DONE]"


def test_a_request_that_kills_every_replica_is_given_up(front):
    script = Script(*[[died()]] * 5)
    with front(script) as server:
        answer = server.complete()
    assert (answer.status, answer.json["error"]["code"]) == (503, "replica_died")


def test_who_leaves_is_cancelled(front):
    script = Script([*STREAM, "wait"])
    with front(script) as server:
        with server.connect() as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
            )
            connection.recv(1)
        eventually(lambda: script.cancelled == 1)


def test_what_takes_too_long_is_cancelled(front, monkeypatch):
    monkeypatch.setattr("geodapt.serve.replicas.front.PATIENCE", 0.0)
    script = Script(["wait"])
    with front(script, request_seconds=0.2) as server:
        late = server.complete()
    assert (late.status, late.json["error"]["code"]) == (408, "timeout")
    eventually(lambda: script.cancelled == 1)


def test_what_replicas_say_is_summed_and_silence_is_not_taken_for_health():
    from geodapt.serve.http.answers import NoText
    from geodapt.serve.replicas.replica import ReplicaReport
    from geodapt.serve.replicas.reports import Reports

    now = replace(NoText().statistics(), running=1, tokens=7)
    told = [ReplicaReport(1, "a", now, [(0.5, 2.0)]), ReplicaReport(2, "a", now, [])]
    silent = threading.Event()

    def ask():
        if silent.is_set():
            raise TimeoutError
        return told

    firsts = []
    reports = Reports(ask, pause=0.01, lost=0.1, first_token=firsts.append)
    try:
        eventually(lambda: reports.ready)
        assert (reports.statistics().running, reports.statistics().tokens) == (2, 14)
        assert firsts[0] == 0.5
        silent.set()
        eventually(lambda: not reports.ready)
        assert (reports.statistics().running, reports.statistics().tokens) == (0, 14)
    finally:
        reports.close()


def test_a_front_without_replicas_is_given_up():
    """As where Ray itself is gone: whoever started the server can start it again."""
    from geodapt.serve.http.answers import NoText
    from geodapt.serve.replicas.replica import ReplicaReport
    from geodapt.serve.replicas.reports import Reports

    told = [ReplicaReport(1, "a", NoText().statistics(), [])]
    reports = Reports(lambda: list(told), pause=0.01, lost=0.0, given_up=0.2)
    try:
        eventually(lambda: reports.ready)
        assert reports.alive
        told.clear()
        eventually(lambda: not reports.ready)
        eventually(lambda: not reports.alive)
        told.append(ReplicaReport(2, "a", NoText().statistics(), []))
        eventually(lambda: reports.alive)
    finally:
        reports.close()


class OneReplica:
    """A handle to a replica of this process."""

    def __init__(self, replica):
        self.replica, self.cancelled = replica, 0

    def remote(self, scope, body):
        handle = self

        class Call:
            async def __aiter__(self):
                self.messages = handle.replica.answer(scope, body)
                async for messages in self.messages:
                    yield messages

            def cancel(self):
                handle.cancelled += 1
                task = asyncio.ensure_future(self.messages.aclose())
                handle.closing = task  # held until it is done

        return Call()


def test_a_replica_behind_the_front_answers_as_a_server_and_stops_for_who_leaves(front, tmp_path):
    from geodapt.serve.replicas.replica import Replica

    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    small_base(tokenizer, positions=4096).save_pretrained(tmp_path / "base")
    named = Served(base=str(tmp_path / "base"), dtype="float32")
    replica = Replica(named, ServeSettings(), 1)
    handle = OneReplica(replica)
    body = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    with front(handle) as server:
        whole = server.complete(**body).json["choices"][0]["text"]
        events = server.complete(stream=True, **body).events
        refused = server.complete(temperature=-1)
        stream = streamed(server.port, 4000)
        stream.recv(1)
        stream.close()
        eventually(lambda: handle.cancelled == 1)
        eventually(lambda: asyncio.run(replica.report()).statistics.cancelled == 1)
    service = start(named, ServeSettings())
    with running(service) as server:
        assert server.complete(**body).json["choices"][0]["text"] == whole
    service.close()
    assert "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1]) == whole
    assert (refused.status, events[-1]) == (400, "[DONE]")


def test_the_page_and_the_figures_of_a_front_are_its_replicas(tmp_path):
    from geodapt.serve.replicas.front import build_front
    from geodapt.serve.replicas.replica import Replica
    from geodapt.serve.replicas.reports import Reports

    shelf = write_base_and_adapters(tmp_path)
    named = Served(base=str(shelf / "base"), adapters=shelf / "adapters", dtype="float32")
    replica = Replica(named, ServeSettings(), 1)
    metrics = ServerMetrics(lambda: reports.statistics())
    reports = Reports(
        lambda: [asyncio.run(replica.report())], pause=0.01, first_token=metrics.first_token.observe
    )
    service = Service(
        ServeSettings(name="small"), reports, AdapterFolder(None, NoShelf()), None, metrics,
        recent=reports.recent, replicas=reports.replicas, close=reports.close,
    )  # fmt: skip

    def metric(name):
        lines = server.ask("GET", "/metrics").body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), None)

    try:
        with running(service, around(build_front(service, OneReplica(replica)), service)) as server:
            page = server.ask("GET", "/")
            assert (page.status, b"small" in page.body) == (200, True)
            eventually(lambda: server.ask("GET", "/ready").status == 200)
            names = [each["name"] for each in server.ask("GET", "/v1/adapters").json["data"]]
            assert names == ["tools", "toys"]
            body = {"max_tokens": 8, "ignore_eos": True, "model": "toys"}
            assert server.complete(**body).status == 200
            eventually(lambda: metric("geodapt_engine_tokens_total ") == 8)
            eventually(lambda: metric("geodapt_first_token_seconds_count ") == 1)
            assert metric('geodapt_adapter_resident{name="toys"') == 1
            status = server.ask("GET", "/status").json
            assert status["replicas"][0]["tokens"] == status["tokens"] == 8
            assert status["resident"] == ["toys"]
            assert 0 < status["first_token"]["p50"] <= status["whole_answer"]["p50"]
    finally:
        reports.close()
        replica.__del__()


def test_a_replica_of_nothing_says_why_once(tmp_path):
    from geodapt.serve.replicas.replica import Replica

    replica = Replica(Served(base=str(tmp_path)), ServeSettings(), 1)
    assert str(tmp_path) in asyncio.run(replica.refused())
    asyncio.run(replica.check_health())  # no reason to start it again
