"""Text comes when it is certain, and scheduling keeps its promises."""

import random

import pytest
import torch

from geodapt.adapters.gates import Mix, TopAtoms
from geodapt.serve.generation import EngineSettings, Generation, Sampling
from geodapt.serve.sampling import Sampler, kept
from geodapt.serve.scheduler import Scheduler
from geodapt.serve.stops import TextStream
from geodapt.serve.tickets import Ticket


class Bytes:
    """A tokenizer of single bytes, so that letters take several tokens."""

    def decode(self, tokens, **_):
        return bytes(tokens).decode(errors="replace")


def streamed(text: str, stops=()) -> tuple[list[str], bool]:
    stream = TextStream(Bytes(), stops)
    pieces = []
    for byte in text.encode():
        pieces.append(stream.push(byte))
        if stream.stopped:
            return pieces, True
    return [*pieces, stream.flush()], stream.stopped


def test_letters_of_several_tokens_come_whole():
    pieces, stopped = streamed("naïve 日本語 🙂!")
    assert "".join(pieces) == "naïve 日本語 🙂!"
    assert not stopped
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("text", "stops", "answer"),
    [
        ("one two three", ("two",), "one "),
        ("aaab and more", ("aab",), "a"),
        ("end of it: STO", ("STOP",), "end of it: STO"),
        ("first second", ("second", "irst"), "f"),
        ("日本語です", ("語で",), "日本"),
    ],
)
def test_stop_texts_lie_across_tokens_and_nothing_of_them_is_told(text, stops, answer):
    pieces, stopped = streamed(text, stops)
    assert "".join(pieces) == answer
    assert stopped == any(stop in text for stop in stops)


def test_random_texts_stop_where_the_whole_text_has_the_first_stop():
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choices("abé", k=12))
        stops = ["".join(draw.choices("abé", k=draw.randint(1, 3))) for _ in range(2)]
        ends = [text.find(stop) for stop in stops if stop in text]
        told = "".join(streamed(text, stops)[0])
        assert text.startswith(told)
        assert not any(stop in told for stop in stops)
        assert len(told) in ends if ends else told == text


def test_the_fewest_most_probable_tokens_stay():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    torch.testing.assert_close(kept(logits, 2, 1.0), torch.tensor([0, 4 / 7, 0, 3 / 7]))
    torch.testing.assert_close(kept(logits, 0, 0.65), torch.tensor([0, 4 / 7, 0, 3 / 7]))
    torch.testing.assert_close(kept(logits, 0, 0.05), torch.tensor([0.0, 1, 0, 0]))


def test_penalties_and_bias_are_the_formulas():
    sampling = Sampling(
        5,
        temperature=0,
        frequency_penalty=0.5,
        presence_penalty=1.0,
        repetition_penalty=2.0,
        logit_bias={3: 99.0},
        logprobs=0,
    )
    sampler = Sampler(sampling, prompt=[0], vocabulary=4)
    logits = torch.tensor([9.0, 6.0, 5.9, -95.5])
    found = [sampler.choose(logits)[0] for _ in range(4)]
    # 6 beats 9 / 2; then 5.9 beats 6 / 2 - 1.5; then 9 / 2; then -95.5 + 99 beats 9 / 2 - 1.5.
    assert found == [1, 2, 0, 3]
    assert sampler.choose(logits)[1] == pytest.approx(logits.log_softmax(-1)[0].item())


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    sampler = Sampler(Sampling(1, seed=1), (), 3)
    count = torch.tensor([sampler.choose(logits)[0] for _ in range(3000)]).bincount(minlength=3)
    torch.testing.assert_close(count / 3000, logits.exp(), atol=0.03, rtol=0)


def ticket(names=(), tokens=10, gate=None) -> Ticket:
    gate = gate or (Mix(dict.fromkeys(names, 1.0)) if names else None)
    return Ticket(Generation((1,) * (tokens - 1), Sampling(1), gate))


def test_who_finds_no_place_is_overtaken_for_so_long_and_base_rows_never_wait():
    now = [0.0]
    settings = EngineSettings(slots=8, overtaken_seconds=2)
    scheduler = Scheduler(settings, capacity=1, clock=lambda: now[0])
    running = [ticket("a")]
    blocked, same, base = ticket("b"), ticket("a"), ticket()
    for each in (blocked, same, base):
        scheduler.add(each)
    assert scheduler.admit(running) == [same, base]
    now[0] = 1.9
    again = ticket("a")
    scheduler.add(again)
    assert scheduler.admit(running) == [again]
    now[0] = 2.0
    late, free = ticket("a"), ticket()
    scheduler.add(late)
    scheduler.add(free)
    assert scheduler.admit(running) == [free]
    assert scheduler.admit([]) == [blocked]
    assert scheduler.admit([]) == [late]


def test_places_and_caches_are_kept_to():
    scheduler = Scheduler(EngineSettings(slots=3, kv_tokens=100), capacity=None)
    tickets = [ticket(tokens=n) for n in (30, 20, 20, 20)]
    for each in tickets:
        scheduler.add(each)
    assert scheduler.admit([]) == tickets[:3]  # three rows padded to 30
    assert scheduler.admit([]) == tickets[3:]
    apart = [ticket("a", 40), ticket(gate=TopAtoms(2, Mix({"a": 1.0})), tokens=60), ticket("a", 10)]
    for each in apart:
        scheduler.add(each)
    assert scheduler.admit([]) == apart[:2]
