"""Fixtures of the adapter tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.families import FAMILIES


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
