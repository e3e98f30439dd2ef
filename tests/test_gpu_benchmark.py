"""The script for one GPU runs on a CPU, at small sizes, and prints what it measured as JSON."""

import json

import pytest

from tests.forked import fork


def on_cpu():
    """``benchmarks/gpu.py``, imported where no GPU is seen."""
    from gpu import main

    main()


@pytest.mark.slow
def test_every_part_runs_and_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    process = fork(tmp_path, "--small", run=on_cpu)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found = json.loads(out)
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
