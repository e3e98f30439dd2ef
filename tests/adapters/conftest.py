"""Fixtures of the adapter tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from geodapt.adapters import Adapter
from tests.adapters.made_by_peft import FAMILIES
from tests.adapters.merges import PATHS, adapter


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def peft_folder(tmp_path: Path):
    """Saves a PEFT model's adapters; returns the folder of one by name."""

    def save(model) -> Callable[[str], Path]:
        model.save_pretrained(tmp_path / "peft")
        return lambda name: tmp_path / "peft" / name

    return save


@pytest.fixture
def three() -> list[Adapter]:
    """Different ranks, scales and targets."""
    some = {path: PATHS[path] for path in ("layers.0.q", "layers.0.v")}
    return [adapter(0, 2), adapter(1, 4, some, scale=2.0), adapter(2, 3, scale=-1.0)]
