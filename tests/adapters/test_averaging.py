"""Adapters that train in two processes become those that train in one."""

import pytest
import torch

from tests.adapters.averaging import KINDS, TRAINED, main, train
from tests.forked import fork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two processes end with."""
    folder = tmp_path_factory.mktemp("two")
    processes = fork(folder, folder, run=main, ranks=2)
    _, err = processes.communicate(timeout=600)
    assert processes.returncode == 0, err
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """What one process ends with, by the kind of the adapters."""
    return {kind: train("alone", kind=kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", TRAINED)
def test_two_processes_train_the_adapters_that_one_trains(found, alone, how, kind):
    ends = [process[how, kind] for process in found]
    # A step is 0.01 whatever the gradient; rows of two batches are rounded apart in bfloat16.
    near = 1e-2 if kind == "bfloat16" else 1e-5
    for first, second, wanted in zip(*ends, alone[kind], strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, wanted, atol=near, rtol=near)


def test_adapters_that_differ_between_processes_are_refused(found):
    for process in found:
        assert "adapter 'books' is not the same in every process" in process["seeds", "linear"]


def test_a_layer_in_parts_is_refused(found):
    for process in found:
        assert "model.layers.0.self_attn.q_proj is tensor parallel" in process["split", "linear"]
