"""Models from elsewhere: their code is never run, their pickles never read."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertForSequenceClassification,
    CLIPModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Qwen2Config,
    Qwen2Model,
)

import geodapt
from geodapt.data.corpus.tokens import load_tokenizer
from geodapt.errors import InputError
from geodapt.models import as_input_errors, load_base, load_weights, model_class
from geodapt.probe.embeddings import model_embeddings
from geodapt.vision import load_clip

SOURCE = Path(geodapt.__file__).parent
TRAP = """
from pathlib import Path
Path({marker!r}).write_text("sprung")
from transformers import BertConfig, BertModel, BertTokenizerFast, CLIPProcessor
class Config(BertConfig):
    model_type = "trap"
class Model(BertModel):
    config_class = Config
class Tokenizer(BertTokenizerFast):
    pass
class Processor(CLIPProcessor):
    pass
"""


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """``trapped(type)``: a folder with code, and somebody who answers every question with yes."""
    marker = tmp_path / "sprung"
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(model_type: str, model=None) -> str:
        folder = tmp_path / f"model-{model_type}"
        folder.mkdir()
        if model is not None:
            model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text()) if model else {}
        codes = {
            "AutoConfig": "trap.Config",
            "AutoModel": "trap.Model",
            "AutoModelForCausalLM": "trap.Model",
            "AutoModelForSequenceClassification": "trap.Model",
            "AutoProcessor": "trap.Processor",
            "AutoImageProcessor": "trap.Processor",
            "AutoTokenizer": ["trap.Tokenizer", "trap.Tokenizer"],
        }
        config |= {"model_type": model_type, "architectures": ["Model"], "auto_map": codes}
        (folder / "config.json").write_text(json.dumps(config))
        for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
            (folder / name).write_text(json.dumps({"auto_map": codes}))
        (folder / "trap.py").write_text(TRAP.format(marker=str(marker)))
        return str(folder)

    yield make
    assert not marker.exists()


def small(kind, config):
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return kind(config(**sizes, **heads))


@pytest.mark.parametrize("model_type", ["trap", "bert", "qwen2"])
def test_a_folders_own_code_never_runs(trapped, model_type):
    model = small(Qwen2Model, Qwen2Config) if model_type == "qwen2" else None
    folder = trapped(model_type, model)
    for read in (
        lambda: load_base(folder),
        lambda: load_base(folder, head=True),
        lambda: load_weights("it", folder, kind=AutoModelForCausalLM),
        lambda: load_tokenizer(folder),
        lambda: load_clip(folder),
        lambda: model_embeddings(folder),
        lambda: model_embeddings(folder, "classes"),
    ):
        with pytest.raises(InputError), as_input_errors(folder):
            read()


def test_only_one_function_loads_what_may_bring_code():
    """All others go through :func:`geodapt.models.pretrained`, which refuses it."""
    found = [
        f"{path.relative_to(SOURCE)}: {ast.unparse(call.func)}"
        for path in SOURCE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and re.fullmatch(r"(\w+\.)*Auto\w+\.from_pretrained|torch\.load", ast.unparse(call.func))
        and "weights_only=True" not in map(ast.unparse, call.keywords)  # reads tensors alone
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("BertForSequenceClassification", BertForSequenceClassification),
        ("CLIPModel", CLIPModel),
        ("pipeline", None),
        ("AutoModel", None),
        ("BertConfig", None),
        ("geodapt.__main__:x", None),
        ("__file__", None),
        ("", None),
        (1, None),
        (None, None),
        (["BertModel"], None),
    ],
)
def test_only_transformers_own_models_are_taken_by_name(name, found):
    assert model_class(name) is found


def test_a_classifiers_pickle_is_refused(tmp_path):
    config = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=16, n_layers=1, n_heads=2)
    model = DistilBertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "safe")
    rows, names = model_embeddings(str(tmp_path / "safe"), "classes")
    assert (len(rows), len(names)) == (2, 2)
    config.architectures = ["DistilBertForSequenceClassification"]
    config.save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle"):
        model_embeddings(str(tmp_path / "pickled"), "classes")


@pytest.mark.parametrize(
    "changed",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "2"},
        {"num_hidden_layers": -1},
        {"hidden_size": "x"},
        {"architectures": ["pipeline"]},
        {"architectures": [1]},
        {"architectures": "x"},
        {"hidden_act": 5},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense(tmp_path, changed):
    small(Qwen2Model, Qwen2Config).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(InputError, match="base '"):
        load_base(str(tmp_path), head=True)
