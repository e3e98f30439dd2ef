"""What a run leaves, what may go on, and that going on ends where not stopping would."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from geodapt import progress
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.locks import only_user
from geodapt.recipes.execution import execute
from geodapt.recipes.loading import load_recipe
from geodapt.runs import RunFolder


def recipe(*overrides):
    return load_recipe("tiny.yaml", overrides).recipe


def everything_in(folder: Path) -> set[str]:
    """The files below a folder but for the lock of a run in progress."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {"work/.lock", "work/.holder.json"}


def test_a_run_leaves_its_figures_and_how_to_repeat_it(tiny):
    results = execute(recipe("training.epochs=4"), "out")
    assert everything_in(Path("out")) == {
        "config.yaml",
        "metrics.jsonl",
        "results.json",
        "stages/one.json",
        "stages/two.json",
    }
    assert read_json("out/results.json") == results
    assert results["seconds"] > 0
    assert results["peak_memory_mb"] > 0
    assert set(results["versions"]) >= {"torch", "transformers"}

    again = load_recipe("out/config.yaml").recipe
    assert again == recipe("training.epochs=4")
    assert execute(again, "out2")["rows"] == results["rows"]
    assert Path("out2/config.yaml").read_bytes() == Path("out/config.yaml").read_bytes()
    assert Path("out2/metrics.jsonl").read_bytes() == Path("out/metrics.jsonl").read_bytes()


def test_the_configuration_is_written_before_the_work(tiny, monkeypatch):
    def check(self, folder):
        assert everything_in(folder.path) == {"config.yaml"}
        return {"rows": []}

    monkeypatch.setattr(type(recipe()), "run", check)
    execute(recipe(), "out")


def test_bars_after_a_run_that_failed_are_no_stages_of_it(tiny, monkeypatch):
    def fail(self, folder):
        progress.schedule({"one": 1.0, "two": 1.0})
        folder.timed_stage("one", lambda work: {})
        folder.timed_stage("two", lambda work: 1 / 0)

    monkeypatch.setattr(type(recipe()), "run", fail)
    with pytest.raises(ZeroDivisionError):
        execute(recipe(), "out")
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", screen)
    monkeypatch.delenv("GEODAPT_PROGRESS", raising=False)
    list(progress.track([1], "counting"))
    assert "counting" in screen.file.getvalue()
    assert "[2/2]" not in screen.file.getvalue()


def test_a_folder_with_something_in_it_is_refused(tiny):
    execute(recipe(), "out")
    before = {path: Path("out", path).read_bytes() for path in everything_in(Path("out"))}
    with pytest.raises(InputError, match="out is not empty; continue its run by --resume"):
        execute(recipe(), "out")
    assert before == {path: Path("out", path).read_bytes() for path in everything_in(Path("out"))}

    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="other"):
            execute(recipe(), "other", resume)
    assert everything_in(Path("other")) == {"notes.txt"}


def test_an_empty_folder_is_as_good_as_none(tiny):
    Path("out").mkdir()
    assert execute(recipe(), "out")["rows"]


def test_a_place_that_cannot_be_written(tiny):
    Path("file").write_text("")
    with pytest.raises(InputError, match="cannot write the run to file"):
        execute(recipe(), "file/out")
    with pytest.raises(InputError, match="cannot write the run to file"):
        execute(recipe(), "file")


def test_resume_starts_what_is_not_there(tiny):
    assert execute(recipe(), "out", resume=True)["rows"]


def test_resume_computes_no_finished_run_again(tiny, monkeypatch):
    results = execute(recipe(), "out")
    monkeypatch.setattr(type(recipe()), "run", None)
    assert execute(recipe(), "out", resume=True) == results


def test_resume_refuses_another_configuration_and_tells_the_keys(tiny):
    execute(recipe(), "out")
    with pytest.raises(InputError) as caught:
        execute(recipe("training.epochs=9", "sources=[sympy]", "seed=1"), "out", resume=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == "out holds the run of another configuration:"
    assert lines[1:-2] == [
        "  seed: 0 there, 1 asked",
        "  training.epochs: 3 there, 9 asked",
        "  sources.1: numpy there, absent asked",
    ]
    assert "geodapt run out/config.yaml --out out --resume" in lines[-2]


def test_resume_goes_on_with_a_run_from_before_a_key_was_new(tiny):
    results = execute(recipe(), "out")
    config = Path("out/config.yaml")
    config.write_text(config.read_text().replace("pause: 0.0\n", ""))
    assert execute(recipe(), "out", resume=True) == results


def test_resume_refuses_a_configuration_that_was_broken(tiny):
    execute(recipe(), "out")
    config = Path("out/config.yaml")
    config.write_text(config.read_text().replace("pause:", "puase:"))
    with pytest.raises(InputError, match=r"out/config\.yaml:\d+: unknown key 'puase'"):
        execute(recipe(), "out", resume=True)


def test_resume_refuses_the_run_of_another_recipe(tiny):
    execute(recipe(), "out")
    config = Path("out/config.yaml")
    config.write_text("recipe: helm\nmodels: [llama]\n")
    with pytest.raises(InputError, match=r"another recipe \(helm, not tiny\)"):
        execute(recipe(), "out", resume=True)


def test_resume_lets_the_title_change(tiny):
    execute(recipe(), "out")
    assert execute(recipe("title=A better title"), "out", resume=True)


def test_a_stopped_run_goes_on_where_it_was(tiny):
    undisturbed = execute(recipe(), "undisturbed")
    with pytest.raises(RuntimeError):
        execute(recipe("fail=bug"), "out")
    config = Path("out/config.yaml")
    config.write_text(config.read_text().replace("fail: bug", "fail: 'no'"))
    one = Path("out/stages/one.json").stat().st_mtime_ns
    assert execute(recipe(), "out", resume=True)["rows"] == undisturbed["rows"]
    assert Path("out/stages/one.json").stat().st_mtime_ns == one
    assert RunFolder("out").metrics() == RunFolder("undisturbed").metrics()


def test_resume_sweeps_away_what_a_kill_left_half_written(tiny):
    execute(recipe(), "out")
    Path("out/stages/.one.json.0123abcd.unfinished").write_text("{")
    execute(recipe(), "out", resume=True)
    assert not any(name.endswith("unfinished") for name in everything_in(Path("out")))


def test_what_is_refused_before_any_work_leaves_no_folder(tiny, monkeypatch):
    def refuse(self, folder):
        raise InputError("data.path does not exist")

    monkeypatch.setattr(type(recipe()), "run", refuse)
    with pytest.raises(InputError, match=r"data\.path"):
        execute(recipe(), "runs/out")
    assert not Path("runs/out").exists()


def test_what_is_refused_after_work_keeps_it(tiny):
    with pytest.raises(InputError, match="domain 'toys'"):
        execute(recipe("fail=input"), "out")
    assert "stages/two.json" in everything_in(Path("out"))


def test_a_run_in_progress_is_left_alone(tiny):
    with pytest.raises(RuntimeError):
        execute(recipe("fail=bug"), "out")
    before = everything_in(Path("out"))
    with only_user(Path("out"), "work"), pytest.raises(InputError, match="out is in use by proc"):
        execute(recipe("fail=bug"), "out", resume=True)
    with only_user(Path("new"), "work"), pytest.raises(InputError, match="new is in use by proc"):
        execute(recipe(), "new")
    assert everything_in(Path("out")) == before
    assert execute(recipe(), "new")["rows"]
    assert "work" not in {path.name for path in Path("new").iterdir()}


@pytest.mark.parametrize("beside", [False, True])
def test_a_work_folder_that_no_run_made_is_kept(tiny, beside):
    Path("out/work").mkdir(parents=True)
    Path("out/work/thesis.txt").write_text("years of work")
    if beside:  # somebody copied a configuration to where he works
        execute(recipe(), "other")
        shutil.copy("other/config.yaml", "out")
    with pytest.raises(InputError, match="out"):
        execute(recipe(), "out", resume=True)
    assert Path("out/work/thesis.txt").read_text() == "years of work"


def test_a_run_folder_may_be_a_link(tiny):
    Path("disk").mkdir()
    Path("out").symlink_to("disk")
    with pytest.raises(RuntimeError):
        execute(recipe("fail=bug"), "out")
    assert Path("disk/config.yaml").is_file()
    with pytest.raises(RuntimeError):
        execute(recipe("fail=bug"), "out", resume=True)
    assert Path("out").is_symlink()


@pytest.mark.parametrize("out", ["", "~nosuchuser/x", "x" * 300, "d/" * 2000, "a\0b", "\ud800"])
def test_a_folder_that_cannot_be(tiny, out):
    with pytest.raises(InputError, match="path"):
        execute(recipe(), out)
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_no_generator_takes(tiny, seed):
    with pytest.raises(InputError, match="seed: expected"):
        recipe(f"seed={seed}")
