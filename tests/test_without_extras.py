"""A wheel without extras: every module imports, and what needs more says so at the start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import geodapt

WHOLE = {
    "geodapt.data.glyphs": "glyphs",
    "geodapt.geometry.manifold": "manifold",
    "geodapt.serve.http": "serve",
    "geodapt.serve.replicas": "ray",
}
"""Modules that are of no use without an extra, and name it when they are imported."""
ASKED = {
    "run demo": "demo",
    "run radial-text": "demo",
    "run radial-query data={kind: glyphs}": "glyphs",
    "run clip-glyphs": "glyphs",
    "run hyperclip-glyphs": "glyphs",
    "run lathadapter-glyphs": "glyphs",
    "run evaluate-lm model=minilm tasks=[arc_easy]": "eval",
    "compress minilm --method int8 --out small": "quant",
    "compress minilm --method svd --rank 4 --out small": "demo",
    "probe classes": "probe",
    "segment run photo.png --words dog": "vision",
    "merge a b --search texts.jsonl --out merged": "search",
    "serve --embed minilm --ray --port 0": "serve",
    "score README.md --embed minilm --out scores --ray": "ray",
}
"""Command -> the extra that it asks for."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What fails to import, and what the commands say."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "README.md").touch()
    commands = [split(command) for command in (*ASKED, "compress --list")]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("without.py")), json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(Path(geodapt.__file__).parents[1])},
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    errors, told = json.loads(done.stdout.splitlines()[-1])
    return errors, dict(zip((*ASKED, "compress --list"), told, strict=True))


def split(command):
    """Words, but what stands in braces together."""
    head, brace, tail = command.partition(" data={")
    return head.split() + ([f"data={{{tail}"] if brace else [])


@pytest.mark.slow
def test_every_module_imports_without_any_extra(found):
    errors, _ = found
    for module, error in errors.items():
        extra = next((e for name, e in WHOLE.items() if module.startswith(name)), None)
        assert extra, f"{module}: {error}"
        assert error[0] == "InputError"
        assert f"[{extra}]" in error[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ASKED)
def test_what_is_missing_is_asked_for_by_its_extra(found, command):
    status, said = found[1][command]
    assert status == 2
    assert f"[{ASKED[command]}]" in said
    assert said.count("error: ") == 1


@pytest.mark.slow
def test_methods_are_listed_without_torchao(found):
    assert found[1]["compress --list"][0] == 0
