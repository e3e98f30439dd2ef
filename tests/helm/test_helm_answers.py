"""Every way to generate gives what a loop without a cache gives."""

import pytest
import torch

from geodapt.helm.arguments import CACHE
from tests.helm import small

KINDS = ["mha", "relative", "mla", "mice", "mice-mha", "mixed"]
NEW = 7
PLAIN = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture(scope="module", params=KINDS)
def helm(request):
    return small.talker(request.param)


@pytest.fixture(scope="module")
def ids():
    return small.tokens(rows=2, length=6)


@pytest.fixture(scope="module")
def expected(helm, ids):
    """The likeliest tokens; they must differ, or a model without memory would give them too."""
    answers = by_loop(helm, ids, lambda logits: logits.argmax(-1, keepdim=True))
    for row in answers[:, ids.shape[1] :].tolist():
        assert len(set(row)) >= 3
    return answers


@torch.no_grad()
def by_loop(helm, ids, choose):
    for _ in range(NEW):
        ids = torch.cat([ids, choose(helm(ids, use_cache=False).logits[:, -1])], dim=1)
    return ids


@torch.no_grad()
def by_beams(helm, row, beams):
    """The likeliest of so many continuations that are kept at each token."""
    kept = [(0.0, row)]
    for _ in range(NEW):
        candidates = []
        for score, ids in kept:
            logs = helm(ids[None], use_cache=False).logits[0, -1].log_softmax(-1)
            top = logs.topk(2 * beams)
            candidates += [
                (score + s.item(), torch.cat([ids, t[None]]))
                for s, t in zip(top.values, top.indices, strict=True)
            ]
        kept = sorted(candidates, key=lambda c: -c[0])[:beams]
    return kept[0][1]


def generate(helm, ids, **changes):
    mask = changes.pop("attention_mask", torch.ones_like(ids))
    return helm.generate(ids, attention_mask=mask, **{**PLAIN, **changes})


@pytest.mark.parametrize(
    "way", [{}, {"use_cache": False}, {"cache_implementation": "static"}, {"prefill_chunk_size": 4}]
)
def test_greedy(helm, ids, expected, way):
    assert generate(helm, ids, **way).tolist() == expected.tolist()


def test_sampling(helm, ids):
    torch.manual_seed(3)
    expected = by_loop(helm, ids, lambda logits: torch.multinomial(logits.softmax(-1), 1))
    torch.manual_seed(3)
    found = generate(helm, ids, do_sample=True, top_k=0, top_p=1.0)
    assert found.tolist() == expected.tolist()


def test_beams(helm, ids):
    expected = torch.stack([by_beams(helm, row, 3) for row in ids])
    assert generate(helm, ids, num_beams=3).tolist() == expected.tolist()


def test_assistants(helm, ids, expected):
    """Another model's guesses, and the prompt's own, are checked several tokens at a time."""
    one = ids[:1]
    assistant = small.talker(num_hidden_layers=1)
    found = generate(helm, one, assistant_model=assistant)
    assert found.tolist() == expected[:1].tolist()
    twice = torch.cat([expected[:1], expected[:1]], dim=1)
    wanted = by_loop(helm, twice, lambda logits: logits.argmax(-1, keepdim=True))
    assert generate(helm, twice, prompt_lookup_num_tokens=4).tolist() == wanted.tolist()


@pytest.mark.parametrize("static", [False, True])
def test_left_padding(helm, ids, expected, static):
    short = ids[1:, 2:]
    rows = torch.cat([ids[:1], torch.cat([torch.zeros(1, 2, dtype=torch.long), short], dim=1)])
    way = {"cache_implementation": "static"} if static else {}
    together = generate(helm, rows, attention_mask=(rows != 0).long(), **way)
    assert together[0].tolist() == expected[0].tolist()
    alone = by_loop(helm, short, lambda logits: logits.argmax(-1, keepdim=True))
    assert together[1, 2:].tolist() == alone[0].tolist()


@pytest.mark.parametrize("name", sorted({CACHE, "past_key_values"}))  # what generate knows
def test_a_conversation_goes_on(helm, ids, name):
    """With the cache of the first answer, under either of its names."""
    first = generate(helm, ids, return_dict_in_generate=True)
    turn = torch.cat([first.sequences, small.tokens(rows=2, length=3)], dim=1)
    wanted = by_loop(helm, turn, lambda logits: logits.argmax(-1, keepdim=True))
    found = generate(helm, turn, **{name: first.past_key_values})
    assert found.tolist() == wanted.tolist()


def test_embeddings_for_tokens(helm, ids, expected):
    embedded = helm.get_input_embeddings()(ids)
    found = helm.generate(inputs_embeds=embedded, attention_mask=torch.ones_like(ids), **PLAIN)
    assert found.tolist() == expected[:, ids.shape[1] :].tolist()
