"""Trainings in two processes, each with all weights (DDP) or with its shard of them (FSDP2)."""

import shutil
from pathlib import Path

import pytest
import torch
from accelerate.utils import merge_fsdp_weights
from transformers import AutoConfig, AutoModelForCausalLM

from geodapt.cli import main
from geodapt.data.corpus import TextSettings, load_corpus
from geodapt.data.corpus.packing import packed
from geodapt.data.corpus.tokens import TokenizerSettings, tokenizer_for
from tests.forked import fork
from tests.held import held, wait_until_held
from tests.helm.runs import lines, results, write, write_text
from tests.helm.sharded import main_sharded

pytestmark = pytest.mark.slow
RUNS = {"ddp": main, "fsdp2": main_sharded}


@pytest.fixture(scope="module")
def rows(world) -> int:
    """Text of an even number of rows, in the folder ``few``."""
    for count in range(150, 200):
        write_text(world / "few", count)
        corpus = load_corpus(TextSettings(path=str(world / "few")))
        tokenizer = tokenizer_for(corpus, TokenizerSettings(vocab_size=300))
        number = len(packed(corpus, tokenizer, 16)["train"])
        if number % 2 == 0:
            break
    return number


def recipe(world: Path, batch_size: int) -> str:
    return write(
        world,
        f"few-{batch_size}.yaml",
        data={"kind": "text", "path": "few"},
        length=16,
        models=["helm-mice"],
        config={"learn_curvature": True},
        tested_rows=9,
        training={"batch_size": batch_size, "steps": 6, "save_every": 2, "evaluate_every": None},
    )


@pytest.fixture(scope="module")
def alone(world, geodapt, rows) -> Path:
    done = geodapt("run", recipe(world, rows), "--out", "alone")
    assert done.code == 0, done.err
    return world / "alone"


@pytest.fixture(scope="module", params=RUNS)
def together(request, world, rows) -> Path:
    run = ("run", recipe(world, rows // 2), "--out", request.param)
    process = fork(world, *run, run=RUNS[request.param], ranks=2)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return world / request.param


def test_two_processes_train_as_one_does(alone, together):
    """Every step sees all rows, in whatever order: half of them in each of two processes give the
    same losses, and the same balance of experts, as all of them in one. Later losses drift apart:
    AdamW's steps are as long where a gradient is small, and there rounding decides, and the balance
    loss, which weighs twice under DDP."""
    logged = [[line["loss"] for line in lines(folder)] for folder in (alone, together)]
    assert logged[1][0] == pytest.approx(logged[0][0], rel=5e-5)
    assert logged[1] == pytest.approx(logged[0], rel=5e-3)
    for key in ("curvature", "layer_1_expert_2_curvature"):
        assert lines(together)[-1][key] == pytest.approx(lines(alone)[-1][key], rel=2e-2)
    gates = [
        AutoModelForCausalLM.from_pretrained(folder / "model").model.layers[1].mlp.gate
        for folder in (alone, together)
    ]
    assert gates[0].e_score_correction_bias.abs().max() > 0
    torch.testing.assert_close(*(gate.e_score_correction_bias for gate in gates))
    (one,), (two,) = (results(folder)["rows"] for folder in (alone, together))
    assert one["loss"] == pytest.approx(two["loss"], rel=5e-3)
    assert one["trainable_parameters"] == two["trainable_parameters"]


@pytest.mark.parametrize("together", ["fsdp2"], indirect=True)
def test_sharded_weights_load_in_one_process_and_a_killed_training_goes_on(
    alone, together, world, geodapt, rows, tmp_path
):
    run = ("run", recipe(world, rows // 2), "--out", "killed")
    process = fork(world, *run, run=held("log:model-helm-mice:6", main_sharded), ranks=2)
    checkpoint = world / "killed/work/model-helm-mice/checkpoint-4"
    try:
        wait_until_held(process)
        shutil.copytree(checkpoint, tmp_path / "checkpoint")
    finally:
        process.kill()
        process.communicate()

    done = geodapt(*run, "--resume")
    assert done.code == 2
    assert "FSDP2" in done.err

    merge_fsdp_weights(str(tmp_path / "checkpoint/pytorch_model_fsdp_0"), str(tmp_path / "merged"))
    AutoConfig.from_pretrained(alone / "model").save_pretrained(tmp_path / "merged")
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert model.model.curvatures()["curvature"] == pytest.approx(
        next(line["curvature"] for line in lines(alone) if line["step"] == 4), rel=1e-2
    )

    process = fork(world, *run, "--resume", run=main_sharded, ranks=2)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    logged = [[line["loss"] for line in lines(folder)] for folder in (together, world / "killed")]
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)
