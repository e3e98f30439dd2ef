"""A span a request, in which the engine's stages follow each other."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start
from geodapt.serve.http.tracing import Tracing
from geodapt.serve.served import Served
from tests.serve.asking import eventually, running
from tests.serve.shelf import small_base, small_tokenizer, write_adapter_folders

pytest.importorskip("opentelemetry.sdk")
CALLER = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    model = small_base(tokenizer)
    model.save_pretrained(folder / "base")
    write_adapter_folders(model, folder / "adapters", ["toys"])
    return Served(base=str(folder / "base"), adapters=folder / "adapters", slots=1, dtype="float32")


@pytest.fixture
def traced(named):
    """A server whose spans stay in memory."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    service, kept, provider = (
        start(named, ServeSettings()),
        InMemorySpanExporter(),
        TracerProvider(),
    )
    provider.add_span_processor(SimpleSpanProcessor(kept))
    service.tracing = Tracing(provider.get_tracer("test"))
    with running(service) as server:
        yield server, kept
    service.close()


def whole(kept, count):
    """So many requests' spans: the request's own, and what lies within, by name."""
    eventually(lambda: sum(s.parent is None or s.parent.is_remote for s in _done(kept)) == count)
    spans = _done(kept)
    roots = [s for s in spans if s.parent is None or s.parent.is_remote]
    within = [
        {s.name: s for s in spans if s.parent and s.parent.span_id == root.context.span_id}
        for root in roots
    ]
    return list(zip(roots, within, strict=True))


def _done(kept):
    return kept.get_finished_spans()


def test_a_requests_stages_follow_each_other_within_its_span(traced):
    server, kept = traced
    body = {"prompt": "A hose", "max_tokens": 6, "ignore_eos": True, "model": "toys"}
    parent = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    assert server.ask("POST", "/v1/completions", body, parent).status == 200
    ((span, stages),) = whole(kept, 1)
    assert span.name == "POST /v1/completions"
    assert f"{span.context.trace_id:032x}" == CALLER
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["gen_ai.request.model"] == "toys"
    queue, prefill, decode = (stages[name] for name in ("queue", "prefill", "decode"))
    times = [
        span.start_time,
        *(queue.start_time, queue.end_time, prefill.end_time, decode.end_time),
        span.end_time,
    ]
    assert times == sorted(times)
    assert (prefill.start_time, decode.start_time) == (queue.end_time, prefill.end_time)
    assert prefill.attributes["gen_ai.usage.input_tokens"] > 0
    assert decode.attributes["gen_ai.usage.output_tokens"] == 6
    assert decode.attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert "A hose" not in str([s.to_json() for s in _done(kept)])


def test_who_waits_for_a_slot_waits_in_the_queue(traced):
    server, kept = traced
    body = {"prompt": ["A hose", "A drill"], "max_tokens": 40, "ignore_eos": True}
    assert server.ask("POST", "/v1/completions", body).status == 200  # there is one slot
    spans = [span for span in _done(kept) if span.name == "queue"]
    queue = {span.attributes["geodapt.answer"]: span for span in spans}
    decode = {s.attributes["geodapt.answer"]: s for s in _done(kept) if s.name == "decode"}
    waited = queue[1].end_time - queue[1].start_time
    assert waited >= 0.9 * (decode[0].end_time - decode[0].start_time)


def test_streams_refusals_and_what_is_not_traced(traced):
    server, kept = traced
    server.complete(stream=True, max_tokens=3)
    assert server.complete(model="nobody").status == 404
    assert server.ask("GET", "/status").status == 200
    (stream, stages), (refused, none) = whole(kept, 2)
    assert set(stages) == {"queue", "prefill", "decode"}
    assert stream.end_time >= stages["decode"].end_time
    assert (refused.attributes["http.response.status_code"], none) == (404, {})


def test_spans_reach_a_collector(named):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
    try:
        service = start(named, ServeSettings(trace_to=address))
        with running(service) as server:
            assert server.complete(max_tokens=2).status == 200
        service.close()  # which sends what is left
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    names = [
        span.name
        for content in got
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(names) == ["POST /v1/completions", "decode", "prefill", "queue"]
