"""What transformers makes of a compressed folder, with geodapt and without it."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

import geodapt
from geodapt.compress import compress, load, save
from tests.compress.small import batches, inputs, output, seeded, target
from tests.forked import fork

FORMS = ("int8", "svd", "int4", "lowrank_plus_int4")
CODE = """
import json, sys
{first}
import torch
from transformers import AutoModelForCausalLM, pipeline
root, found = sys.argv[1], {{}}
ids = torch.tensor(json.load(open(root + "/ids.json")))
for name in {forms}:
    def model():
        with torch.no_grad():
            return AutoModelForCausalLM.from_pretrained(root + "/" + name)(ids).logits.tolist()
    def pipe():
        return pipeline("text-generation", root + "/" + name) is not None
    for way in (model, pipe)[: {ways}]:
        try:
            found[name + " " + way.__name__] = way()
        except Exception as error:
            found[name + " " + way.__name__] = type(error).__name__ + str(error)
print(json.dumps(found))
"""


def code(first, forms, ways=2):
    return CODE.format(first=first, forms=forms, ways=ways)


def elsewhere(first, root, *forms, ways=2):
    """What another process finds that runs ``first`` before it imports transformers."""
    done = subprocess.run(
        [sys.executable, "-c", code(first, forms, ways), str(root)],
        env={**os.environ, "PYTHONPATH": str(Path(geodapt.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folders(tmp_path_factory, world):
    """A Llama in every form, and its logits."""
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("forms")
    ids = inputs("llama")["input_ids"]
    (root / "ids.json").write_text(json.dumps(ids.tolist()))
    logits = {}
    for method in FORMS:
        model = seeded("llama")
        compress(model, method, batches("llama"), **target(method))
        save(model, root / method, AutoTokenizer.from_pretrained(world / "llama"))
        with torch.no_grad():
            logits[method] = model(ids).logits
    return root, logits


@pytest.mark.slow
def test_without_geodapt_a_folder_loads_right_or_not_at_all(folders):
    root, logits = folders
    found = elsewhere("", root, *FORMS)
    for method in FORMS:
        if method == "int8":  # torchao's own format
            assert torch.equal(torch.tensor(found["int8 model"]), logits["int8"])
            assert found["int8 pipe"] is True
        else:
            assert "ignore_mismatched_sizes" in found[f"{method} model"]
            assert "ignore_mismatched_sizes" in found[f"{method} pipe"]


@pytest.mark.slow
def test_with_geodapt_every_folder_loads_right(folders):
    root, logits = folders
    process = fork(root, root, run=partial(exec, code("import geodapt.compress", FORMS), {}))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    for method in FORMS:
        assert torch.equal(torch.tensor(found[f"{method} model"]), logits[method])
        assert found[f"{method} pipe"] is True


@pytest.mark.slow
def test_svd_needs_no_torchao(folders):
    root, logits = folders
    first = "sys.modules['torchao'] = None\nimport geodapt.compress"
    found = elsewhere(first, root, "svd", "int4", ways=1)
    assert torch.equal(torch.tensor(found["svd model"]), logits["svd"])
    assert "need torchao" in found["int4 model"]
    assert "[quant]" in found["int4 model"]


@pytest.mark.parametrize("method", ["int8", "lowrank_plus_int"])
def test_a_body_loads_without_its_head_and_in_another_float_type(method, tmp_path):
    model = seeded("llama")
    compress(model, method, batches("llama"), **target(method))
    save(model, tmp_path / "small")
    batch = inputs("llama")
    body = AutoModel.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(output(body, batch), output(model.model, batch))
    half = type(model).from_pretrained(tmp_path / "small", dtype=torch.bfloat16).eval()
    assert half.dtype == torch.bfloat16
    wanted = output(model, batch)
    torch.testing.assert_close(output(half, batch).float(), wanted, atol=0.02, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_what_save_pretrained_writes_is_the_same(family, tmp_path):
    model = seeded(family)
    compress(model, "lowrank_plus_int", batches(family), bits_per_weight=6)
    model.save_pretrained(tmp_path / "small")
    found = output(load(tmp_path / "small"), inputs(family))
    assert torch.equal(found, output(model, inputs(family)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int4", "lowrank_plus_int", "int8"])
def test_a_model_in_several_float_types_and_one_that_was_converted(method, tmp_path):
    model = seeded("t5").to(torch.bfloat16)
    for block in model.encoder.block:
        block.layer[-1].DenseReluDense.wo.float()
    compress(model, method, batches("t5"), **target(method))
    for number, change in enumerate((None, torch.float32, torch.bfloat16)):
        if change:
            model.to(change)
        save(model, tmp_path / str(number))
        loaded = load(tmp_path / str(number))
        found, wanted = (output(each, inputs("t5")) for each in (loaded, model))
        assert torch.equal(found, wanted)
        assert {n: p.dtype for n, p in loaded.named_parameters()} == {
            n: p.dtype for n, p in model.named_parameters()
        }


def test_load_takes_the_folder_of_the_run(tmp_path):
    model = seeded("llama")
    compress(model, "svd", rank=4)
    save(model, tmp_path / "small" / "model")
    found = output(load(tmp_path / "small"), inputs("llama"))
    assert torch.equal(found, output(model, inputs("llama")))
