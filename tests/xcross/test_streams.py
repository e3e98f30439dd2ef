"""Stacked streams against streams that run one by one, in float64."""

import threading

import pytest
import torch

from geodapt.adapters import Mix, Off
from geodapt.errors import InputError
from geodapt.xcross import encoders
from geodapt.xcross.encoders import Encoder, XCrossEncoder
from geodapt.xcross.head import Head
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings
from tests.xcross import naive
from tests.xcross.small import DECODERS, WIDTH, base, batch, filled_bank, shaken, xcross_scorer

FAMILIES = ["bert", "roberta", "deberta", "modernbert", "t5", "llama", "qwen"]
FAMILIES += ["helm", "helm-mice"]
THREE = ("toys", "books", "tools")


def double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().double().requires_grad_()


def reference(family, bank, scorer, rows, names=THREE):
    """The naive model's scores, and its copies of what trains, by the scorer's names."""
    encoder = scorer.encoder
    weights = {layer: double(i.weight) for layer, i in encoder.integrators.items()}
    trained = {name: double(p) for name, p in scorer.head.named_parameters()}
    trained["weights"] = double(encoder.weights)
    scores = naive.scores(
        base(family),
        [bank[name] for name in names],
        trained,
        weights,
        encoder.settings,
        rows,
        encoder.pooling,
    )
    copies = {f"head.{name}": trained[name] for name, _ in scorer.head.named_parameters()}
    copies["encoder.weights"] = trained["weights"]
    copies |= {f"encoder.exchange.{i}.weight": weight for i, weight in enumerate(weights.values())}
    return scores, copies


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_streams_that_run_one_by_one(family):
    bank = filled_bank(base(family))
    scorer = shaken(xcross_scorer(bank), std=0.2)
    assert scorer.encoder.pooling == ("last" if family in DECODERS else "first")
    rows = batch()
    expected, copies = reference(family, bank, scorer, rows)
    labels = torch.tensor([1, 0])
    output = scorer(**rows, labels=labels)
    torch.testing.assert_close(output.logits, expected.float(), rtol=1e-5, atol=1e-5)

    expected_loss = torch.nn.functional.cross_entropy(expected, labels)
    torch.testing.assert_close(output.loss, expected_loss.float(), rtol=1e-5, atol=1e-5)
    output.loss.backward()
    gradients = torch.autograd.grad(expected_loss, list(copies.values()))
    for (name, _), gradient in zip(copies.items(), gradients, strict=True):
        found = scorer.get_parameter(name).grad
        torch.testing.assert_close(found, gradient.float(), rtol=1e-4, atol=1e-5, msg=name)
    others = {name: p for name, p in scorer.named_parameters() if name not in copies}
    assert others  # the base's, and the adapters' masters
    assert all(p.grad is None and not p.requires_grad for p in others.values())
    assert all(p.grad is None for name in THREE for p in bank.parameters_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_in_float64_nothing_but_rounding_is_left(family):
    bank = filled_bank(base(family).double())
    scorer = shaken(xcross_scorer(bank)).double()
    rows = batch()
    expected, _ = reference(family, bank, scorer, rows)
    flat = {name: tensor.flatten(0, 1) for name, tensor in rows.items()}
    pooled = scorer.encoder(**flat)
    assert pooled.dtype == torch.float64
    found = scorer.head.score(torch.nn.functional.gelu(scorer.head.pool(pooled)))
    torch.testing.assert_close(found.reshape(2, 2), expected, rtol=1e-9, atol=1e-9)


ABLATIONS = [
    {"terms": "direct"},
    {"terms": "interaction"},
    {"dynamic": False},
    {"layers": "last"},
    {"layers": "none"},
    {"layers": [0]},
    {"aggregation": "uniform"},
    {"scale": "none"},
    {"scale": "sqrt_width"},
    {"beta": 0.3, "gamma": -0.7},
]


@pytest.mark.slow
@pytest.mark.parametrize("changed", ABLATIONS, ids=str)
def test_ablations_equal_their_formulas(changed):
    bank = filled_bank(base("bert"))
    scorer = shaken(xcross_scorer(bank, **changed))
    rows = batch()
    expected, _ = reference("bert", bank, scorer, rows)
    torch.testing.assert_close(scorer(**rows).logits, expected.float(), rtol=1e-5, atol=1e-5)
    assert scorer.encoder.weights.requires_grad == (changed.get("aggregation") != "uniform")
    if "aggregation" in changed:
        assert torch.equal(scorer.encoder.weights, torch.full((3,), 1 / 3))


@pytest.mark.slow
@pytest.mark.parametrize("names", [("toys", "books"), ("toys", "books", "tools", "music")])
@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_other_numbers_of_streams_and_other_summaries(names, pooling):
    bank = filled_bank(base("bert"))
    scorer = shaken(xcross_scorer(bank, names, outputs=3, pooling=pooling))
    rows = batch(rows=3, candidates=1)
    expected, _ = reference("bert", bank, scorer, rows, names)
    assert expected.shape == (3, 3)
    torch.testing.assert_close(scorer(**rows).logits, expected.float(), rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    bank = filled_bank(base("bert"))
    scorer = shaken(xcross_scorer(bank))
    rows = batch(padded=False)
    wider = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in rows.items()}
    torch.testing.assert_close(scorer(**wider).logits, scorer(**rows).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_prompts_that_pass_in_pieces(family, monkeypatch):
    bank = filled_bank(base(family))
    scorer = shaken(xcross_scorer(bank))
    rows = batch(rows=3, candidates=3)
    found = []
    for at_once, passes in ((10_000, 1), (2 * 3 * 7, 5), (1, 9)):
        monkeypatch.setattr(encoders, "TOKENS_AT_ONCE", at_once)
        calls = []
        hook = bank.model.register_forward_hook(lambda *args, seen=calls: seen.append(args))
        scorer.zero_grad()
        output = scorer(**rows, labels=torch.tensor([0, 2, 1]))
        output.loss.backward()
        hook.remove()
        assert len(calls) == passes
        gradients = [p.grad.clone() for p in scorer.parameters() if p.requires_grad]
        found.append((output.logits, *gradients))
    for pieces in found[1:]:
        for piece, whole in zip(pieces, found[0], strict=True):
            torch.testing.assert_close(piece, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta"])
def test_the_last_block_goes_on_with_the_summary_alone(family):
    bank = filled_bank(base(family))
    rows = batch()
    scorer = shaken(xcross_scorer(bank))
    plain = Encoder(bank.model, bank, Off())
    scorer(**rows)  # sees where the layers hold the rows
    widths = []
    last = bank.model.encoder.layer[-1].intermediate
    hook = last.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]))
    found = scorer(**rows).logits
    with scorer.encoder.observed():  # explanations want the terms of all tokens
        whole = scorer(**rows).logits
        assert {i.last_terms[0].shape[1] for i in scorer.encoder.exchange} == {7}
    flat = {name: tensor.flatten(0, 1) for name, tensor in rows.items()}
    summary = plain(**flat)
    states = bank.model(**flat).last_hidden_state
    hook.remove()
    assert widths == [1, 7, 1, 7]
    torch.testing.assert_close(summary, states[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_starts_at_the_average_of_the_sources(family):
    bank = filled_bank(base(family))
    rows = {name: tensor.flatten(0, 1) for name, tensor in batch().items()}
    sources = [Encoder(bank.model, bank, Mix({name: 1.0}))(**rows) for name in THREE]
    encoder = XCrossEncoder(bank.model, bank, THREE)
    torch.testing.assert_close(encoder(**rows), sum(sources) / 3, rtol=1e-6, atol=1e-6)
    found = encoder(**rows)
    encoder.close()
    # Exactly: the integrators that start at zero change no bit.
    without = XCrossEncoder(bank.model, bank, THREE, IntegratorSettings(layers="none"))
    assert torch.equal(found, without(**rows))


def test_without_strength_the_streams_are_left_alone():
    bank = filled_bank(base("bert"))
    rows = batch()
    still = shaken(xcross_scorer(bank, beta=0, gamma=0))
    found = still(**rows).logits
    still.encoder.close()
    alone = xcross_scorer(bank, layers="none")
    alone.head.load_state_dict(still.head.state_dict())
    with torch.no_grad():
        alone.encoder.weights.copy_(still.encoder.weights)
    assert torch.equal(found, alone(**rows).logits)


def test_other_methods_on_the_base_do_not_notice_it():
    bank = filled_bank(base("bert"))
    flat = {name: tensor.flatten(0, 1) for name, tensor in batch().items()}
    rows = batch()

    def outputs():
        plain = bank.model(**flat).last_hidden_state
        return [plain, *(Encoder(bank.model, bank, gate)(**flat) for gate in GATES)]

    before = outputs()
    first = shaken(xcross_scorer(bank))
    alone = first(**rows).logits
    second = shaken(xcross_scorer(bank, ("music", "toys")), std=0.2)
    for found, wanted in zip(outputs(), before, strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(first(**rows).logits, alone)  # nor does another X-Cross
    first.encoder.close()
    second.encoder.close()
    for found, wanted in zip(outputs(), before, strict=True):
        assert torch.equal(found, wanted)
    assert all(not block._forward_hooks for block in bank.model.encoder.layer)


GATES = [Off(), Mix({"toys": 1.0}), Mix({"toys": 0.5, "books": 0.5})]


def test_threads_run_side_by_side():
    bank = filled_bank(base("bert"))
    rows = batch()
    models = [
        shaken(xcross_scorer(bank)),
        shaken(xcross_scorer(bank, ("music", "toys")), std=0.2),
        Scorer(Encoder(bank.model, bank, Mix({"toys": 1.0})), Head(WIDTH, 4)).eval(),
    ]
    with torch.no_grad():
        wanted = [model(**rows).logits for model in models]
    wrong, start = [], threading.Barrier(len(models))

    def work(model, expected):
        start.wait()
        for _ in range(15):
            with torch.no_grad():
                if not torch.allclose(model(**rows).logits, expected, atol=1e-6):
                    wrong.append(model)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(models, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_error_within_a_pass_leaves_the_base_as_it_was():
    bank = filled_bank(base("bert"))
    flat = {name: tensor.flatten(0, 1) for name, tensor in batch().items()}
    wanted = bank.model(**flat).last_hidden_state
    scorer = shaken(xcross_scorer(bank))
    outside = {**batch(), "input_ids": torch.full((2, 2, 7), 10_000)}
    with pytest.raises(IndexError):
        scorer(**outside)
    assert torch.equal(bank.model(**flat).last_hidden_state, wanted)


def test_training_keeps_the_base_in_eval_mode():
    bank = filled_bank(base("bert"))  # it has dropout of 0.1
    scorer = shaken(xcross_scorer(bank)).train()
    rows = batch()
    assert torch.equal(scorer(**rows).logits, scorer(**rows).logits)


def test_adapters_that_train_drop_out():
    bank = filled_bank(base("bert"))
    bank.create("new", rank=2, targets=["query", "value"], dropout=0.5)
    bank.train_only("new")
    scorer = shaken(xcross_scorer(bank))
    scorer.encoder = Encoder(bank.model, bank, Mix({"new": 1.0}))
    with torch.no_grad():
        for parameter in bank.parameters_of("new"):
            parameter.normal_()
    rows = batch()
    scorer.train()
    assert not torch.equal(scorer(**rows).logits, scorer(**rows).logits)
    scorer.eval()
    assert torch.equal(scorer(**rows).logits, scorer(**rows).logits)


@pytest.mark.parametrize("gate", [*GATES[1:], "xcross"], ids=str)
def test_what_inference_prepared_serves_training(gate):
    bank = filled_bank(base("bert"))
    scorer = shaken(xcross_scorer(bank))
    if gate != "xcross":
        scorer.encoder = Encoder(bank.model, bank, gate)
    rows = batch()
    with torch.inference_mode():
        wanted = scorer(**rows).logits
    hidden = torch.zeros(2, 2, 7, WIDTH, requires_grad=True)
    hook = bank.model.embeddings.register_forward_hook(
        lambda module, args, out: out + hidden.flatten(0, 1).repeat(len(out) // 4, 1, 1)
    )
    output = scorer(**rows, labels=torch.tensor([0, 1]))
    hook.remove()
    torch.testing.assert_close(output.logits, wanted, rtol=1e-5, atol=1e-5)
    output.loss.backward()
    assert hidden.grad.abs().sum() > 0


def test_bfloat16_stays_near_float32():
    exact = shaken(xcross_scorer(filled_bank(base("bert"))))
    rows = batch()
    wanted = exact(**rows).logits
    short = shaken(xcross_scorer(filled_bank(base("bert").bfloat16())))
    assert {p.dtype for p in short.parameters() if p.requires_grad} == {torch.float32}
    found = short(**rows).logits
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize(
    ("names", "changed", "words"),
    [
        (("toys",), {}, "at least two source adapters"),
        (("toys", "nothing"), {}, r"adapters \['nothing'\] are not in the bank"),
        (("toys", "books"), {"layers": [0, 2, -1]}, r"\[2, -1\] are not among the base's 2 blocks"),
    ],
)
def test_wrong_sources_and_layers_are_named(names, changed, words):
    bank = filled_bank(base("bert"))
    with pytest.raises(InputError, match=words):
        XCrossEncoder(bank.model, bank, names, IntegratorSettings(**changed))
    assert all(not block._forward_hooks for block in bank.model.encoder.layer)
