"""Adapters that train in two processes become those that train in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import SOURCE

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("averaging.py")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def run(folder, how, launcher=TWO):
    path = os.pathsep.join([str(SOURCE), str(SCRIPT.parents[2])])
    return subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), how, str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder, "alone", launcher=())
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "alone-0.pt")


@pytest.mark.parametrize("how", ["bank", "base", "sharded"])
def test_two_processes_train_the_adapters_that_one_trains(alone, tmp_path, how):
    done = run(tmp_path, how)
    assert done.returncode == 0, done.stderr
    found = [torch.load(tmp_path / f"{how}-{rank}.pt") for rank in (0, 1)]
    for first, second, wanted in zip(*found, alone, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, wanted, atol=1e-5, rtol=1e-5)


def test_adapters_that_differ_between_processes_are_refused(tmp_path):
    done = run(tmp_path, "seeds")
    assert done.returncode != 0
    assert "refused: adapter 'books' is not the same in every process" in done.stderr


def test_a_layer_in_parts_is_refused(tmp_path):
    done = run(tmp_path, "split")
    assert done.returncode != 0
    assert "refused: model.layers.0.self_attn.q_proj is tensor parallel" in done.stderr
