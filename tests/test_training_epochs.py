"""Training by epochs: sgd beside a loop by hand, rates by epoch, what is called at their ends."""

import math

import numpy as np
import pytest
import torch

from geodapt.errors import InputError
from geodapt.training import TrainingSettings, epoch_rates, fit
from tests.fitting import TRAIN, Classifier, Log, Points, Stopped, train, weights

PUBLISHED = {"epochs": 5, "learning_rate": 0.0035, "schedule": "cosine-by-epoch"}


def test_rates_are_those_that_coop_and_its_successors_train_with():
    found = epoch_rates(TrainingSettings(**PUBLISHED))
    np.testing.assert_allclose(found, [1e-5, 0.0035, 0.00317, 0.00229, 0.00121], atol=5e-6)


@pytest.mark.slow
def test_sgd_by_epoch_equals_a_loop_by_hand(tmp_path):
    """One batch an epoch, so that the order of rows does not matter."""
    rows = Points(64, 3)
    options = {
        "optimizer": "sgd",
        "weight_decay": 5e-4,
        "max_grad_norm": 0,
        "batch_size": 64,
        **PUBLISHED,
        "learning_rate": 0.5,
    }
    model, _, done = train(tmp_path, rows=rows, **options)
    assert done.steps == 5

    hand = Classifier().double()
    x, labels = torch.from_numpy(rows.x).double(), torch.from_numpy(rows.labels)
    momentum = [torch.zeros_like(p) for p in hand.out.parameters()]
    for epoch in range(5):
        rate = 1e-5 if epoch == 0 else 0.25 * (1 + math.cos(math.pi * (epoch - 1) / 5))
        hand.zero_grad()
        hand(x, labels).loss.backward()
        with torch.no_grad():
            for parameter, kept in zip(hand.out.parameters(), momentum, strict=True):
                kept.mul_(0.9).add_(parameter.grad + 5e-4 * parameter)
                parameter.sub_(rate * kept)
    torch.testing.assert_close(weights(model).double(), weights(hand), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_group_has_a_rate_of_its_own(tmp_path):
    model = Classifier()
    before = [p.detach().clone() for p in model.out.parameters()]
    groups = [
        {"params": [model.out.weight], "lr": 1e-12},
        {"params": [model.out.bias]},
    ]
    changed = {"optimizer": "sgd", **PUBLISHED, "learning_rate": 0.5}
    train(tmp_path, model, groups=groups, **changed)
    assert (model.out.weight - before[0]).abs().max() < 1e-6
    assert (model.out.bias - before[1]).abs().max() > 1e-3


class Counted(Classifier):
    """Adds up its weights at the ends of epochs, in a buffer."""

    resumes_buffers = True

    def __init__(self) -> None:
        super().__init__(dropout=0.2)
        self.register_buffer("total", torch.zeros_like(self.out.weight))

    def count(self, epoch: int) -> None:
        self.total += (epoch + 1) * self.out.weight.detach()


class Told(Points):
    """Rows that are noisy in another way in each epoch."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        row = super().__getitem__(index)
        noise = np.random.default_rng([self.epoch, index]).normal(size=row["x"].shape)
        return {**row, "x": (row["x"] + 0.1 * noise).astype("float32")}


@pytest.mark.slow
def test_what_is_called_after_epochs_is_exact_under_resume(tmp_path):
    settings = TrainingSettings(
        epochs=3, batch_size=64, learning_rate=0.1, optimizer="sgd", save_every=2, log_every=1
    )

    def run(work, log):
        model, called = Counted(), []

        def after(epoch):
            called.append(epoch)
            model.count(epoch)

        fit(
            model,
            Told(256, 0),
            settings,
            work=work,
            log=log,
            forget_after=log.forget_after,
            after_epoch=after,
        )
        return model, called

    calm, called = run(tmp_path / "calm", Log())
    assert called == [0, 1, 2]
    for stop in (4, 5, 11):  # the end of an epoch, within one, near the end of all
        log = Log()
        log.stop_at = stop
        with pytest.raises(Stopped):
            run(tmp_path / str(stop), log)
        log.stop_at = None
        model, _ = run(tmp_path / str(stop), log)
        assert torch.equal(weights(model), weights(calm))
        assert torch.equal(model.total, calm.total)
    again, called = run(tmp_path / "11", log)  # a kill after the last checkpoint
    assert called == []
    assert torch.equal(again.total, calm.total)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"256 rows are fewer than a batch of 300"):
        train(tmp_path, batch_size=300, drop_last=True)
    with pytest.raises(InputError, match=r"set training\.epochs"):
        fit(
            Classifier(),
            TRAIN,
            TrainingSettings(),
            work=tmp_path,
            after_epoch=lambda epoch: None,
        )
    with pytest.raises(ValueError, match="needs epochs"):
        TrainingSettings(schedule="cosine-by-epoch")
