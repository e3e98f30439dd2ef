"""Rows that join and leave a running batch get the answers that they would get alone."""

import threading
from contextlib import contextmanager

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

from geodapt.adapters import Mix
from geodapt.errors import InputError
from geodapt.serve.engine import Engine
from geodapt.serve.generation import EngineSettings, Full, Generation, Sampling, Stopped
from tests.serve.models import GATES, KINDS, alone, prompt, served

GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4}
BART = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 50},
}


@contextmanager
def held(engine):
    """Nothing runs inside the block: the engine's thread waits."""
    begun, go = threading.Event(), threading.Event()

    def wait():
        begun.set()
        go.wait(60)

    engine.score(wait)
    begun.wait(60)
    try:
        yield
    finally:
        go.set()


def greedy(count: int, **more) -> Sampling:
    return Sampling(count, temperature=0.0, **more)


def tokens(ticket) -> list[int]:
    events = list(ticket)
    assert events[-1].finish in ("stop", "length"), events[-1]
    return [event.token for event in events if event.token is not None and not event.echoed]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_no_answer(kind):
    """Unequal prompts and lengths, more requests than places, prompts read in pieces."""
    bank = served(kind)
    asked = [
        Generation(prompt(3 + 5 * (i % 4), i), greedy(3 + 4 * (i % 3)), GATES[i % len(GATES)])
        for i in range(14)
    ]
    wanted = [alone(bank, g.prompt, g.gate, g.sampling.max_new_tokens) for g in asked]
    assert len({tuple(answer) for answer in wanted}) > 10
    assert sum(len(set(answer)) > 1 for answer in wanted) > len(asked) // 2
    with Engine(bank.model, bank=bank, settings=EngineSettings(slots=5, prefill_tokens=7)) as it:
        tickets = [it.submit(generation) for generation in asked]
        assert [tokens(ticket) for ticket in tickets] == wanted
        assert it.drain(60)
        done = it.statistics()
    assert done.requests == 14
    assert done.failed == done.running == done.queued == done.kv_tokens == 0
    assert done.tokens == sum(map(len, wanted))


def test_a_seed_gives_one_answer_in_any_company():
    bank = served("llama")
    sampling = Sampling(12, temperature=1.3, top_k=20, top_p=0.9, seed=5, ignore_eos=True)
    asked = Generation(prompt(6, 1), sampling, GATES[1])
    others = [Generation(prompt(9, i), Sampling(9, seed=i)) for i in range(4)]
    with Engine(bank.model, bank=bank) as engine:
        once = tokens(engine.submit(asked))
        tickets = [engine.submit(other) for other in others]
        assert tokens(engine.submit(asked)) == once
        assert all(len(tokens(ticket)) > 0 for ticket in tickets)
        another = Sampling(12, temperature=1.3, seed=6, ignore_eos=True)
        assert tokens(engine.submit(Generation(asked.prompt, another, GATES[1]))) != once


def test_log_probabilities_are_the_models_own():
    bank, ids = served("llama"), prompt(9, 2)
    with Engine(bank.model, bank=bank, settings=EngineSettings(prefill_tokens=4)) as engine:
        sampling = greedy(5, logprobs=3, ignore_eos=True)
        events = list(engine.submit(Generation(ids, sampling, GATES[2], echo=True)))
    assert [event.token for event in events if event.echoed] == list(ids)
    whole = [event.token for event in events]
    with torch.no_grad(), bank.use(GATES[2]):
        logs = bank.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    assert events[0].logprob is None
    for i, event in enumerate(events[1:]):
        assert event.logprob == pytest.approx(logs[i, event.token].item(), abs=1e-4)
        assert [token for token, _ in event.alternatives] == logs[i].topk(3).indices.tolist()


def test_a_cancelled_row_leaves_and_the_others_stay():
    bank, events = served("llama"), []
    asked = Generation(prompt(5, 3), greedy(20, ignore_eos=True), GATES[1])

    def listen(event):
        events.append(event)
        if len(events) == 3:
            first.cancel()

    with Engine(bank.model, bank=bank) as engine:
        with held(engine):
            first, second = engine.submit(asked, listen), engine.submit(asked)
        assert len(tokens(second)) == 20
        assert engine.statistics().cancelled == 1
    assert [event.finish for event in events] == [None, None, None, "cancelled"]
    assert bank.store.cache.others_hold(()) is False


def test_a_poisoned_request_fails_alone():
    bank = served("llama")
    good = Generation(prompt(5, 4), greedy(6, ignore_eos=True), GATES[1])
    with Engine(bank.model, bank=bank) as engine:
        wanted = tokens(engine.submit(good))
        bad = Generation(good.prompt, good.sampling, Mix({"toys": 1e30}))
        tickets = [engine.submit(g) for g in (good, bad, good)]
        assert tokens(tickets[0]) == tokens(tickets[2]) == wanted
        last = list(tickets[1])[-1]
        assert last.finish == "error"
        assert "not finite" in last.error
        assert engine.alive


def test_a_listener_that_fails_ends_its_own_request():
    bank = served("llama")
    asked = Generation(prompt(5, 5), greedy(8, ignore_eos=True))

    def listen(event):
        raise RuntimeError("gone")

    with Engine(bank.model, bank=bank) as engine:
        failing, other = engine.submit(asked, listen), engine.submit(asked)
        assert len(tokens(other)) == 8
        assert failing.finished.wait(60)


REFUSED = {
    "takes no cache": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**GPT)),
    "takes no position_ids": lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=1)),
    "counts its decoder's positions": lambda: BartForConditionalGeneration(BartConfig(**BART)),
    "experts take so many tokens": lambda: SwitchTransformersForConditionalGeneration(
        SwitchTransformersConfig(d_model=32, d_ff=32, num_layers=1, decoder_start_token_id=0)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_whose_rows_cannot_join_and_leave_are_refused_at_the_start(reason):
    with pytest.raises(InputError, match=reason):
        Engine(REFUSED[reason]().eval())


@pytest.mark.parametrize(
    ("ids", "sampling", "gate", "reason"),
    [
        ((), greedy(3), None, "empty"),
        ((3, 99), greedy(3), None, "token 99"),
        ((3,), greedy(200), None, "128 positions"),
        ((3,), greedy(3, stop=("x",)), None, "tokenizer"),
        ((3,), greedy(3, logit_bias={70: 1.0}), None, "token 70"),
        ((3,), greedy(3), {"nobody": 1.0}, "'nobody'"),
    ],
)
def test_what_can_never_be_answered_is_refused_at_once(ids, sampling, gate, reason):
    bank = served("llama")
    gate = Mix(gate) if gate else None
    with Engine(bank.model, bank=bank) as engine, pytest.raises(InputError, match=reason):
        engine.submit(Generation(ids, sampling, gate))


def test_a_full_queue_says_when_to_come_again():
    bank = served("llama")
    asked = Generation(prompt(5, 6), greedy(3, ignore_eos=True))
    with Engine(bank.model, bank=bank, settings=EngineSettings(slots=1, queue=2)) as engine:
        with held(engine):
            tickets = [engine.submit(asked) for _ in range(2)]
            with pytest.raises(Full) as full:
                engine.submit(asked)
        assert full.value.retry_after >= 1
        assert [len(tokens(ticket)) for ticket in tickets] == [3, 3]


def test_it_drains_what_it_took_and_takes_no_more():
    bank = served("llama")
    asked = Generation(prompt(5, 7), greedy(9, ignore_eos=True))
    with Engine(bank.model, bank=bank) as engine:
        tickets = [engine.submit(asked) for _ in range(3)]
        assert engine.drain(60)
        assert not engine.ready
        with pytest.raises(Stopped):
            engine.submit(asked)
        assert [len(tokens(ticket)) for ticket in tickets] == [9, 9, 9]


def test_other_work_runs_between_steps_and_its_error_is_its_own():
    bank = served("llama")
    with Engine(bank.model, bank=bank) as engine:
        ticket = engine.submit(Generation(prompt(5, 8), greedy(9, ignore_eos=True)))
        assert engine.score(lambda: 41 + 1).result(60) == 42
        with pytest.raises(ZeroDivisionError):
            engine.score(lambda: 1 // 0).result(60)
        assert len(tokens(ticket)) == 9


def test_a_death_ends_every_request_and_is_told():
    bank, told = served("llama"), []

    def die():
        raise SystemExit("out of order")

    engine = Engine(bank.model, bank=bank, on_death=told.append)
    with held(engine):
        ticket = engine.submit(Generation(prompt(5, 9), greedy(100, ignore_eos=True)))
        work = engine.score(die)
    assert list(ticket)[-1].finish == "error"
    assert isinstance(work.exception(60), SystemExit)
    engine.close()
    assert not engine.alive
    assert not engine.ready
    assert isinstance(told[0], SystemExit)


def test_a_retired_adapter_stays_for_those_that_run_and_for_nobody_else():
    bank = served("qwen")
    asked = Generation(prompt(5, 10), greedy(25, ignore_eos=True), GATES[3])
    wanted = alone(bank, asked.prompt, asked.gate, 1)
    adapter = bank["films"]
    with Engine(bank.model, bank=bank) as engine:
        ticket = engine.submit(asked)
        first = next(iter(ticket))
        engine.retire("films")
        with pytest.raises(InputError, match="'films'"):
            engine.submit(asked)
        assert [first.token] == wanted
        assert len(tokens(ticket)) == 24
        engine.drain(60)
        assert "films" not in bank
    bank.add("films", adapter)
