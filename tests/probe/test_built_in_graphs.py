"""The probe on what every machine has: Python's classes, and the items of the built-in data."""

import pytest

from geodapt import probe
from geodapt.data import ApiCallSettings, api_calls
from geodapt.data.api_calls import load_api_calls
from geodapt.probe import figures


@pytest.mark.slow
def test_pythons_class_hierarchy_is_nearly_a_tree(monkeypatch):
    for size in ("STEPS", "DRAWN", "EDGES", "EXACT"):
        monkeypatch.setattr(figures, size, 60)
    source = probe.load_source("classes", sample=200)
    measured = probe.measure(source)
    assert "object" in source.labels
    assert source.total > 1000
    assert measured.departure < 0.5


@pytest.mark.slow
def test_api_items_are_one_tree(monkeypatch, own_cache):
    """Of two packages, which take seconds to read; the four of the source take most of a minute."""
    mined = load_api_calls(ApiCallSettings(domains=["networkx", "matplotlib"]))
    monkeypatch.setattr(api_calls, "load_api_calls", lambda settings: mined)
    source = probe.load_source("api-calls", sample=50)
    assert "packages" in source.labels
    assert len(source.notes) == 1  # sampled, and no part left out
    assert len(source.graph) == source.total - 1
