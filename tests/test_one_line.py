"""What a foreign file or request says never adds a line, or a terminal's command, to a refusal."""

import json

import pytest
import torch
from safetensors.torch import save_file

from geodapt.adapters import Adapter
from geodapt.compress.quantizer import CompressionConfig
from geodapt.data.edge_files import read_edges
from geodapt.data.table_files import require_columns, table
from geodapt.data.vision.image_folder import read_split_file
from geodapt.errors import Diverged, InputError, InputWarning
from geodapt.helm.released_weights import convert_released
from geodapt.probe import tables
from geodapt.prompts.adapter import read_feature_adapter
from geodapt.prompts.saving import read_learner
from geodapt.radial.model import RadialModel
from geodapt.recipes.loading import load_recipe
from geodapt.serve.adapter_files import read_aliases
from geodapt.serve.http.api_errors import ApiError
from geodapt.xcross.model import XCross

EVIL = "x\nerror: none\x1b[2J\r\x0b\ty\u2028z"


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def adapter(folder, **values):
    written(folder / "adapter_config.json", {"peft_type": "LORA", **values})
    name = f"base_model.model.{EVIL}.lora_A.weight"
    save_file({name: torch.ones(2, 4)}, folder / "adapter_model.safetensors")
    return Adapter.from_pretrained(folder)


READERS = {
    "an adapter's tensors": lambda here: adapter(here, target_modules=["x"]),
    "an adapter's kind": lambda here: adapter(here, peft_type=EVIL),
    "an adapter's task": lambda here: adapter(here, task_type=EVIL),
    "an adapter's start": lambda here: adapter(here, init_lora_weights=EVIL),
    "an adapter's setting": lambda here: adapter(here, **{EVIL: EVIL}),
    "an adapter's pattern": lambda here: adapter(here, alpha_pattern={EVIL + "(": 1}),
    "compressed weights": lambda here: CompressionConfig("float32", {EVIL: {EVIL: 1}}).parsed(),
    "a compressed type": lambda here: CompressionConfig(EVIL, {"w": {"forms": EVIL}}).parsed(),
    "a released HELM": lambda here: convert_released({EVIL: torch.ones(2)}),
    "a text adapter": lambda here: read_feature_adapter(
        written(here / "adapter.json", {"kind": EVIL, "configuration": {}}).parent
    ),
    "a prompt learner": lambda here: read_learner(
        written(here / "prompts.json", {"format": EVIL}).parent
    ),
    "a radial model": lambda here: RadialModel.load(
        str(written(here / "radial.json", {EVIL: EVIL}).parent)
    ),
    "an X-Cross": lambda here: XCross.from_pretrained(
        written(here / "config.json", {EVIL: EVIL}).parent
    ),
    "a recipe's key": lambda here: load_recipe("demo", [json.dumps(EVIL) + "=1"]),
    "a recipe's value": lambda here: load_recipe("demo", [f"seed={json.dumps(EVIL)}"]),
    "a recipe's kind": lambda here: load_recipe(
        str(written(here / "my.yaml", f"recipe: {json.dumps(EVIL)}\n"))
    ),
    "a table's column": lambda here: [
        require_columns([("text", EVIL + "?")], row, place)
        for place, row in table(written(here / "t.csv", f'a,"{EVIL}"\n1,2\n'), "x")
    ],
    "a table's name": lambda here: read_edges(here / EVIL),
    "points": lambda here: tables.read_table(
        written(here / "p.csv", f'"{EVIL}",b\n1,"{EVIL}"\nq,w\n')
    ),
    "a split file": lambda here: read_split_file(
        written(here / "s.json", {"train": [["a", 0, EVIL], ["b", 0, "y"]]}), here, "", "", False
    ),
    "a server's names": lambda here: read_aliases(written(here / "a.json", {EVIL: EVIL})),
}


@pytest.mark.parametrize("name", READERS)
def test_a_refusal_is_one_line_whatever_was_read(name, tmp_path):
    with pytest.raises(InputError) as refused:
        READERS[name](tmp_path / "here")
    assert str(refused.value).isprintable()


def test_every_argument_is_a_line():
    error = Diverged("seed 1", f"  {EVIL}")
    assert str(error).splitlines() == ["seed 1", "x error: none\\x1b[2J y z"]
    assert str(InputWarning(EVIL)) == "x error: none\\x1b[2J y z"


def test_a_server_answers_in_one_line():
    assert ApiError(400, EVIL).body()["error"]["message"].isprintable()
