"""Several runs in one table and on one page."""

import json

import pytest
from html_page import read_html
from invented_run import write_run

from geodapt.errors import InputError
from geodapt.report.compared_runs import Compared, short_names


@pytest.fixture
def runs(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("first", "second")]
    config = folders[1] / "config.yaml"
    config.write_text(config.read_text().replace("base: minilm", "base: bigger"))
    return folders


def test_all_rows_and_all_curves_of_all_runs(runs):
    compared = Compared(runs)
    page = read_html(compared.page())
    heads = [section.all("h2")[0].text for section in page.all("section")]
    assert heads == ["Comparison", "Settings that differ", "Training"]
    names = [row["label"] for row in compared.results()["rows"]]
    assert "first: X-Cross" in names
    assert "second: X-Cross" in names
    losses = page.figures[1]["data"]
    assert {trace["name"].split(":")[0] for trace in losses} == {"first", "second"}


def test_only_settings_that_differ_are_told(runs):
    assert Compared(runs).settings() == [("base", ["minilm", "bigger"])]


def test_settings_read_as_in_a_recipe(tmp_path):
    """A part that one run has not is told by its keys, and not a second time as None."""
    configs = ("part: null\nflag: true\n", "part: {steps: 3}\nflag: false\n")
    folders = [
        write_run(tmp_path / name, config=config)
        for name, config in zip("ab", configs, strict=True)
    ]
    assert Compared(folders).settings() == [
        ("flag", ["true", "false"]),
        ("part.steps", ["–", "3"]),
    ]


def test_names_tell_folders_apart(tmp_path):
    assert short_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_what_cannot_be_compared(runs, tmp_path):
    with pytest.raises(InputError, match="two finished runs"):
        Compared(runs[:1])
    with pytest.raises(InputError, match="stands twice"):
        Compared([runs[0], runs[0]])
    with pytest.raises(InputError, match="not a folder"):
        Compared([runs[0], tmp_path / "missing"])
    (runs[1] / "results.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        Compared(runs)


def test_by_command(runs, geodapt, tmp_path):
    done = geodapt("compare", *map(str, runs), "--out", str(tmp_path / "page.html"))
    assert done.code == 0, done.err
    assert "second: X-Cross" in done.out
    assert "base: minilm | bigger" in done.out
    assert (tmp_path / "page.html").is_file()
    assert json.loads((runs[0] / "results.json").read_text())
