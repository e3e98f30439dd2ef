"""Texts for a file of prompts: those of the server, in shards that outlast a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file

from geodapt.errors import InputError
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.bulk import claimed, score_file
from geodapt.serve.contents import contents_of
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start as start_server
from geodapt.serve.loading import load_for_bulk
from geodapt.serve.served import Served
from tests.commands import SOURCE, call
from tests.forked import fork
from tests.held import held, wait_until_held
from tests.serve.asking import running
from tests.serve.isolated import isolation
from tests.serve.shelf import write_base_and_adapters

GATES = [{}, {"model": "toys"}, {"model": "toys:0.5+tools:-0.5"},
         {"adapters": {"toys": 1, "tools": 1}, "atoms": {"keep": 3}}]  # fmt: skip
LINES = [
    {"prompt": f"A hose and {n} trains", "max_tokens": 8 + n, "ignore_eos": True} | GATES[n % 4]
    for n in range(10)
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = write_base_and_adapters(tmp_path_factory.mktemp("shelf"))
    write_lines(folder / "prompts.jsonl", LINES)
    return folder


@pytest.fixture(scope="module")
def named(shelf):
    return Served(base=str(shelf / "base"), adapters=shelf / "adapters", dtype="float32")


@pytest.fixture(scope="module")
def model(named):
    return load_for_bulk(named)


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def answered(folder):
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def test_texts_of_a_file_are_the_servers(shelf, named, model, tmp_path):
    lines = [line | {"temperature": 0} for line in LINES]
    write_lines(tmp_path / "in.jsonl", lines)
    assert score_file(tmp_path / "in.jsonl", tmp_path / "out", model, "generate", "m", 4) == (10, 0)
    found = answered(tmp_path / "out")
    service = start_server(named, ServeSettings())
    with running(service) as server:
        expected = [server.complete(**line).json for line in lines]
    service.close()
    assert [row["text"] for row in found] == [e["choices"][0]["text"] for e in expected]
    assert [row["completion_tokens"] for row in found] == [8 + n for n in range(10)]
    assert len({row["text"] for row in found}) == 10


def test_sampled_texts_depend_on_the_line_alone(shelf, model, tmp_path):
    same = [{"prompt": "A hose", "max_tokens": 8, "ignore_eos": True, "logprobs": True}] * 3
    write_lines(tmp_path / "in.jsonl", [*same, same[0] | {"seed": 1}])
    first, *rest = (tmp_path / "in.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "in.jsonl").write_text("".join([first, "\n", *rest]))
    for name, size in (("one", 1), ("all", 9)):
        score_file(tmp_path / "in.jsonl", tmp_path / name, model, "generate", "m", size)
    found = answered(tmp_path / "all")
    again = answered(tmp_path / "one")
    assert [row["text"] for row in found] == [row["text"] for row in again]
    assert len({row["text"] for row in found}) == 3  # of lines 1 and 5, with seed 1, the same
    assert all(len(row["logprobs"]) == 8 and max(row["logprobs"]) <= 0 for row in found)
    (tmp_path / "in.jsonl").write_text("".join([first, *rest]))  # other numbers, other seeds
    with pytest.raises(InputError, match="another job"):
        score_file(tmp_path / "in.jsonl", tmp_path / "all", model, "generate", "m", 9)


def test_a_line_that_cannot_be_answered_says_why_and_stops_no_other(model, tmp_path):
    lines = [LINES[0], {"prompt": "a", "model": "nobody"}, {"prompt": "a", "max_tokens": 900}]
    write_lines(tmp_path / "in.jsonl", lines)
    for _ in range(2):  # again there is nothing to do, but the errors are still there
        assert score_file(tmp_path / "in.jsonl", tmp_path / "out", model, "generate", "m") == (3, 2)
    whole, unknown, long = answered(tmp_path / "out")
    assert whole["completion_tokens"] == 8
    assert "nobody" in unknown["error"]
    assert "256 positions" in long["error"]


def test_an_engine_that_dies_leaves_no_answers_behind(named, tmp_path, monkeypatch):
    write_lines(tmp_path / "in.jsonl", LINES)
    model = load_for_bulk(named)
    prompt, asked = model.tokens.prompt, []

    def last_words(text):
        asked.append(text)
        if len(asked) == len(LINES):
            model.engine.score(exit)
        return prompt(text)

    monkeypatch.setattr(model.tokens, "prompt", last_words)
    with pytest.raises(InputError, match="goes on"):
        score_file(tmp_path / "in.jsonl", tmp_path / "out", model, "generate", "m")
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("wrong", [{"n": 2}, {"stream": True}, {"max_tokens": -1}, {"logprobs": 3}])
def test_what_a_line_cannot_ask_is_refused_before_anything_is_written(model, tmp_path, wrong):
    write_lines(tmp_path / "in.jsonl", [LINES[0], LINES[1] | wrong])
    with pytest.raises(InputError, match="line 2"):
        score_file(tmp_path / "in.jsonl", tmp_path / "out", model, "generate", "m")
    assert not (tmp_path / "out").exists()


def test_a_model_or_an_adapter_that_is_another_now_is_noticed(shelf, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(shelf, world)
    lines = [{"prompt": "A hose", "model": "toys", "max_tokens": 2}, {"prompt": "a"}]
    write_lines(tmp_path / "in.jsonl", [*lines, {"prompt": "a", "model": "nobody"}])
    named = Served(base=str(world / "base"), adapters=world / "adapters", dtype="float32")

    def job(out="out"):
        contents = partial(contents_of, named)
        with claimed(tmp_path / "in.jsonl", tmp_path / out, "generate", "m", 4, contents):
            pass

    job()
    os.utime(world / "base/model.safetensors", (0, 0))  # the same content
    tools = world / "adapters/tools/adapter_model.safetensors"  # which no line asks for
    tools.write_bytes(tools.read_bytes()[::-1])
    job()
    for changed, said in (
        (world / "adapters/toys/adapter_model.safetensors", "adapter 'toys'"),
        (world / "base/model.safetensors", f"'{world / 'base'}'"),
        (world / "base/config.json", f"'{world / 'base'}'"),
    ):
        content = changed.read_bytes()
        changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{re.escape(said)} is not what .*another folder"):
            job()
        changed.write_bytes(content)
        job()
    AdapterFolder(world / "adapters", Mock()).delete("toys")
    with pytest.raises(InputError, match="adapter 'toys' is not what"):
        job()


def test_the_type_that_auto_stood_for_is_the_jobs(shelf, tmp_path, geodapt, monkeypatch):
    write_lines(tmp_path / "in.jsonl", [{"prompt": "a", "max_tokens": 1}])
    command = ("score", tmp_path / "in.jsonl", "--generate", shelf / "base", "--out")

    def on_a_machine_with(dtype, out):
        monkeypatch.setattr("geodapt.models.loading.default_dtype", lambda: dtype)
        return geodapt(*command, tmp_path / out)

    assert on_a_machine_with(torch.bfloat16, "a").code == 0
    assert on_a_machine_with(torch.bfloat16, "a").code == 0
    other = on_a_machine_with(torch.float32, "a")
    assert (other.code, "another job, whose model differs" in other.err) == (2, True), other.err
    assert on_a_machine_with(torch.float32, "b").code == 0
    assert geodapt(*command, tmp_path / "b", "--dtype", "float32").code == 0


@pytest.mark.parametrize("unknown", [["contents"], ["shard", "contents"]])
def test_a_folder_of_an_earlier_version_is_called_that(model, tmp_path, unknown):
    write_lines(tmp_path / "in.jsonl", [{"prompt": "a", "max_tokens": 1}])
    arguments = (tmp_path / "in.jsonl", tmp_path / "out", model, "generate", "m")
    score_file(*arguments)
    job = json.loads((tmp_path / "out/job.json").read_text())
    for name in unknown:
        del job[name]
    (tmp_path / "out/job.json").write_text(json.dumps(job))
    said = f"another version of geodapt, .* {', '.join(unknown)} "
    with pytest.raises(InputError, match=said):
        score_file(*arguments)


def test_of_a_large_file_pieces_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("geodapt.serve.contents.WHOLE", 10)
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(50_000))
    before = contents_of(Served(base=str(tmp_path)), ())
    assert contents_of(Served(base=str(tmp_path)), ()) == before
    weights.write_bytes(bytes(25_000) + b"1" + bytes(24_999))
    assert contents_of(Served(base=str(tmp_path)), ()) != before


def test_of_a_large_file_a_head_that_alone_was_trained_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("geodapt.serve.contents.WHOLE", 10)
    monkeypatch.setattr("geodapt.serve.contents.PIECES", 2)
    (tmp_path / "config.json").write_text("{}")
    body = torch.zeros(100_000)
    seen = set()
    for head in (
        torch.zeros(2, 8),
        torch.ones(2, 8),
        torch.ones(2, 8).bfloat16(),
        torch.tensor(1.0),
    ):
        save_file({"a": body, "b": head, "c": body[:5000].clone()}, tmp_path / "model.safetensors")
        seen.add(str(contents_of(Served(base=str(tmp_path)), ())))
    assert len(seen) == 4


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_texts(shelf, model, tmp_path):
    write_lines(tmp_path / "in.jsonl", [line | {"max_tokens": 100} for line in LINES * 3])
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ("score", "in.jsonl", "--generate", shelf / "base", "--shard", "4", "--adapters",
               shelf / "adapters", "--out", "out", "--dtype", "float32")  # fmt: skip
    process = fork(tmp_path, *command, run=held("shard:1"))
    wait_until_held(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(before) == 2
    process = fork(tmp_path, *command)
    told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    score_file(tmp_path / "in.jsonl", whole, model, "generate", "m", 4)
    assert answered(out) == answered(whole)
    other = call(tmp_path, *command[:-1], "bfloat16")
    assert (other.code, "another job" in other.err) == (2, True), other


def test_what_a_process_of_ray_cannot_do_is_told_in_a_sentence(named, tmp_path):
    pytest.importorskip("ray")
    from geodapt.serve.replicas.bulk import ShardAnswerer

    write_lines(tmp_path / "in.jsonl", LINES)
    with claimed(tmp_path / "in.jsonl", tmp_path / "out", "generate", "m", 5) as job:
        (tmp_path / "in.jsonl").write_text("{}\n")  # since it was checked
        found = ShardAnswerer(named, job, 1)({"shard": [0]})
        assert "line 1" in found["refused"][0]
        missing = Served(base=str(tmp_path / "out"))
        found = ShardAnswerer(missing, job, 1)({"shard": [1]})
        assert str(tmp_path / "out") in found["refused"][0]
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.slow
def test_with_ray_the_files_are_the_same(shelf, model, tmp_path):
    pytest.importorskip("ray")
    score_file(shelf / "prompts.jsonl", tmp_path / "whole", model, "generate", "m", 3)
    options = ("--generate", shelf / "base", "--adapters", shelf / "adapters", "--shard", "3",
               "--dtype", "float32")  # fmt: skip
    command = ("score", shelf / "prompts.jsonl", *options, "--out", tmp_path / "out", "--ray")
    done = subprocess.run(
        [*isolation(), sys.executable, "-m", "geodapt", *map(str, command)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 lines answered" in done.stdout
    names = sorted(path.name for path in (tmp_path / "whole").glob("part-*"))
    assert sorted(path.name for path in (tmp_path / "out").glob("part-*")) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
