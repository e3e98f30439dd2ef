"""What routes answer: OpenAI's shapes, and the gate that a request asked for."""

import asyncio
import json
import threading
from itertools import chain
from types import SimpleNamespace

import pytest

from geodapt.adapters import Mix, TopAtoms
from geodapt.serve.generation import Event
from geodapt.serve.http.answers import Answers

GATES = [
    ({}, None),
    ({"model": "base"}, None),
    ({"model": "toys"}, {"toys": 1.0}),
    ({"model": "toys:0.5+tools:-0.25"}, {"toys": 0.5, "tools": -0.25}),
    ({"adapters": {"tools": 2}}, {"tools": 2.0}),
    ({"model": "base", "adapters": {"tools": 0.5, "toys": 0}}, {"tools": 0.5}),
]


@pytest.mark.parametrize(("asked", "weights"), GATES)
def test_a_request_brings_its_gate(serve, engine, asked, weights):
    with serve() as served:
        assert served.complete(max_tokens=1, **asked).status == 200
        versions = {a["name"]: a["version"] for a in served.ask("GET", "/v1/adapters").json["data"]}
    expected = None if weights is None else Mix({versions[n]: w for n, w in weights.items()})
    assert engine.gates == [expected]


def test_atoms_choose_within_the_mixture(serve, engine):
    with serve() as served:
        atoms = {"keep": 0.5, "per": "sequence"}
        assert served.complete(model="toys", atoms=atoms, max_tokens=1).status == 200
        assert served.complete(atoms={"keep": 3}, adapters={"toys": 1}, max_tokens=1).status == 200
        refused = [
            served.complete(atoms={"keep": 3}),
            served.complete(model="toys", adapters={"tools": 1}),
            served.complete(model="toys:1+toys:1"),
            served.complete(model="toys:x"),
            served.complete(adapters={"toys": 1, "nobody": 1}),
        ]
    first, second = engine.gates
    assert (first.keep, first.per, len(first.entries[0])) == (0.5, "sequence", 1)
    assert isinstance(second, TopAtoms)
    assert second.keep == 3
    assert [answer.status for answer in refused] == [400, 400, 400, 404, 404]
    assert all({"message", "type", "param", "code"} == set(a.json["error"]) for a in refused)


def test_a_stream_brings_what_the_whole_answer_has(serve):
    with serve() as served:
        body = {"max_tokens": 6, "n": 2, "model": "toys", "logprobs": 2, "echo": True}
        whole = served.complete(**body).json
        stream = served.complete(**body, stream=True, stream_options={"include_usage": True})
    *events, done = stream.events
    assert done == "[DONE]"
    *chunks, usage = map(json.loads, events)
    assert usage["usage"] == whole["usage"] == {
        "prompt_tokens": 2, "completion_tokens": 12, "total_tokens": 14
    }  # fmt: skip
    assert {chunk["id"] for chunk in chunks} == {usage["id"]}
    for number, choice in enumerate(whole["choices"]):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == number]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + ["length"]
        for key, values in choice["logprobs"].items():
            parts = [part["logprobs"][key] for part in own if part["logprobs"]]
            assert list(chain.from_iterable(parts)) == values


def test_echoed_logprobs_are_as_lm_eval_reads_them(serve, tokenizer):
    prompt = tokenizer("A hose of tools").input_ids
    with serve() as served:
        body = {"prompt": [prompt, prompt], "max_tokens": 1, "logprobs": 1, "echo": True}
        first, second = served.complete(**body).json["choices"]
    assert first["text"].startswith("A hose of tools")
    assert first["logprobs"] == second["logprobs"]
    found = first["logprobs"]
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert len(found["tokens"]) == len(prompt) + 1
    for logprob, top in zip(found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True):
        assert logprob in top.values()  # a client sees whether the token was the best one
    assert "".join(found["tokens"][: len(prompt)]) == "A hose of tools"
    pieces = zip(found["tokens"], found["text_offset"], strict=True)
    assert all(first["text"][at : at + len(t)] == t for t, at in pieces if "token_id" not in t)


@pytest.mark.parametrize("whole", [True, False])
def test_no_event_is_lost_and_a_whole_answer_wakes_the_loop_for_its_ends_alone(whole):
    """Events of three answers from another thread, which goes on while some are taken."""
    last, wakes, released = 400, [], []

    class Engine:
        def submit(self, generation, on_event):
            self.tell = [*getattr(self, "tell", []), on_event]

    async def listen():
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: (wakes.append(1), wake(*given))
        lease = SimpleNamespace(release=lambda: released.append(1))
        answers, engine = Answers([None] * 3, lease, whole=whole), Engine()
        answers.submit(engine)

        def run():
            for number in range(last):
                for tell in engine.tell:
                    tell(Event(token=number, finish="length" if number == last - 1 else None))

        thread = threading.Thread(target=run)
        thread.start()
        found = [[], [], []]
        async for events in answers.each():
            for number, event in events:
                found[number].append(event.token)
        thread.join()
        return found

    assert asyncio.run(listen()) == [list(range(last))] * 3
    assert released == [1]
    assert 1 <= len(wakes) <= (4 if whole else 3 * last)


def test_prompts_come_as_texts_and_tokens(serve, tokenizer):
    tokens = tokenizer("A hose").input_ids
    with serve() as served:
        forms = ["A hose", tokens, ["A hose", "A hose"], [tokens, "A hose"]]
        found = [served.complete(prompt=form, max_tokens=3).json for form in forms]
        unknown = served.complete(prompt=[len(tokenizer)])
        empty = served.complete(prompt=[], max_tokens=1)
    texts = [choice["text"] for answer in found for choice in answer["choices"]]
    assert len(texts) == 6
    assert len(set(texts)) == 1
    assert [answer["usage"]["prompt_tokens"] for answer in found] == [2, 2, 4, 4]
    assert unknown.status == 400
    assert empty.json["usage"]["prompt_tokens"] == 1  # begins as a text does


def test_a_chat_goes_through_the_template(serve, tokenizer):
    messages = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": [{"type": "text", "text": part} for part in ("A ", "hose")]},
    ]
    written = "<system>Be kind\n<user>A hose\n<assistant>"
    with serve() as served:
        whole = served.ask(
            "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 4}
        ).json
        same = served.complete(prompt=written, max_tokens=4).json
        body = {"messages": messages, "max_completion_tokens": 4, "stream": True}
        *chunks, done = served.ask("POST", "/v1/chat/completions", body).events
        refused = served.ask("POST", "/v1/chat/completions", {"messages": messages[::-1]})
        counted = served.ask("POST", "/tokenize", {"messages": messages}).json
    message = whole["choices"][0]["message"]
    assert message == {"role": "assistant", "content": same["choices"][0]["text"], "refusal": None}
    assert whole["usage"]["prompt_tokens"] == counted["count"] == same["usage"]["prompt_tokens"]
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert done == "[DONE]"
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert refused.status == 400
    assert "the system speaks first" in refused.json["error"]["message"]


def test_what_cannot_be_served_is_refused(serve):
    with serve() as served:
        refused = {
            "long": served.complete(prompt="A hose " * 200),
            "many": served.complete(prompt=["a"] * 100, n=2),
            "unknown": served.complete(temperatur=0.5),
            "ranked": served.complete(best_of=3),
            "tools": served.ask("POST", "/v1/chat/completions", {
                "messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}],
            }),
        }  # fmt: skip
    assert {name: answer.status for name, answer in refused.items()} == dict.fromkeys(refused, 400)
    assert refused["long"].json["error"]["code"] == "context_length_exceeded"
    assert refused["unknown"].json["error"]["param"] == "temperatur"


def test_tokens_there_and_back(serve, tokenizer):
    with serve() as served:
        made = served.ask("POST", "/tokenize", {"prompt": "a drill", "return_token_strs": True})
        back = served.ask("POST", "/detokenize", {"tokens": made.json["tokens"]})
        info = served.ask("GET", "/tokenizer_info").json
    assert made.json["tokens"] == tokenizer("a drill").input_ids
    assert "".join(made.json["token_strs"]) == back.json["prompt"] == "a drill"
    assert (info["bos_token"], info["eos_token_id"], info["vocab_size"]) == ("<s>", 2, 290)


def test_adapters_come_and_go_over_http(serve, engine):
    with serve() as served:
        put = served.ask("PUT", "/v1/adapters/drills", {"source": "tools"})
        models = [m["id"] for m in served.ask("GET", "/v1/models").json["data"]]
        answer = served.complete(model="drills", max_tokens=1)
        one = served.ask("GET", "/v1/models/drills")
        gone = served.ask("DELETE", "/v1/adapters/drills")
        after = served.complete(model="drills", max_tokens=1)
        body = {"lora_name": "trains", "lora_path": "toys"}
        loaded = served.ask("POST", "/v1/load_lora_adapter", body)
        again = served.complete(model="trains", max_tokens=1)
        unloaded = served.ask("POST", "/v1/unload_lora_adapter", body | {"lora_path": None})
        dropped = served.ask("POST", "/v1/unload_lora_adapter", {"lora_name": "trains"})
    assert put.json["rank"] == 4
    assert models == ["base", "drills", "tools", "toys"]
    assert [a.status for a in (answer, one, gone, after)] == [200, 200, 200, 404]
    assert after.json["error"]["code"] == "model_not_found"
    assert [a.status for a in (loaded, again, unloaded, dropped)] == [200, 200, 400, 200]


def test_the_page_and_metrics_show_what_ran(serve):
    with serve() as served:
        served.complete(model="toys", max_tokens=5)
        served.complete(bogus=1)
        page = served.ask("GET", "/")
        metrics = served.ask("GET", "/metrics").body.decode()
        status = served.ask("GET", "/status").json
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert b"http" not in page.body.replace(b"http_", b"")  # nothing from elsewhere
    assert "geodapt_engine_tokens_total 5.0" in metrics
    label = 'method="POST",route="/v1/completions",status'
    assert f'geodapt_http_requests_total{{{label}="200"}} 1.0' in metrics
    assert f'geodapt_http_requests_total{{{label}="400"}} 1.0' in metrics
    assert status["tokens"] == 5
    assert 0 < status["first_token"]["p50"] <= status["whole_answer"]["p50"]
