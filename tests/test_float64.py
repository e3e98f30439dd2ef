"""Models, losses and metrics run on devices without float64."""

import pytest
import torch

from geodapt.adapters import Mix, Off, Route, TopAtoms
from geodapt.models.perplexity import LanguageMetrics
from geodapt.radial import losses
from tests.helm import small as helms
from tests.no_float64 import NoFloat64
from tests.xcross import small


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*helms.MAIN, "learned-curvature"])
def test_helm(kind, dtype):
    model = helms.model(kind, dtype)
    rows = torch.randint(1, helms.VOCABULARY, (2, 9))
    with NoFloat64():
        model.train()(input_ids=rows, labels=rows).loss.backward()
        model.eval().generate(rows, max_new_tokens=3, do_sample=False)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama", "helm"])
def test_gates_and_cross_streams(family):
    bank = small.filled_bank(small.base(family), ("toys", "books", "tools"))
    ids = torch.randint(3, small.VOCABULARY, (2, 7))
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    gates = [
        Off(),
        Mix({"toys": 0.5, "books": 1.0}),
        Route(["toys", "books"]),
        TopAtoms(2),
    ]
    for gate in gates:
        with NoFloat64(), bank.use(gate), torch.no_grad():
            bank.model(**rows)
    bank.set(Off())
    scorer = small.xcross_scorer(bank, ("toys", "books"))
    with NoFloat64():
        scorer(**small.batch()).logits.sum().backward()


def test_radial_losses():
    points = [torch.randn(6, 8, requires_grad=True) for _ in range(4)]
    with NoFloat64():
        total = losses.radial_loss(*points) + losses.cone_loss(points[0], points[1], points[3])
        (total + losses.anchoring_loss(points[0], points[2].detach())).backward()
    assert all(torch.isfinite(p.grad).all() for p in points)


@pytest.mark.slow
def test_perplexity_is_summed_as_well_as_in_float64():
    """Ten thousand batches, of which float32 alone would lose the fourth digit."""
    metrics, exact = LanguageMetrics(), 0.0
    labels = torch.tensor([[0, 1, 2, 3, 4]])
    with NoFloat64():
        for seed in range(3000):
            logits = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(seed)) * 30
            metrics.update(logits, labels)
            losses_ = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
            exact += losses_.item()
    assert metrics.compute()["loss"] == pytest.approx(exact / 3000, rel=2e-7)
