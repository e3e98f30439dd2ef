"""The script for one GPU runs on a CPU, at small sizes, and prints what it measured as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_part_runs_and_is_reported():
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--small"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env=hidden)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"]
    assert not found["left_out"]
    training, decoding = found["models"]
    assert training["tokens_per_second"]["ours"] > 0
    assert 0 < training["share_of_peak"]["ours"] < 1
    assert decoding["ms"]["peer"] > 0
    assert {row["what"] for row in found["adapters"]} == {"routed step", "routed prefill"}
    assert all(row["new_gate_each_step"] > 0 for row in found["adapters"])
    assert len(found["geometry"]) == 5
    assert {row["what"] for row in found["xcross"]} == {"X-Cross forward", "X-Cross training step"}
