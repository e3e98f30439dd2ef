"""The recipe and the command: what they write, refuse, and continue."""

import html
import json
import shutil
import time
from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

from geodapt.adapters import AdapterBank
from geodapt.compress import experiment, load
from geodapt.compress.recipe import CompressRecipe
from geodapt.compress.source_model import load_original
from geodapt.compress.texts import calibration_texts, measured_texts
from geodapt.errors import InputError
from geodapt.recipes.execution import execute
from geodapt.report import write_report
from tests.compress.small import output, seeded
from tests.compress.zoo import made
from tests.forked import fork

pytestmark = pytest.mark.slow


def recipe(world, model="llama", **more):
    return CompressRecipe(
        model=str(world / model), calibrate=str(world / "texts.txt"), texts=20, **more
    )


def model_bytes(out):
    return {path.name: path.read_bytes() for path in sorted((out / "model").iterdir())}


@pytest.mark.parametrize(
    ("model", "method"),
    [("llama", "svd"), ("bert", "lowrank_plus_int4"), ("helm", "int8"), ("bert", "int")],
)
def test_a_run_leaves_a_model_that_loads_and_its_figures(world, tmp_path, model, method):
    size = {} if method == "int8" else {"bits_per_weight": 6}
    results = execute(recipe(world, model, method=method, **size), tmp_path / "out")
    found = results["compression"]
    before, after = results["rows"]
    assert found["bits_per_weight"] <= 6 or method == "int8"
    assert before["size_mb"] > after["size_mb"]
    assert after["forward_ms"] > 0
    if model != "bert":
        assert after["perplexity"] == pytest.approx(before["perplexity"], rel=0.2)
        assert after["perplexity"] != before["perplexity"]
    else:
        assert after["cosine_agreement"] > 0.8
        assert 0 <= after["hit_at_1"] <= after["mrr"] <= 1
    assert all(0 < layer["output_error"] < 1 for layer in found["layers"])
    loaded = load(tmp_path / "out/model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out/model")
    batch = tokenizer(["w1 w2 w3"], return_tensors="pt")
    ids = {"input_ids": batch["input_ids"]}
    original = seeded(model)
    torch.testing.assert_close(output(loaded, ids), output(original, ids), atol=0.8, rtol=0.5)
    page = write_report(tmp_path / "out").read_text()
    assert "linear layers with" in page
    assert "passages of the texts in texts.txt" in results["comparison"]
    assert results["comparison"] in html.unescape(page)
    assert found["sentence"] in html.unescape(page)
    card = (tmp_path / "out/model/README.md").read_text()
    assert method in card.replace("\\", "")
    assert model in card
    assert not (tmp_path / "out/work").exists()


def test_the_analysis_and_its_page(world, tmp_path):
    results = execute(
        recipe(world, "bert", method="int4", bits_per_weight=6, analyse=True), tmp_path / "out"
    )
    analysis = results["analysis"]
    assert len(analysis["layers"]) == 12
    assert len(analysis["verdict"]) == 6
    for layer in analysis["layers"]:
        svd, both = layer["kinds"]["svd"], layer["kinds"]["lowrank_plus_int"]
        assert both["output_error"] < svd["output_error"]
    pictured = [layer for layer in analysis["layers"] if "picture" in layer["kinds"]["svd"]]
    assert len(pictured) == 3
    page = write_report(tmp_path / "out").read_text()
    assert "what the errors look like" in page
    for sentence in analysis["verdict"]:
        assert sentence[:40].replace("'", "&#39;") in page


def test_fused_experts_in_a_run(world, tmp_path):
    asked = recipe(world, "qwen3_moe", method="lowrank_plus_int", bits_per_weight=6, analyse=True)
    results = execute(asked, tmp_path / "out")
    stacks = [row for row in results["compression"]["layers"] if "experts" in row["path"]]
    assert [row["form"].startswith("4 of int") for row in stacks] == [True] * 4
    assert all(row["output_error"] is None and 0 < row["weight_error"] < 0.1 for row in stacks)
    assert len(results["analysis"]["verdict"]) == 6
    page = html.unescape(write_report(tmp_path / "out").read_text())
    assert results["analysis"]["verdict"][0] in page
    model = load(tmp_path / "out")
    ids = {"input_ids": torch.arange(9)[None]}
    torch.testing.assert_close(
        output(model, ids), output(made("qwen3_moe"), ids), atol=0.05, rtol=1
    )


def test_an_adapter_is_merged_first(world, tmp_path):
    bank = AdapterBank(seeded("llama"))
    bank.create("toys", rank=4, targets=["q_proj"])
    for parameter in bank.parameters_of("toys"):
        parameter.data = torch.randn(parameter.shape)
    bank.save("toys", tmp_path / "toys")
    plain = execute(recipe(world, method="int8"), tmp_path / "plain")
    merged = execute(recipe(world, method="int8", adapter=str(tmp_path / "toys")), tmp_path / "out")
    assert merged["rows"][0]["perplexity"] != plain["rows"][0]["perplexity"]
    bank.merge_into_base({"toys": 1.0})
    layer = bank.model.model.layers[0].self_attn.q_proj.weight
    found = load(tmp_path / "out/model").model.layers[0].self_attn.q_proj.weight.dequantize()
    torch.testing.assert_close(found, layer.data, atol=0.02 * float(layer.abs().max()), rtol=0)


def killed_at(world, out, stage):
    """A process of its own that runs into ``out`` and is killed when a stage is there."""
    here = out.with_suffix(".here")
    process = fork(out.parent, run=partial(stopped_at, stage, here, recipe_json(world), out))
    try:
        while not here.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()


def stopped_at(stage, here, asked, out):
    """Run the recipe, but for the stage, at which a file is made."""
    go_on = experiment.RunFolder.stage

    def stop(self, name, compute):
        if name == stage:
            here.touch()
            time.sleep(600)
        return go_on(self, name, compute)

    experiment.RunFolder.stage = stop
    execute(CompressRecipe.model_validate_json(asked), out)


def recipe_json(world):
    return recipe(world, method="lowrank_plus_int", bits_per_weight=5).model_dump_json()


def test_kill_9_and_resume_end_with_the_same_bytes(world, tmp_path):
    asked = CompressRecipe.model_validate_json(recipe_json(world))
    whole = execute(asked, tmp_path / "whole")
    killed_at(world, tmp_path / "out", "measure-005")
    with pytest.raises(InputError, match="--resume"):
        execute(asked, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "later")
    resumed = execute(asked, tmp_path / "out", resume=True)
    assert model_bytes(tmp_path / "out") == model_bytes(tmp_path / "whole")
    assert resumed["compression"] == whole["compression"]
    done = []
    stage = experiment.RunFolder.stage

    def watch(self, name, compute):
        def counted(work):
            done.append(name)
            return compute(work)

        return stage(self, name, counted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.RunFolder, "stage", watch)
        execute(asked, tmp_path / "later", resume=True)
    assert "measure-004" not in done
    assert "measure-005" in done
    assert not any(name.startswith("calibrate") for name in done)


def test_draws_differ_by_seed_and_spare_the_held_out(world):
    asked = [recipe(world, method="int8", seed=seed) for seed in range(3)]
    drawn = [calibration_texts(each) for each in asked]
    held_out = [measured_texts(each) for each in asked]
    assert len({tuple(sorted(texts)) for texts in drawn}) == 3
    assert held_out[0] == held_out[1] == held_out[2] != []
    for texts in drawn:
        assert len(texts) == 20
        assert not set(texts) & set(held_out[0])


def test_files_to_measure_on_alone_are_measured_whole(world):
    texts = (world / "texts.txt").read_text().split("\n\n")
    asked = recipe(world, method="int8", evaluate=str(world / "texts.jsonl"))
    assert sorted(measured_texts(asked)) == sorted(texts)
    same = recipe(world, method="int8", evaluate=str(world / "texts.txt"))
    assert 0 < len(measured_texts(same)) < len(texts) / 3


def test_a_quantized_folder_is_refused(world, tmp_path):
    shutil.copytree(world / "llama", tmp_path / "quantized")
    config = json.loads((tmp_path / "quantized/config.json").read_text())
    config["quantization_config"] = {"quant_method": "torchao"}
    (tmp_path / "quantized/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantized already"):
        execute(CompressRecipe(model=str(tmp_path / "quantized"), method="int4"), tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_class_that_a_folder_names_must_be_there(world, tmp_path):
    shutil.copytree(world / "llama", tmp_path / "odd")
    config = json.loads((tmp_path / "odd/config.json").read_text())
    (tmp_path / "odd/config.json").write_text(json.dumps({**config, "architectures": ["pipeline"]}))
    with pytest.raises(InputError, match="names the model class 'pipeline'"):
        load_original(str(tmp_path / "odd"), torch.float32)


def test_no_pooler_is_made_up(world):
    model, _ = load_original(str(world / "bert"), torch.float32)  # saved without one
    assert model.pooler is None
