"""A small classifier, its rows, and a log that can stop its training."""

import numpy as np
import torch
from torch import nn

from geodapt.training import TrainingSettings, fit
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
