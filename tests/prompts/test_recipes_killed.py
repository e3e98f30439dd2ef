"""The recipes of prompt learners and of LatHAdapter, killed and resumed."""

import json

import pytest
from safetensors.torch import load_file

from tests.commands import call
from tests.forked import fork
from tests.held import held, wait_until_held
from tests.tinyclip.small import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

DATA = {
    "kind": "characters",
    "of": "Greek small letter",
    "shown": "all",
    "train_fonts": ["DejaVu Sans"],
    "tested_in": 1,
    "classes": 7,
    "glyphs": SMALL["data"],
}
EVERY = {
    "depth": 1,
    "image_depth": 1,
    "flip": False,
    "training": {"epochs": 30, "batch_size": 4, "learning_rate": 0.1, "save_every": 2},
}
COMMANDS = {
    "prompts-glyphs": [
        f"glyph_base={json.dumps(SMALL)}",
        f"data={json.dumps(DATA)}",
        *("further=[]", "shots=[1]", "seeds=[1]", "learner=[promptsrc,promptkd]"),
        *("lathadapter={attributes: auto}", f"every_host={json.dumps(EVERY)}"),
        "promptsrc.image_depth=1",
    ],
    "lathadapter-glyphs": [
        f"glyph_base={json.dumps(SMALL)}",
        f"data={json.dumps({**DATA, 'train_fonts': ['DejaVu Sans'], 'tested_in': 1})}",
        *("shots=1", "seeds=[1,2]", "training={epochs: 60, batch_size: 4}"),
        "variants={full: {attributes: auto}, flat: {space: flat, attributes: auto}}",
    ],
}


MIDDLE = {
    "prompts-glyphs": "log:promptsrc-lathadapter-1-shots-seed-1:10",
    "lathadapter-glyphs": "stage:variant-plain",
}


@pytest.mark.parametrize("recipe", COMMANDS)
def test_kill_9_and_resume_end_as_undisturbed(recipe, tmp_path):
    calm = call(tmp_path, "run", recipe, *COMMANDS[recipe], "--out", "calm")
    assert calm.code == 0, calm.err
    run = ("run", recipe, *COMMANDS[recipe], "--out", "killed")
    process = fork(tmp_path, *run, run=held(MIDDLE[recipe]))
    wait_until_held(process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    again = call(tmp_path, "run", recipe, *COMMANDS[recipe], "--out", "killed", "--resume")
    assert again.code == 0, again.err
    found = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("calm", "killed")
    ]
    for one in found:
        for row in (*one["rows"], *one.get("prompts", {}).get("runs", ())):
            del row["seconds"], row["peak_memory_mb"]
    assert found[0]["rows"] == found[1]["rows"]
    part = "prompts" if recipe == "prompts-glyphs" else "lathadapter"
    assert found[0][part] == found[1][part]
    tensors = [
        {path.name: load_file(path) for path in (tmp_path / name / "model").glob("*.safetensors")}
        for name in ("calm", "killed")
    ]
    assert tensors[0].keys() == tensors[1].keys() != set()
    for file, values in tensors[0].items():
        assert all(value.equal(tensors[1][file][name]) for name, value in values.items())
