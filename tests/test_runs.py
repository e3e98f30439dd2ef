"""A run's folder: memoised stages, its log, what it cost, how it ends."""

import json

import pytest
import torch

from geodapt import memory as memory_module
from geodapt import runs
from geodapt.errors import InputError
from geodapt.runs import Recipe, RunFolder, device_name


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_stage_is_computed_once(folder):
    calls = []

    def compute(work):
        calls.append(work)
        (work / "checkpoint").write_text("half")
        return {"hit_at_1": 0.5, "names": ["a"]}

    first = folder.stage("train", compute)
    assert first == {"hit_at_1": 0.5, "names": ["a"]}
    assert RunFolder(folder.path).stage("train", compute) == first
    assert len(calls) == 1
    assert not calls[0].exists()


def test_a_stage_that_fails_keeps_its_checkpoints_for_the_next_try(folder):
    def fail(work):
        (work / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.stage("train", fail)
    again = RunFolder(folder.path).stage(
        "train", lambda work: {"found": (work / "checkpoint").read_text()}
    )
    assert again == {"found": "half"}


def test_stages_do_not_share_their_work(folder):
    seen = []
    for name in ("one", "two"):
        folder.stage(name, lambda work: {"empty": seen.append(work) or not any(work.iterdir())})
    assert len(set(seen)) == 2


def test_the_log_is_read_back(folder):
    folder.log("one", 1, loss=0.5)
    folder.log("one", 2, loss=0.25, learning_rate=1e-3)
    assert RunFolder(folder.path).metrics() == [
        {"stage": "one", "step": 1, "loss": 0.5},
        {"stage": "one", "step": 2, "loss": 0.25, "learning_rate": 1e-3},
    ]


def test_a_run_without_a_log(folder):
    assert folder.metrics() == []
    folder.forget_after("one", 0)
    assert folder.metrics() == []


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_line_that_was_cut_short_takes_no_other_with_it(folder, cut):
    folder.log("one", 1, loss=0.5)
    folder.log("one", 2, loss=0.5)
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    folder.log("one", 3, loss=0.5)
    steps = [line["step"] for line in folder.metrics()]
    assert steps == ([1, 2, 3] if cut == 1 else [1, 3])


def test_going_on_forgets_only_its_own_stages_later_steps(folder):
    for stage, step in [("one", 1), ("one", 2), ("two", 1), ("two", 2), ("two", 3)]:
        folder.log(stage, step)
    folder.forget_after("two", 1)
    left = [(line["stage"], line["step"]) for line in folder.metrics()]
    assert left == [("one", 1), ("one", 2), ("two", 1)]


def test_the_end_of_a_run(folder):
    folder.stage("one", lambda work: {})
    assert not folder.finished
    results = folder.finish({"rows": [1], "extra": "kept"}, seed=7)
    assert folder.finished
    assert folder.results() == results == json.loads((folder / "results.json").read_text())
    assert (results["rows"], results["extra"], results["seed"]) == ([1], "kept", 7)
    assert results["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert results["device"] == device_name()
    assert not (folder / "work").exists()


def test_seconds_add_up_and_memory_is_the_most_of_all_tries(folder, monkeypatch):
    clock = iter([0, 10, 25, 100, 103])  # start, stage, stage; another start, finish
    memory = iter([500, 900, 300])
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(memory_module, "peak_memory_mb", lambda: next(memory))
    first = RunFolder(folder.path)
    first.stage("one", lambda work: {})
    first.stage("two", lambda work: {})
    results = RunFolder(folder.path).finish({}, seed=0)
    assert results["seconds"] == 25 + 3
    assert results["peak_memory_mb"] == 900


def test_figures_of_a_run_that_has_none(folder, tmp_path):
    with pytest.raises(InputError, match="not a run's folder"):
        folder.results()
    folder.path.mkdir()
    (folder / "config.yaml").write_text("recipe: x\n")
    with pytest.raises(InputError, match="not finished; continue it with --resume"):
        folder.results()


def test_only_the_main_process_writes(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    folder.log("one", 1, loss=0.5)
    folder.forget_after("one", 0)
    assert folder.stage("one", lambda work: {"a": 1}) == {"a": 1}
    assert folder.finish({"a": 1}, seed=0)["a"] == 1
    assert [path for path in folder.path.rglob("*") if path.is_file()] == []


def test_a_recipe_refuses_unknown_keys():
    class Nothing(Recipe):
        def run(self, folder):
            return {}

    assert Nothing(recipe="nothing").seed == 0
    with pytest.raises(ValueError, match="Extra inputs"):
        Nothing(recipe="nothing", sed=1)


@pytest.mark.parametrize("content", ["", "[]", "5", "{}", '{"seconds": "x"}', "\0\0", "[" * 9999])
def test_what_a_run_has_cost_may_be_unreadable(folder, content):
    folder.stage("one", lambda work: {})
    (folder / "work" / "spent.json").write_text(content)
    assert RunFolder(folder.path).finish({}, seed=0)["seconds"] >= 0


@pytest.mark.parametrize("content", ["", "[]", "5", "\0\0", "[" * 9999])
def test_a_stage_or_results_that_no_run_wrote(folder, content):
    folder.stage("one", lambda work: {})
    (folder / "stages" / "one.json").write_text(content)
    (folder / "results.json").write_text(content)
    for read in (folder.results, lambda: folder.stage("one", lambda work: {})):
        with pytest.raises(InputError, match=r"(one|results)\.json"):
            read()


def test_log_lines_that_are_none(folder):
    folder.log("one", 1, loss=0.5)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"5\n[]\n{}\n\xff\xfe\n" + b"[" * 9999 + b"\n")
    folder.log("one", 2, loss=0.5)
    assert [line["step"] for line in folder.metrics()] == [1, 2]


@pytest.mark.parametrize("name", ["/a", "../../a", "..", "a/../../../b", ".x"])
def test_a_stages_name_is_no_path(folder, name):
    (folder.path.parent / "b").mkdir()
    (folder.path.parent / "b" / "thesis.txt").write_text("years of work")
    assert folder.stage(name, lambda work: {"a": work.parent == folder / "work"}) == {"a": True}
    assert folder.watch(name)["tensorboard"].parent == folder / "tensorboard"
    assert (folder.path.parent / "b" / "thesis.txt").is_file()
    assert len(list((folder / "stages").iterdir())) == 1
