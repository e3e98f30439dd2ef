"""``geodapt merge`` and ``geodapt adapters info``, as a person calls them."""

import copy
import json
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerFast

from geodapt.adapters import (
    METHODS,
    Adapter,
    calibrate_on_texts,
    load_base_of,
    merge,
    search_on_texts,
)
from geodapt.errors import InputError
from tests.adapters.made_by_peft import randomise, seeded
from tests.commands import call


@pytest.fixture
def base(tmp_path):
    """A tiny base with a tokenizer, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(90)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "base")
    seeded("llama").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def folders(tmp_path, base):
    found = []
    for i, name in enumerate(("A", "B", "C")):
        model = get_peft_model(
            seeded("llama"), LoraConfig(r=2 + i, target_modules=["q_proj", "v_proj"])
        )
        randomise(model, i)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(tmp_path / name)
        found.append(tmp_path / name)
    return found


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "held-out.jsonl"
    rows = [
        {"text": " ".join(f"w{(i * 7 + j) % 90}" for j in range(6)), "label": i % 2}
        for i in range(12)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_merge_writes_what_the_library_merges(geodapt, folders, tmp_path):
    out = tmp_path / "merged"
    words = ["merge", *folders, "--method", "svd", "--rank", 3, "--weights", ".5", ".3", ".2"]
    done = geodapt(*words, "--out", out, "--layers")
    assert done.code == 0
    loaded = [Adapter.from_pretrained(folder) for folder in folders]
    wanted = merge(loaded, "svd", [0.5, 0.3, 0.2], rank=3)
    found = Adapter.from_pretrained(out)
    assert found.sha256 == wanted.sha256
    for path, error in wanted.errors.items():
        line = next(line for line in done.out.splitlines() if line.startswith(path))
        assert f"{100 * error:.2f} %" in line
    whole = sum(
        w * torch.cat([a.factors[p].delta().flatten() for p in a.factors])
        for w, a in zip((0.5, 0.3, 0.2), loaded, strict=True)
    )
    cut = torch.cat([found.factors[p].delta().flatten() for p in loaded[0].factors])
    assert f"lost {100 * ((whole - cut).norm() / whole.norm()).item():.2f} %" in done.out


def test_weights_may_be_negative_behind_an_equals_sign(geodapt, folders, tmp_path):
    geodapt("merge", *folders, "--method", "linear", "--weights=-.5,1,.25", "--out", tmp_path / "m")
    loaded = [Adapter.from_pretrained(folder) for folder in folders]
    wanted = merge(loaded, "linear", [-0.5, 1, 0.25])
    assert Adapter.from_pretrained(tmp_path / "m").sha256 == wanted.sha256


def test_list_names_every_method_with_its_source(geodapt):
    done = geodapt("merge", "--list")
    assert done.code == 0
    for name in ("linear", "cat", "svd", "ties", "dare", "dare_ties", "magnitude", "dense_blocks"):
        assert name in done.out
    assert "2306.01708" in done.out


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_nothing_of_the_list_is_cut(geodapt, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    words = " ".join(geodapt("merge", "--list").out.split())
    for method in METHODS.values():
        for text in (method.name, method.line[1:], method.source, *method.options):
            assert text in words
    assert "…" not in words


def test_what_a_merge_lost_is_said(geodapt, folders, tmp_path):
    loaded = [Adapter.from_pretrained(folder) for folder in folders]
    for method, words in (
        ("atoms", "it differs from the weighted sum by {:.2f} %"),
        ("svd", "the cut to this rank lost {:.2f} % of the merged update"),
        ("cat", "the exact weighted sum"),
    ):
        done = geodapt("merge", *folders, "--method", method, "--out", tmp_path / method)
        merged = merge(loaded, method)
        assert words.format(100 * merged.error) in done.out.replace("\n", " ")
        assert (merged.error > 0.01) is (method != "cat")


def test_an_adapter_is_replaced_only_when_that_is_said(geodapt, folders, tmp_path):
    out = tmp_path / "merged"
    words = ["merge", *folders, "--out", out]
    assert geodapt(*words).code == 0
    (out / "notes.txt").write_text("mine")
    first = Adapter.from_pretrained(out).sha256
    done = geodapt(*words, "--method", "cat")
    assert done.code == 2
    assert "holds an adapter; give another folder, or --force" in done.err
    assert Adapter.from_pretrained(out).sha256 == first
    assert geodapt(*words, "--method", "cat", "--force").code == 0
    assert Adapter.from_pretrained(out).sha256 != first
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "a path is empty"),
        ("/", "holds other files"),
        (".", "holds other files"),
        ("A", "holds an adapter"),
        ("held-out.jsonl", "is a file; give a folder"),
        ("held-out.jsonl/merged", "is a file; give a folder"),
        ("/proc/merged", "nothing can be written in /proc"),
        ("/dev/null", "is a file"),
        ("n" * 300, "cannot be used: File name too long"),
        ("n" * 230, "is too long"),
        ("d/" * 1000 + "merged", "nested too deep"),
        ("~nosuchuser/merged", "cannot be used"),
        ("a\0b", "cannot be used"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_any_work(
    geodapt, folders, texts, tmp_path, monkeypatch, out, message
):
    monkeypatch.setattr("geodapt.adapters.adapter.read_adapter", None)
    before = sorted(tmp_path.rglob("*"))
    done = call(tmp_path, "merge", *folders, "--out", out)
    assert done.code == 2
    assert message in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_huge_weights_write_nothing(geodapt, folders, tmp_path):
    for method in METHODS:
        done = geodapt(
            "merge", *folders, "--method", method, "--weights=1e39,1,1", "--out", tmp_path / "out"
        )
        assert done.code == 2
        assert "overflow in float32" in done.err
    assert not (tmp_path / "out").exists()


def test_atoms_by_calibration(geodapt, folders, texts, tmp_path):
    plain, chosen = tmp_path / "plain", tmp_path / "chosen"
    texts.write_text('{"text": "w1 w1 w1"}\n')  # one direction, so that it matters
    words = ["merge", *folders, "--method", "atoms", "--rank", 2]
    assert geodapt(*words, "--out", plain).code == 0
    assert geodapt(*words, "--out", chosen, "--calibration", texts).code == 0
    assert Adapter.from_pretrained(chosen).rank == 2
    assert Adapter.from_pretrained(chosen).sha256 != Adapter.from_pretrained(plain).sha256


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["perplexity", "accuracy"])
def test_search_leaves_the_best_and_the_table(geodapt, folders, texts, tmp_path, metric):
    out = tmp_path / "best"
    words = ["merge", *folders, "--search", texts, "--metric", metric, "--budget", 10]
    done = geodapt(*words, "--out", out)
    assert done.code == 0, done.err
    trials = json.loads((tmp_path / "best.search" / "trials.json").read_text())
    assert len(trials) == 10
    values = [trial["value"] for trial in trials]
    assert values == sorted(values, reverse=metric == "accuracy")
    assert f"{values[0]:.5g}" in done.out
    first = Adapter.from_pretrained(out).sha256
    assert geodapt(*words, "--out", out).code == 0  # nothing left to try, and the same search
    assert Adapter.from_pretrained(out).sha256 == first


def test_info_and_the_picture(geodapt, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = geodapt("adapters", "info", *folders, "--layers", "--picture", tmp_path / "overlap.html")
    assert done.code == 0
    for words in ("q_proj, v_proj", "effective rank", "A, B", "row space shared", "mean"):
        assert words in done.out
    page = (tmp_path / "overlap.html").read_text()
    assert "How adapters overlap" in page
    assert 'src="http' not in page
    assert "prefers-color-scheme" in page  # the look of the other pages, which know the dark
    for path in Adapter.from_pretrained(folders[0]).factors:
        assert path in page
    shutil.copytree(folders[0], tmp_path / "twin")
    same = geodapt("adapters", "info", folders[0], tmp_path / "twin").out
    assert "100.0 %" in same
    assert "+1.000" in same


def test_info_refuses_an_adapter_that_is_given_twice(geodapt, folders):
    done = geodapt("adapters", "info", *folders, folders[0])
    assert done.code == 2
    assert f"{folders[0]} is given twice" in done.err.replace("\n", "")


def test_what_the_command_does_is_a_call_in_python(geodapt, folders, texts, tmp_path):
    loaded = [Adapter.from_pretrained(folder) for folder in folders]
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    best, trials = search_on_texts(loaded, rows, tmp_path / "trials", "accuracy", budget=4)
    assert len(trials) == 4
    words = ["merge", *folders, "--search", texts, "--metric", "accuracy", "--budget", 4]
    assert geodapt(*words, "--out", tmp_path / "best").code == 0
    assert Adapter.from_pretrained(tmp_path / "best").sha256 == best.sha256
    found = calibrate_on_texts(loaded, [row["text"] for row in rows])
    model, _ = load_base_of(loaded)
    assert found.keys() == {path for adapter in loaded for path in adapter.factors}
    assert {x.shape[1] for x in found.values()} == {model.config.hidden_size}
    with pytest.raises(InputError, match="do not say what their base is"):
        load_base_of([adapter_without_base(loaded[0])])


def adapter_without_base(adapter: Adapter) -> Adapter:
    config = copy.deepcopy(adapter.config)
    config.base_model_name_or_path = None
    return replace(adapter, config=config)


@pytest.mark.parametrize("width", ["50", "80"])
def test_layers_can_be_told_apart_in_a_narrow_terminal(geodapt, folders, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    done = geodapt("adapters", "info", *folders[:2], "--layers")
    table = done.out[done.out.index("A, B") :]
    lines = [line.split()[0] for line in table.splitlines() if line.strip()]
    for path in Adapter.from_pretrained(folders[0]).factors:
        assert path in (lines if width == "80" else "".join(lines))
    assert "…" not in done.out


def test_info_asks_nobody_and_shows_what_a_name_holds(geodapt, folders, monkeypatch):
    def refused(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    path = folders[0] / "adapter_config.json"
    config = json.loads(path.read_text())
    for name in (
        "somebody/model",
        "https://example.org/x",
        "a\x1b]0;title\x07b",
        "n/" * 1999,
        "..",
        "\n",
    ):
        path.write_text(json.dumps({**config, "base_model_name_or_path": name}))
        done = geodapt("adapters", "info", folders[0], folders[1])
        assert done.code == 0, done.err
        assert "\x1b]" not in done.out
    path.write_text(json.dumps({**config, "base_model_name_or_path": "n" * 100_000}))
    assert geodapt("adapters", "info", folders[0]).code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "no adapters given"),
        (["A", "B"], "--out merged/"),
        (["A", "absent", "--out", "x"], "absent"),
        (["A", "B", "--method", "average", "--out", "x"], "no merge method 'average'"),
        (["A", "B", "--weights", ".5", "--out", "x"], "1 weights for 2 adapters"),
        (["A", "B", "--weights", "much", "--out", "x"], "not a list of numbers"),
        (["A", "B", "--rank", "99", "--out", "x"], "rank 99 is more"),
        (["A", "B", "--method", "ties", "--density", "2", "--out", "x"], "density 2.0"),
        (["A", "B", "--search", "nothing.jsonl", "--out", "x"], "nothing.jsonl does not exist"),
        (
            ["A", "B", "--search", "bad.jsonl", "--out", "x"],
            "bad.jsonl, line 2: expected a JSON object",
        ),
        (["A", "B", "--search", "empty.jsonl", "--out", "x"], "is empty"),
        (["A", "B", "--search", "t.jsonl", "--rank", "4", "--out", "x"], "--rank is for one merge"),
        (["A", "B", "--search", "t.jsonl", "--method", "svd", "--out", "x"], "--method is for one"),
        (["A", "B", "--search", "t.jsonl", "--weights", "1", "2", "--out", "x"], "--weights is"),
        (["A", "B", "--metric", "accuracy", "--out", "x"], "--metric is for a search"),
        (["A", "B", "--budget", "9", "--out", "x"], "--budget is for a search"),
        (["A", "B", "--base", "b", "--out", "x"], "--base is for texts"),
    ],
)
def test_mistakes_end_with_status_2_and_write_nothing(
    geodapt, folders, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"text": "w1"}\n{"text"\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    before = sorted(tmp_path.rglob("*"))
    done = geodapt("merge", *words)
    assert done.code == 2
    assert message in done.err
    assert sorted(tmp_path.rglob("*")) == before
