"""Checkpoints of the training loop: resumed, torn, moved, stopped by memory."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from geodapt.errors import InputError
from geodapt.training import (
    last_checkpoint,
)
from tests.fitting import Classifier, Log, Stopped, train, weights

pytestmark = pytest.mark.slow

PLAIN = {"steps": 24, "save_every": 5, "log_every": 2}
BEST = {"steps": 24, "evaluate_every": 4, "learning_rate": 2.0, "schedule": "constant"}
PATIENT = {"steps": 80, "evaluate_every": 2, "learning_rate": 0.7, "patience": 4}
ACCUMULATED = {"steps": 12, "save_every": 5, "gradient_accumulation": 3, "batch_size": 3}


@pytest.mark.parametrize("stop_at", [1, 13, "last"])
@pytest.mark.parametrize("changed", [PLAIN, BEST, PATIENT, ACCUMULATED], ids=str)
def test_a_resumed_training_ends_as_an_undisturbed_one(tmp_path, changed, stop_at):
    options = {"best_by": "accuracy", "log_every": 2, **changed}
    calm, wanted, done = train(tmp_path / "calm", Classifier(dropout=0.2), **options)

    log = Log()
    log.stop_at = done.steps if stop_at == "last" else min(stop_at, done.steps)
    with pytest.raises(Stopped):
        train(tmp_path, Classifier(dropout=0.2), log, **options)
    log.stop_at = None
    resumed, log, again = train(tmp_path, Classifier(dropout=0.2), log, **options)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines
    assert (again.steps, again.best) == (done.steps, done.best)


@pytest.mark.parametrize("changed", [PLAIN, BEST, PATIENT, ACCUMULATED], ids=str)
def test_a_kill_after_the_last_checkpoint(tmp_path, changed):
    options = {"best_by": "accuracy", "log_every": 2, **changed}
    calm, wanted, done = train(tmp_path, Classifier(dropout=0.2), **options)
    resumed, _, again = train(tmp_path, Classifier(dropout=0.2), wanted, **options)
    assert torch.equal(weights(resumed), weights(calm))
    assert (again.steps, again.best) == (done.steps, done.best)


def test_a_folder_that_was_moved_resumes_with_its_best(tmp_path):
    options = {"best_by": "accuracy", **BEST}
    calm, *_ = train(tmp_path / "calm", **options)
    log = Log()
    log.stop_at = 20
    with pytest.raises(Stopped):
        train(tmp_path / "here", log=log, **options)
    log.stop_at = None
    shutil.move(tmp_path / "here", tmp_path / "there")
    resumed, *_ = train(tmp_path / "there", log=log, **options)
    assert torch.equal(weights(resumed), weights(calm))


def test_torn_checkpoints_are_passed_over(tmp_path):
    log = Log()
    log.stop_at = 12
    calm, wanted, _ = train(tmp_path / "calm", **PLAIN)
    with pytest.raises(Stopped):
        train(tmp_path, log=log, **PLAIN)
    work = tmp_path / "work"
    assert last_checkpoint(work) == work / "checkpoint-10"
    state = work / "checkpoint-10" / "trainer_state.json"
    state.write_text(state.read_text()[:-20])  # cut short by a kill
    (work / "checkpoint-15").mkdir()  # begun by a kill
    assert last_checkpoint(work) == work / "checkpoint-5"
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-5"]
    log.stop_at = None
    resumed, log, _ = train(tmp_path, log=log, **PLAIN)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, empty, flip])
def test_a_checkpoint_is_whole_only_with_all_of_its_files(tmp_path, damage):
    log = Log()
    log.stop_at = 12
    calm, wanted, _ = train(tmp_path / "calm", Classifier(dropout=0.2), **PLAIN)
    with pytest.raises(Stopped):
        train(tmp_path, Classifier(dropout=0.2), log, **PLAIN)
    log.stop_at = None
    newest = tmp_path / "work" / "checkpoint-10"
    files = sorted(path.name for path in newest.iterdir())
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainable.safetensors"} <= {*files}
    for name in files:
        if name == "trainer_state.json" and damage is flip:
            continue  # a folder that was moved changes it; what cannot be read is tested above
        shutil.copytree(tmp_path / "work", tmp_path / name / "work")
        damage(tmp_path / name / "work" / "checkpoint-10" / name)
        assert last_checkpoint(tmp_path / name / "work") == tmp_path / name / "work/checkpoint-5"
    resumed, log, _ = train(tmp_path / "optimizer.pt", Classifier(dropout=0.2), log, **PLAIN)
    assert torch.equal(weights(resumed), weights(calm))
    assert log.lines == wanted.lines


def test_a_checkpoint_needs_the_best_one_that_it_names(tmp_path):
    options = {"best_by": "accuracy", **BEST}
    calm, *_ = train(tmp_path / "calm", **options)
    log = Log()
    log.stop_at = 20
    with pytest.raises(Stopped):
        train(tmp_path, log=log, **options)
    log.stop_at = None
    work = tmp_path / "work"
    last = last_checkpoint(work)
    assert last is not None
    state = json.loads((last / "trainer_state.json").read_text())
    shutil.rmtree(state["best_model_checkpoint"])
    assert last_checkpoint(work) != last
    resumed, *_ = train(tmp_path, log=log, **options)
    assert torch.equal(weights(resumed), weights(calm))


def test_checkpoints_hold_only_what_trains(tmp_path):
    train(tmp_path, **PLAIN)
    folder = last_checkpoint(tmp_path / "work")
    assert folder is not None
    assert set(load_file(folder / "trainable.safetensors")) == {"out.weight", "out.bias"}
    assert not list(folder.glob("model*"))
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 24


class Failing(Classifier):
    """Raises an error; without one it asks for more memory than any machine has."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error

    def forward(self, x, labels=None):
        if self.error is None:
            torch.empty(2**60)
        raise self.error


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("out of memory"), MemoryError()])
def test_a_batch_that_does_not_fit_into_memory(tmp_path, error):
    with pytest.raises(InputError, match=r"a batch of 8 rows .*lower training.batch_size"):
        train(tmp_path, Failing(error))


def test_another_error_of_a_model_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tmp_path, Failing(RuntimeError("shapes do not match")))
