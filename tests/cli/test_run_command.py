"""`geodapt run` from the outside: statuses, words, kills, several processes."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests import held

SLOW = ("training.epochs=15", "pause=0.02")


def rows(folder) -> list:
    return json.loads(Path(folder, "results.json").read_text())["rows"]


def test_a_run_prints_its_table_and_its_page(geodapt, tiny):
    done = geodapt("run", "tiny.yaml", "training.epochs=5")
    assert done.code == 0, done.err
    assert "A tiny recipe" in done.out
    assert done.out.splitlines()[-1] == "runs/tiny/report.html"
    assert Path("runs/tiny/report.html").is_file()
    assert "epochs: 5" in Path("runs/tiny/config.yaml").read_text()
    assert done.err == ""


def test_report_draws_the_page_again(geodapt, tiny):
    ran = geodapt("run", "tiny.yaml", "--out", "out")
    page = Path("out/report.html")
    page.unlink()
    done = geodapt("report", "out")
    assert done.code == 0
    assert done.out == ran.out
    assert page.is_file()


def test_a_page_of_no_run(geodapt, tiny):
    done = geodapt("report", "nowhere")
    assert done.code == 2
    assert done.err == "error: nowhere is not a run's folder: it has no config.yaml\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no recipe 'nothing'"),
        (["nothing.yaml"], "recipe file 'nothing.yaml' does not exist"),
        (["tiny.yaml", "trainig.epochs=1"], "unknown key 'trainig'; did you mean 'training'?"),
        (["tiny.yaml", "epochs"], "override 'epochs' is not of the form key=value"),
        (["tiny.yaml", "--out", "tiny.yaml"], "cannot write the run to tiny.yaml"),
    ],
)
def test_wrong_input_is_one_error_and_no_file(geodapt, tiny, arguments, words):
    done = geodapt("run", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert words in done.err
    assert "Traceback" not in done.err
    assert not done.out
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.yaml"]


def test_wrong_input_shows_its_traceback_with_debug(geodapt, tiny):
    done = geodapt("run", "tiny.yaml", "fail=input", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.endswith("error: domain 'toys' has 3 items; 5 are needed\n")


@pytest.mark.slow
def test_a_bug_shows_its_traceback_and_where_the_run_is(start, tiny):
    process = start("run", "tiny.yaml", "fail=bug", "--out", "my run")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "RuntimeError: a bug" in err
    assert "geodapt run 'my run/config.yaml' --out 'my run' --resume" in err.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(start, geodapt, tiny):
    assert geodapt("run", "tiny.yaml", SLOW[0], "--out", "undisturbed").code == 0
    shell = (held.__file__, "log:two:2")
    process = start("run", "tiny.yaml", *SLOW, "--out", "out", launcher=shell)
    held.wait_until_held(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    said = re.search(r"^stopped; out is usable; continue with: geodapt (.*)$", err, re.MULTILINE)
    assert geodapt(*said[1].split()).code == 0
    assert rows("out") == rows("undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["one", "two"])
def test_kill_9_and_resume_end_with_the_same_figures(start, geodapt, tiny, stage):
    assert geodapt("run", "tiny.yaml", SLOW[0], "--out", "undisturbed").code == 0
    process = start("run", "tiny.yaml", *SLOW, "--out", "out", place=f"log:{stage}:5")
    held.wait_until_held(process)
    process.kill()
    process.wait()
    assert not Path("out/results.json").exists()
    seconds = json.loads(Path("out/work/spent.json").read_text())["seconds"]

    assert geodapt("run", "tiny.yaml", *SLOW, "--out", "out", "--resume").code == 0
    assert rows("out") == rows("undisturbed")
    assert Path("out/metrics.jsonl").read_text() == Path("undisturbed/metrics.jsonl").read_text()
    results = json.loads(Path("out/results.json").read_text())
    left = {"one": 25, "two": 10}[stage] * 0.02
    assert results["seconds"] > seconds + left - 0.1


@pytest.mark.slow
def test_of_several_processes_one_writes(start, geodapt, tiny):
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    process = start("run", "tiny.yaml", "--out", "several", launcher=launcher)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("several/report.html") == 1
    assert geodapt("run", "tiny.yaml", "--out", "single").code == 0
    assert rows("several") == rows("single")
    assert Path("several/metrics.jsonl").read_text() == Path("single/metrics.jsonl").read_text()


@pytest.mark.slow
def test_several_processes_refuse_wrong_input_once(start, tiny):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    process = start("run", "tiny.yaml", "--out", "out", ranks=2)
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert err.count("error: out is not empty") == 1
