"""Help, version, `ls` and `cp`: what needs no model."""

import re
import subprocess
import sys

import pytest
from tiny import YAML

import geodapt as package
from geodapt.cli.app import app
from geodapt.recipes import catalog

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.mark.parametrize("command", ["", *COMMANDS, "adapters info"])
def test_help_has_an_example(geodapt, command):
    done = geodapt(*command.split(), "--help")
    assert done.code == 0
    assert re.search(rf"\n    ? ?.*geodapt {command}", done.out.split("Usage:")[1])


def test_help_says_in_a_whole_sentence_what_each_command_does(geodapt):
    listed = geodapt("--help").out.split("Commands:\n")[1].splitlines()
    assert {line.split()[0] for line in listed} == {*COMMANDS, "adapters"}
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_version(geodapt):
    assert geodapt("--version").out == f"geodapt {package.__version__}\n"


@pytest.mark.parametrize("arguments", [("rnu",), ("run",), ("run", "demo", "--resum"), ("cp", "a")])
def test_wrong_usage_ends_with_status_2(geodapt, arguments):
    done = geodapt(*arguments)
    assert done.code == 2
    assert "Usage: geodapt" in done.err
    assert not done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["ls"], ["cp", "--help"], ["run", "xcross", "target=sympi"]],
    ids=" ".join,
)
def test_nothing_waits_for_torch_that_does_not_compute(arguments):
    code = (
        "import sys; from geodapt.cli import main\n"
        f"sys.argv = ['geodapt', *{arguments}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def catalogue(tiny, monkeypatch):
    """A folder of ready-made recipes that holds the tiny one."""
    folder = tiny.parent / "catalogue"
    folder.mkdir()
    (folder / "small.yaml").write_text(YAML + "needs: '[nothing] at all'\n")
    monkeypatch.setattr(catalog, "FOLDER", folder)
    return folder


def test_ls_lists_names_systems_titles_and_needs(geodapt, catalogue, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = geodapt("ls").out.splitlines()
    assert lines[0].split() == ["name", "system", "what", "it", "does", "needs"]
    assert lines[2].split() == ["small", "tiny", "A", "tiny", "recipe", "[nothing]", "at", "all"]


def test_ls_of_a_narrow_terminal_has_two_lines_a_recipe(geodapt, catalogue, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in geodapt("ls").out.splitlines()]
    assert lines[2:] == ["small   A tiny recipe", "(tiny) needs [nothing] at all"]


def test_ls_lists_the_packaged_recipes(geodapt):
    done = geodapt("ls")
    for path in catalog.FOLDER.glob("*.yaml"):
        assert path.stem in done.out


def test_cp_keeps_comments_and_says_what_is_next(geodapt, catalogue, tmp_path):
    done = geodapt("cp", "small", "deep/mine.yaml")
    assert done.code == 0
    assert (tmp_path / "deep/mine.yaml").read_bytes() == (catalogue / "small.yaml").read_bytes()
    assert "geodapt run deep/mine.yaml" in done.out


def test_cp_into_a_folder_keeps_the_name(geodapt, catalogue, tmp_path):
    (tmp_path / "folder").mkdir()
    assert geodapt("cp", "small", "folder").code == 0
    assert (tmp_path / "folder/small.yaml").is_file()


def test_cp_replaces_only_by_force(geodapt, catalogue, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("my work")
    done = geodapt("cp", "small", "mine.yaml")
    assert (done.code, mine.read_text()) == (2, "my work")
    assert done.err == (
        "error: mine.yaml exists; choose another name, or replace it with --force\n"
    )
    assert geodapt("cp", "small", "mine.yaml", "--force").code == 0
    assert mine.read_text().startswith("# A recipe")


def test_cp_of_an_unknown_recipe_writes_nothing(geodapt, catalogue, tmp_path):
    done = geodapt("cp", "smal", "mine.yaml")
    assert done.code == 2
    assert "did you mean 'small'?" in done.err
    assert not (tmp_path / "mine.yaml").exists()


def test_cp_to_a_place_that_cannot_be_written(geodapt, catalogue, tiny):
    done = geodapt("cp", "small", "tiny.yaml/mine.yaml")
    assert done.code == 2
    assert done.err.startswith("error: cannot write tiny.yaml/mine.yaml: ")


@pytest.mark.parametrize(
    ("words", "said"), [("compress --list", "lowrank_plus_int4"), ("ls", "helm-tiny")]
)
def test_lists_need_nothing_heavy(words, said):
    check = """
import sys
for name in ("torch", "transformers", "datasets", "peft"):
    sys.modules[name] = None
from geodapt.cli.app import app
app(sys.argv[1:], prog_name="geodapt")
"""
    command = [sys.executable, "-c", check, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
