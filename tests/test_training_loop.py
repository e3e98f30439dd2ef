"""The training loop: it learns, keeps the best, stops, accumulates, repeats and resumes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from geodapt.errors import InputError
from geodapt.training import (
    TrainingSettings,
    fit,
    parameter_groups,
    predict,
    trainable_parameters,
)
from tests.fitting import CLASSES, TRAIN, VALIDATION, Classifier, Points, accuracy, train, weights

pytestmark = pytest.mark.slow


def measured(model, work) -> float:
    logits = predict(model, VALIDATION, work=work)
    return accuracy(logits, torch.from_numpy(VALIDATION.labels))["accuracy"]


def test_it_learns_what_trains_and_leaves_the_rest(tmp_path):
    before, frozen = Classifier(), Classifier().frozen.weight
    model, log, done = train(tmp_path, steps=100, evaluate_every=20)
    assert measured(before, tmp_path) < 0.5
    assert measured(model, tmp_path) > 0.75
    assert torch.equal(model.frozen.weight, frozen)
    assert done.steps == 100
    assert done.seconds > 0
    assert log.steps("loss") == list(range(5, 101, 5))  # evaluations and checkpoints among them
    assert log.steps("validation_accuracy") == log.steps("validation_loss") == [20, 40, 60, 80, 100]
    losses = [line["loss"] for line in log.lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert trainable_parameters(model) == 16 * CLASSES + CLASSES


def test_the_first_step_is_adamw_on_the_mean_loss(tmp_path):
    model, reference = Classifier(), Classifier()
    train(tmp_path, model, rows=Points(8, 0), steps=1, warmup=0, batch_size=8, weight_decay=0.1)
    optimizer = torch.optim.AdamW(reference.out.parameters(), lr=0.1, weight_decay=0.1)
    batch = [Points(8, 0)[i] for i in range(8)]
    x, labels = (torch.tensor(np.array([row[k] for row in batch])) for k in ("x", "labels"))
    reference(x, labels).loss.backward()
    nn.utils.clip_grad_norm_(reference.out.parameters(), 1.0)
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(reference))


@pytest.mark.parametrize("best_by", ["accuracy", "loss"])
def test_it_ends_with_the_best_weights(tmp_path, best_by):
    # A learning rate that is too high makes the figures go up and down.
    options = {"steps": 40, "evaluate_every": 4, "learning_rate": 2.0, "schedule": "constant"}
    model, log, done = train(tmp_path, best_by=best_by, **options)
    found = [line[f"validation_{best_by}"] for line in log.lines if "validation_loss" in line]
    best = min(found) if best_by == "loss" else max(found)
    assert found[-1] != best
    assert done.best == pytest.approx(best)
    at_best = next(line for line in log.lines if line.get(f"validation_{best_by}") == best)
    assert measured(model, tmp_path) == pytest.approx(at_best["validation_accuracy"])

    last, log, _ = train(tmp_path / "last", best_by=best_by, keep_best=False, **options)
    assert measured(last, tmp_path) == pytest.approx(log.lines[-1]["validation_accuracy"])
    assert not torch.equal(weights(last), weights(model))


def test_without_patience_left_it_stops(tmp_path):
    options = {"steps": 80, "evaluate_every": 2, "learning_rate": 2.0, "schedule": "constant"}
    _, log, done = train(tmp_path, best_by="accuracy", patience=3, **options)
    found = [line["validation_accuracy"] for line in log.lines if "validation_loss" in line]
    assert done.steps == 2 * len(found) < 80
    best = found.index(max(found))
    assert len(found) - 1 - best == 3
    assert done.best == pytest.approx(max(found))


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path):
    one, *_ = train(tmp_path / "one", batch_size=16)
    many, *_ = train(tmp_path / "many", batch_size=4, gradient_accumulation=4)
    torch.testing.assert_close(weights(many), weights(one), rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    runs = [
        train(tmp_path / str(i), Classifier(dropout=0.3), seed=seed)[0]
        for i, seed in enumerate([1, 1, 2])
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_groups_have_their_own_learning_rates(tmp_path):
    model = Classifier()
    bias, weight = model.out.bias.clone(), model.out.weight.clone()
    groups = [{"params": [model.out.weight]}, {"params": [model.out.bias], "lr": 1e-9}]
    train(tmp_path, model, groups=groups)
    assert (model.out.bias - bias).abs().max() < 1e-6
    assert (model.out.weight - weight).abs().max() > 0.1


def test_bfloat16_autocast(tmp_path):
    exact, *_ = train(tmp_path / "exact")
    model = Classifier()
    short, *_ = train(tmp_path / "short", model, autocast=torch.bfloat16)
    assert set(model.seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    difference = (weights(short) - weights(exact)).norm()
    assert 0 < difference < 0.1 * weights(exact).norm()
    model.seen.clear()
    predict(model, VALIDATION, work=tmp_path, autocast=torch.bfloat16)
    assert set(model.seen) == {torch.bfloat16}


def test_tensorboard_files_hold_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, log, _ = train(tmp_path, evaluate_every=10, tensorboard=tmp_path / "curves")
    events = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == {
        line["step"]: pytest.approx(line["loss"]) for line in log.lines if "loss" in line
    }
    assert [event.step for event in events.Scalars("eval/accuracy")] == [10, 20]
    options = {"tensorboard": tmp_path / "none"}
    settings = TrainingSettings(steps=1, tensorboard=False)
    fit(Classifier(), TRAIN, settings, work=tmp_path, **options)
    assert not (tmp_path / "none").exists()


def test_predictions_are_in_order_whatever_the_batch_size(tmp_path):
    model = Classifier()
    x = torch.from_numpy(VALIDATION.x)
    for size in (7, 40):
        found = predict(model, VALIDATION, work=tmp_path, batch_size=size)
        torch.testing.assert_close(found, model(x).logits.detach())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, value):
    class Breaking(Classifier):
        def forward(self, x, labels=None):
            scores = super().forward(x, labels)
            if self.training and len(self.seen) == 7:
                scores.loss = scores.loss * value
            return scores

    model = Breaking()
    with pytest.raises(InputError) as error:
        train(tmp_path, model, label="method-xcross")
    message = str(error.value)
    assert message.startswith(f"method-xcross: the loss became {value} at step 7 of 20")
    assert "lower the learning rate (now 0.1)" in message
    assert torch.isfinite(weights(model)).all()


def test_a_wild_learning_rate_stops(tmp_path):
    with pytest.raises(InputError, match=r"the loss became .* at step"):
        train(tmp_path, steps=50, learning_rate=1e30, weight_decay=1.0, schedule="constant")


def test_no_rows_and_nothing_to_train(tmp_path):
    with pytest.raises(InputError, match="toys: there are no training rows"):
        train(tmp_path, rows=Points(0, 0), label="toys")
    with pytest.raises(InputError, match="toys: the model has no parameter that trains"):
        train(tmp_path, Classifier().requires_grad_(False), label="toys")
    assert not (tmp_path / "work").exists()


def test_matrices_decay_and_what_is_frozen_is_left_out():
    decayed, others = parameter_groups(Classifier(), 0.1)
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in others["params"]] == [1]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
