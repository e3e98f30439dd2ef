"""The peak memory of one piece of work."""

import os
import subprocess
import sys

import pytest
import torch

from geodapt.memory import free_memory_mb, peak_memory, peak_memory_mb

linux = sys.platform == "linux"


MEASURE = """
import torch
from geodapt.memory import peak_memory

def use(megabytes):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    del block

use(1)  # what the first use loads is no block's
for megabytes in (0, 300, 50):
    with peak_memory() as peak:
        use(megabytes)
    print(peak.mb)
"""


def use(megabytes: int) -> None:
    """Touch memory, and give it back."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    del block


@pytest.mark.slow
def test_the_peak_is_that_of_the_block():
    """In a process of its own: what other tests leave behind is freed at any time."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    rest, large, small = map(float, done.stdout.split())
    assert 290 < large - rest < 330
    if linux:  # elsewhere the process's own mark is all there is
        assert 40 < small - rest < 90


def test_it_is_measured_when_the_block_fails():
    def work():
        use(20)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), peak_memory() as peak:
        work()
    assert peak.mb > 10


def test_without_a_mark_to_reset_it_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("geodapt.memory._STATUS", tmp_path / "status")
    monkeypatch.setattr("geodapt.memory._CLEAR", tmp_path / "none" / "clear_refs")
    before = peak_memory_mb()
    with peak_memory() as peak:
        use(2)
    assert peak.mb >= before > 10


def test_what_is_free():
    free = free_memory_mb()
    assert (free is not None and free > 0) or not linux
