"""The whole server over the engine and a model: answers are those of ``generate`` in Python."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from geodapt.adapters import AdapterBank, Mix, TopAtoms
from geodapt.errors import InputError
from geodapt.models import load_base
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start
from geodapt.serve.served import Served
from tests.radial.small import save_bert
from tests.serve.asking import eventually, running
from tests.serve.shelf import write_base_and_adapters

GATES = [
    ({}, None),
    ({"model": "toys"}, Mix({"toys": 1})),
    ({"model": "toys:0.5+tools:-0.5"}, Mix({"toys": 0.5, "tools": -0.5})),
    ({"adapters": {"toys": 1, "tools": 1}, "atoms": {"keep": 3}},
     TopAtoms(3, Mix({"toys": 1, "tools": 1}))),
]  # fmt: skip
TOKENS = 12


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = write_base_and_adapters(tmp_path_factory.mktemp("shelf"))
    return folder


@pytest.fixture(scope="module")
def served(shelf):
    service = start(
        Served(base=str(shelf / "base"), adapters=shelf / "adapters", dtype="float32"),
        ServeSettings(name="small"),
    )
    with running(service) as server:
        yield server
    service.close()


@pytest.fixture(scope="module")
def reference(shelf):
    """A model of its own, and a bank on it with the same adapters."""
    model, tokenizer = load_base(str(shelf / "base"), head=True)
    bank = AdapterBank(model)
    for name in ("toys", "tools"):
        bank.load(name, shelf / "adapters" / name)
    return model, tokenizer, bank


def generated(reference, prompt, gate):
    model, tokenizer, bank = reference
    inputs = tokenizer(prompt, return_tensors="pt")
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": -1}
    with torch.no_grad():
        if gate is None:
            found = model.generate(**inputs, **options)
        else:
            with bank.use(gate):
                found = model.generate(**inputs, **options)
    made = found[0, inputs.input_ids.shape[1] :]
    return tokenizer.decode(made, skip_special_tokens=True)


def test_requests_at_once_get_what_generate_gives_each(served, reference):
    asked = [(f"A hose and {n} trains", *gate) for n in range(2) for gate in GATES]

    def ask(case):
        prompt, body, _ = case
        options = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        answer = served.complete(prompt=prompt, timeout=120, **options, **body)
        assert answer.status == 200, answer.body
        return answer.json["choices"][0]["text"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, asked))
    assert found == [generated(reference, prompt, gate) for prompt, _, gate in asked]
    assert len(set(found)) == len(found)


def test_echoed_logprobs_are_the_models(served, reference):
    model, tokenizer, _ = reference
    prompt = tokenizer("A hose and two trains").input_ids
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    found = served.complete(**body).json["choices"][0]["logprobs"]
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
    own = expected.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    values = torch.tensor(found["token_logprobs"][1 : len(prompt)])
    assert torch.allclose(values, own, atol=1e-4)
    best = [max(top.values()) for top in found["top_logprobs"][1 : len(prompt)]]
    assert torch.allclose(torch.tensor(best), expected.max(-1).values, atol=1e-4)


def test_a_seed_gives_the_same_answer_in_any_company(served):
    body = {"seed": 5, "max_tokens": TOKENS, "ignore_eos": True, "model": "toys"}
    alone = served.complete(**body).json["choices"][0]["text"]
    pair = served.complete(**body, n=2).json["choices"]
    assert pair[0]["text"] == alone
    assert pair[1]["text"] != alone


def test_an_adapter_put_anew_answers_the_next_request(served, shelf, reference):
    options = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "prompt": "A hose"}
    shutil.copytree(shelf / "adapters/tools", shelf / "adapters/newer")
    assert served.ask("PUT", "/v1/adapters/mine", {"source": "toys"}).status == 200
    first = served.complete(model="mine", **options).json["choices"][0]["text"]
    assert served.ask("PUT", "/v1/adapters/mine", {"source": "newer"}).status == 200
    second = served.complete(model="mine", **options).json["choices"][0]["text"]
    assert [first, second] == [
        generated(reference, "A hose", Mix({name: 1})) for name in ("toys", "tools")
    ]
    folder = served.service.adapters
    eventually(lambda: folder.served("mine").requests == 0)


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="--embed"):
        start(Served(base=str(save_bert(tmp_path / "bert"))), ServeSettings())
