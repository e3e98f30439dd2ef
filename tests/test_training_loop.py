"""The training loop: it learns, keeps the best, stops, accumulates, repeats and resumes."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from geodapt.errors import InputError
from geodapt.training import (
    TrainingSettings,
    fit,
    last_checkpoint,
    parameter_groups,
    predict,
    trainable_parameters,
)
from geodapt.xcross.scorer import Scores

WIDTH, CLASSES = 6, 3


class Classifier(nn.Module):
    """A small network with a part that is frozen, dropout and a tensor for each row."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(WIDTH, 16).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16, CLASSES)
        self.seen: list[torch.dtype] = []

    def forward(self, x, labels=None):
        hidden = self.dropout(torch.relu(self.frozen(x)))
        self.seen.append(hidden.dtype)
        logits = self.out(hidden).float()
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Scores(loss=loss, logits=logits)


class Points:
    """Rows that a linear model can tell apart; noise makes them harder."""

    def __init__(self, count: int, seed: int, noise: float = 0.0) -> None:
        draw = np.random.default_rng(seed)
        self.x = draw.normal(size=(count, WIDTH)).astype("float32")
        truth = np.random.default_rng(99).normal(size=(WIDTH, CLASSES))
        self.labels = (self.x @ truth).argmax(1)
        wrong = draw.random(count) < noise
        self.labels[wrong] = draw.integers(0, CLASSES, wrong.sum())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"x": self.x[index], "labels": int(self.labels[index])}


def accuracy(logits, labels) -> dict[str, float]:
    return {"accuracy": (logits.argmax(-1) == labels).float().mean().item()}


class Stopped(Exception):
    """What stands in for a kill."""


class Log:
    """Log lines as a run's folder keeps them; may end the process' work after one of them."""

    def __init__(self) -> None:
        self.lines: list[dict] = []
        self.stop_at: int | None = None

    def __call__(self, step, **values):
        self.lines.append({"step": step, **values})
        if self.stop_at is not None and step >= self.stop_at:
            raise Stopped

    def forget_after(self, step):
        self.lines = [line for line in self.lines if line["step"] <= step]

    def steps(self, name) -> list[int]:
        return [line["step"] for line in self.lines if name in line]


TRAIN, VALIDATION = Points(256, 0), Points(40, 1)


def train(tmp_path, model=None, log=None, *, rows=TRAIN, validation=VALIDATION, **changed):
    options = {name: changed.pop(name) for name in OPTIONS & changed.keys()}
    settings = TrainingSettings(**{"learning_rate": 0.1, "steps": 20, "log_every": 5} | changed)
    model, log = model or Classifier(), log or Log()
    done = fit(
        model,
        rows,
        settings,
        work=tmp_path / "work",
        validation=validation,
        metrics=accuracy,
        log=log,
        forget_after=log.forget_after,
        **options,
    )
    return model, log, done


OPTIONS = {"autocast", "best_by", "groups", "seed", "tensorboard", "label"}


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.out.parameters()])


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


# Refusals


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


# Going on


PLAIN = {"steps": 24, "save_every": 5, "log_every": 2}
BEST = {"steps": 24, "evaluate_every": 4, "learning_rate": 2.0, "schedule": "constant"}
PATIENT = {"steps": 80, "evaluate_every": 2, "learning_rate": 0.7, "patience": 4}
ACCUMULATED = {"steps": 12, "save_every": 5, "gradient_accumulation": 3, "batch_size": 3}


@pytest.mark.parametrize("stop_at", [1, 13, "last"])
@pytest.mark.parametrize("changed", [PLAIN, BEST, PATIENT, ACCUMULATED], ids=str)
def test_a_resumed_training_ends_as_an_undisturbed_one(tmp_path, changed, stop_at):
    options = {"best_by": "accuracy", "log_every": 2, **changed}
    calm, wanted, done = train(tmp_path / "calm", Classifier(dropout=0.2), **options)

    log = Log()
    log.stop_at = done.steps if stop_at == "last" else min(stop_at, done.steps)
    with pytest.raises(Stopped):
        train(tmp_path, Classifier(dropout=0.2), log, **options)
    log.stop_at = None
    resumed, log, again = train(tmp_path, Classifier(dropout=0.2), log, **options)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines
    assert (again.steps, again.best) == (done.steps, done.best)


@pytest.mark.parametrize("changed", [PLAIN, BEST, PATIENT, ACCUMULATED], ids=str)
def test_a_kill_behind_the_last_checkpoint(tmp_path, changed):
    options = {"best_by": "accuracy", "log_every": 2, **changed}
    calm, wanted, done = train(tmp_path, Classifier(dropout=0.2), **options)
    resumed, _, again = train(tmp_path, Classifier(dropout=0.2), wanted, **options)
    assert torch.equal(weights(resumed), weights(calm))
    assert (again.steps, again.best) == (done.steps, done.best)


def test_a_folder_that_was_moved_resumes_with_its_best(tmp_path):
    options = {"best_by": "accuracy", **BEST}
    calm, *_ = train(tmp_path / "calm", **options)
    log = Log()
    log.stop_at = 20
    with pytest.raises(Stopped):
        train(tmp_path / "here", log=log, **options)
    log.stop_at = None
    shutil.move(tmp_path / "here", tmp_path / "there")
    resumed, *_ = train(tmp_path / "there", log=log, **options)
    assert torch.equal(weights(resumed), weights(calm))


def test_torn_checkpoints_are_passed_over(tmp_path):
    log = Log()
    log.stop_at = 12
    calm, wanted, _ = train(tmp_path / "calm", **PLAIN)
    with pytest.raises(Stopped):
        train(tmp_path, log=log, **PLAIN)
    work = tmp_path / "work"
    assert last_checkpoint(work) == work / "checkpoint-10"
    state = work / "checkpoint-10" / "trainer_state.json"
    state.write_text(state.read_text()[:-20])  # cut short by a kill
    (work / "checkpoint-15").mkdir()  # begun by a kill
    assert last_checkpoint(work) == work / "checkpoint-5"
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-5"]
    log.stop_at = None
    resumed, log, _ = train(tmp_path, log=log, **PLAIN)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, empty, flip])
def test_a_checkpoint_is_whole_only_with_all_of_its_files(tmp_path, damage):
    log = Log()
    log.stop_at = 12
    calm, wanted, _ = train(tmp_path / "calm", Classifier(dropout=0.2), **PLAIN)
    with pytest.raises(Stopped):
        train(tmp_path, Classifier(dropout=0.2), log, **PLAIN)
    log.stop_at = None
    newest = tmp_path / "work" / "checkpoint-10"
    files = sorted(path.name for path in newest.iterdir())
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainable.safetensors"} <= {*files}
    for name in files:
        if name == "trainer_state.json" and damage is flip:
            continue  # a folder that was moved changes it; what cannot be read is tested above
        shutil.copytree(tmp_path / "work", tmp_path / name / "work")
        damage(tmp_path / name / "work" / "checkpoint-10" / name)
        assert last_checkpoint(tmp_path / name / "work") == tmp_path / name / "work/checkpoint-5"
    resumed, log, _ = train(tmp_path / "optimizer.pt", Classifier(dropout=0.2), log, **PLAIN)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines


def test_a_checkpoint_needs_the_best_one_that_it_names(tmp_path):
    options = {"best_by": "accuracy", **BEST}
    calm, *_ = train(tmp_path / "calm", **options)
    log = Log()
    log.stop_at = 20
    with pytest.raises(Stopped):
        train(tmp_path, log=log, **options)
    log.stop_at = None
    work = tmp_path / "work"
    last = last_checkpoint(work)
    assert last is not None
    state = json.loads((last / "trainer_state.json").read_text())
    shutil.rmtree(state["best_model_checkpoint"])
    assert last_checkpoint(work) != last
    resumed, *_ = train(tmp_path, log=log, **options)
    assert torch.equal(weights(resumed), weights(calm))


def test_checkpoints_hold_only_what_trains(tmp_path):
    train(tmp_path, **PLAIN)
    folder = last_checkpoint(tmp_path / "work")
    assert folder is not None
    assert set(load_file(folder / "trainable.safetensors")) == {"out.weight", "out.bias"}
    assert not list(folder.glob("model*"))
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 24


class Failing(Classifier):
    """Raises an error; without one it asks for more memory than any machine has."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error

    def forward(self, x, labels=None):
        if self.error is None:
            torch.empty(2**60)
        raise self.error


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("out of memory"), MemoryError()])
def test_a_batch_that_does_not_fit_into_memory(tmp_path, error):
    with pytest.raises(InputError, match=r"a batch of 8 rows .*lower training.batch_size"):
        train(tmp_path, Failing(error))


def test_another_error_of_a_model_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tmp_path, Failing(RuntimeError("shapes do not match")))


def test_matrices_decay_and_what_is_frozen_is_left_out():
    decayed, others = parameter_groups(Classifier(), 0.1)
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in others["params"]] == [1]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
