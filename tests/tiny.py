"""A recipe small enough to run in a moment, and the command line that knows it.

``python tests/tiny.py run tiny.yaml`` is ``geodapt run tiny.yaml`` with this system added.
"""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field, field_validator

from geodapt.cli import main
from geodapt.errors import InputError
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import Settings
from geodapt.systems import SYSTEMS

YAML = """\
# A recipe with every kind of value.
recipe: tiny
title: A tiny recipe    # shown by ls
data:
  kind: folder
  path: ratings         # where the ratings are
training:
  learning_rate: 1e-2
  epochs: 3
sources: [sympy, numpy]
"""


class Training(Settings):
    learning_rate: float = 1e-3
    epochs: int = Field(3, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | Literal["auto"] = "auto"


class Folder(Settings):
    kind: Literal["folder"]
    path: str
    """Folder with one file a domain."""


class Hub(Settings):
    kind: Literal["hub"]
    name: str


class TinyRecipe(Recipe):
    """Fits y = 3 x by a few stages of gradient descent, slowly enough to be stopped."""

    recipe: Literal["tiny"]
    data: Annotated[Folder | Hub, Field(discriminator="kind")]
    training: Training = Training()
    sources: list[str] = Field(default_factory=list, max_length=4)
    more: list[Annotated[Folder | Hub, Field(discriminator="kind")]] = Field(default_factory=list)
    weights: dict[str, float] = Field(default_factory=dict)
    pause: float = 0.0
    fail: Literal["no", "input", "bug", "interrupt"] = "no"

    @field_validator("sources")
    @classmethod
    def _twice(cls, sources: list[str]) -> list[str]:
        if len(set(sources)) < len(sources):
            raise ValueError("a source stands there twice")
        return sources

    def run(self, folder: RunFolder) -> dict[str, Any]:
        rows = [folder.stage(name, partial(self._fit, folder, name)) for name in ("one", "two")]
        if self.fail == "input":
            raise InputError("domain 'toys' has 3 items; 5 are needed")
        if self.fail == "bug":
            raise RuntimeError("a bug")
        if self.fail == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return {"recipe": "tiny", "title": self.title, "rows": rows}

    def _fit(self, folder: RunFolder, name: str, work: Path) -> dict[str, Any]:
        torch.manual_seed(self.seed)
        x, w = torch.randn(32), torch.zeros((), requires_grad=True)
        folder.forget_after(name, -1)
        for step in range(self.training.epochs):
            loss = ((w * x - 3 * x) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, w)
            w.data -= self.training.learning_rate * gradient
            folder.log(name, step, loss=loss.item())
            time.sleep(self.pause)
        return {"method": name, "label": name, "hit_at_1": w.item(), "trainable_parameters": 1}


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A recipe file of the tiny system, in an empty working folder."""
    monkeypatch.setitem(SYSTEMS, "tiny", "tiny_system")
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(YAML)
    return tmp_path / "tiny.yaml"


def main_with_tiny() -> None:
    """``geodapt`` with the tiny system."""
    SYSTEMS["tiny"] = "tiny_system"
    main()


if __name__ == "__main__":
    main_with_tiny()
