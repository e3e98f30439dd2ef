"""`geodapt compress`, as a person calls it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REFUSED = {
    "no folder": (["{world}/gone", "--method", "int8"], "does not exist"),
    "unknown method": (["{world}/llama", "--method", "zip"], "no method 'zip'"),
    "no size": (["{world}/llama", "--method", "svd"], "needs to know how small"),
    "negative size": (["{world}/llama", "--bits-per-weight", "-1"], "--bits-per-weight -1"),
    "too small": (
        ["{world}/llama", "--bits-per-weight", "3", "--calibrate", "{world}/texts.txt"],
        "cannot be met",
    ),
    "rank over full": (["{world}/llama", "--method", "svd", "--rank", "99"], "full rank"),
    "few texts": (
        [
            "{world}/llama",
            "--bits-per-weight",
            "6",
            "--calibrate",
            "{world}/texts.txt",
            "--texts",
            "2",
        ],
        "too small",
    ),
    "no texts": (
        ["{world}/llama", "--bits-per-weight", "6", "--calibrate", "{world}/none.txt"],
        "does not exist",
    ),
    "no JSON": (
        ["{world}/llama", "--bits-per-weight", "6", "--calibrate", "{world}/bad.jsonl"],
        "line 1",
    ),
    "empty file": (
        ["{world}/llama", "--bits-per-weight", "6", "--calibrate", "{world}/empty.txt"],
        "holds no text",
    ),
    "no folder to write": (["{world}/llama"], "give a model and a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_refuses(geodapt, world, tmp_path, case):
    arguments, message = REFUSED[case]
    (world / "bad.jsonl").write_text('{"words": 1}\n')
    (world / "empty.txt").write_text("\n")
    out = [] if case == "no folder to write" else ["--out", str(tmp_path / "out")]
    done = geodapt("compress", *(part.format(world=world) for part in arguments), *out)
    assert done.code == 2
    assert message in done.err
    assert "error: " in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_texts_of_several_files(geodapt, world, tmp_path):
    """Calibrated on a folder, measured on a column of a table that a recipe names."""
    texts = (world / "texts.txt").read_text().split("\n\n")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.md").write_text("\n".join(texts[:30]))
    pq.write_table(pa.table({"text": texts[30:]}), tmp_path / "some" / "b.parquet")
    pq.write_table(pa.table({"body": texts}), tmp_path / "all.parquet")
    out = tmp_path / "out"
    done = geodapt(
        *("run", "compress", f"model={world / 'llama'}", "method=svd", "texts=20"),
        "bits_per_weight=6",
        *(f"calibrate={tmp_path / 'some'}", "--out", out),
        f"evaluate={{kind: text, path: {tmp_path / 'all.parquet'}, text: body}}",
    )
    assert done.code == 0, done.err
    assert json.loads((out / "results.json").read_text())["compression"]["calibrated"]
    done = geodapt("compress", world / "llama", "--method", "int8", "--out", tmp_path / "none",
                   "--evaluate", tmp_path / "all.parquet")  # fmt: skip
    assert (done.code, "has no column 'text'; it has body" in done.err) == (2, True)
    assert not (tmp_path / "none").exists()


def test_the_command(geodapt, world, tmp_path):
    out = tmp_path / "out"
    done = geodapt("compress", world / "llama", "--method", "int4", "--evaluate",
                   world / "texts.txt", "--out", out)  # fmt: skip
    assert done.code == 0, done.err
    assert "14 layers" in done.out
    assert "self_attn.q_proj" in done.out
    assert (out / "report.html").is_file()
    done = geodapt("compress", out / "model", "--method", "int4", "--out", tmp_path / "again")
    assert (done.code, "quantized already" in done.err) == (2, True)
    listed = geodapt("compress", "--list").out
    assert "lowrank_plus_int4" in listed


def test_a_runs_folder_points_to_its_model(geodapt, world, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    done = geodapt(
        "compress", str(tmp_path / "run"), "--method", "int8", "--out", str(tmp_path / "o")
    )
    assert done.code == 2
    assert f"is a run's folder; its model is in {tmp_path / 'run' / 'model'}" in done.err
