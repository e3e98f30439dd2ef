"""The soak, for seconds instead of a minute."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def soak():
    path = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_short_soak_gives_no_wrong_answer(soak, monkeypatch):
    monkeypatch.setattr(soak, "ADAPTERS", 120)
    result = soak.soak(2.0, least=200)
    assert result["wrong"] == 0
    assert result["reloads"] > 0
    assert result["on_device_at_the_end"] <= soak.CAPACITY
    assert result["memory_mb"]["last"] < result["memory_mb"]["first"] + 40
