"""The recipe on Greek pages: every method, resumed, its page, and the command `segment`."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from geodapt.data.glyphs import PageSettings, load_pages
from geodapt.hyperclip import OpenSegmenter, Scaling
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.page_classes import VOID, PageClasses
from geodapt.vision import load_clip
from tests.commands import call
from tests.hyperclip.worlds import GREEK, PAGES, glyph_world, greek, results
from tests.tinyclip.small import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

METHODS = [
    "frozen",
    "full",
    "query-value",
    "lora",
    "oft-8",
    "hyperclip-1-image",
    "hyperclip-8-shared-text-radius-5",
    "hyperclip-8",
]
RECIPE = {
    **GREEK,
    "recipe": "hyperclip",
    "segmenter": {"templates": ["{}"], "window": 32},
    "methods": METHODS,
}


@pytest.fixture(scope="module")
def glyphs(own_cache):
    return greek()


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_cache) -> Path:
    return glyph_world(tmp_path_factory.mktemp("hyperclip"), RECIPE)


@pytest.fixture(scope="module")
def ran(world) -> Path:
    done = call(world, "run", "pages.yaml", "--out", "ran")
    assert done.code == 0, done.err
    assert "HyperCLIP, blocks of 8" in done.out
    return world / "ran"


def test_a_run_measures_every_method(ran):
    found = results(ran)
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == METHODS
    for row in rows.values():
        for key in ("miou", "miou_seen", "miou_union", "miou_level_1", "miou_level_2", "zero_shot"):
            assert 0 <= row[key] <= 1
        assert row["seconds"] > 0
    # One layer of width 32 in each tower; of the image's, dense features use the values alone.
    weights = 32 * 32
    assert {name: row["clip_numbers"] for name, row in rows.items()} == {
        "frozen": 0,
        "full": rows["full"]["clip_numbers"],
        "query-value": 4 * weights,
        "lora": 2 * 3 * 2 * (32 + 32),
        "oft-8": 6 * 4 * (8 * 7 // 2),  # a skew matrix for each of four blocks
        "hyperclip-1-image": 32,
        "hyperclip-8-shared-text-radius-5": 3 * 8 * 8,
        "hyperclip-8": (3 + 1) * 32 * 8,
    }
    assert rows["frozen"]["trainable_parameters"] == 2  # the cosine head's scale and bias
    assert rows["full"]["clip_numbers"] > 20 * weights
    assert found["data"]["objects"] >= found["data"]["test"]


def test_the_page_shows_pages_words_and_norms(ran):
    page = (ran / "report.html").read_text()
    for text in (
        "Segmented pages",
        "Worst classes",
        "Radius",
        "data:image/png;base64",
        "<path d=",
        ", taken for ",
        "Texts, level 3",
    ):
        assert text in page


def test_the_kept_model_is_the_base_with_the_scaling_folded_in(ran, world):
    segmenter = OpenSegmenter.from_pretrained(ran / "model")
    base = load_clip(str(world / "base"))
    Scaling.load(base.model, ran / "scaling").fold()
    own = segmenter.clip.model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in base.model.state_dict().items())


def test_a_run_that_was_cut_short_goes_on(ran, world):
    stages = ran / "stages"
    command = ("run", "pages.yaml", "--out", "again", "methods=[frozen,hyperclip-8]")
    done = call(world, *command)
    assert done.code == 0, done.err
    again = world / "again"
    expected = results(again)
    (again / "results.json").unlink()
    (again / "stages" / "method-hyperclip-8-seed-0.json").unlink()
    done = call(
        world, "run", "pages.yaml", "--out", "again", "methods=[frozen,hyperclip-8]", "--resume"
    )
    assert done.code == 0, done.err
    for row, other in zip(results(again)["rows"], expected["rows"], strict=True):
        assert {k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} == {
            k: v for k, v in other.items() if k not in ("seconds", "peak_memory_mb")
        }
    assert len(list(stages.iterdir())) == len(METHODS)


def test_several_seeds_and_a_chosen_radius(world):
    command = ["run", "pages.yaml", "--out", "chosen", "seeds=2", "radius.factors=[0.8,1.2]"]
    changes = ["methods=[hyperclip-8-radius-auto]", "pages.test=2", "training.steps=2"]
    # A base of its own, which a stage of the run trains.
    (world / "small.yaml").write_text(
        yaml.safe_dump({**RECIPE, "base": "clip-glyphs", "glyph_base": {**SMALL, "moved": 0.2}})
    )
    command[1] = "small.yaml"
    done = call(world, *command, *changes)
    assert done.code == 0, done.err
    found = results(world / "chosen")
    (row,) = found["rows"]
    assert row["seeds"] == 2
    low, high = row["miou_interval"]
    assert 0 <= low <= high <= 1
    assert row["miou_spread"] >= 0
    trials = found["segmentation"]["methods"]["hyperclip-8-radius-auto"]["trials"]
    assert [trial["factor"] for trial in trials] == [0.8, 1.2]
    assert trials[1]["target"] == pytest.approx(1.5 * trials[0]["target"])
    # The start value and the penalty reach towards their targets.
    assert trials[0]["reached"] < trials[1]["reached"]
    page = (world / "chosen" / "report.html").read_text()
    for text in ("Radius tried", "Intervals", "(chosen)"):
        assert text in page
    assert OpenSegmenter.from_pretrained(world / "chosen" / "model").settings.window == 32


def test_an_adapter_on_the_words_is_one_more_row(world):
    changes = ["methods=[frozen,lathadapter]", "keep=lathadapter", "pages.test=2"]
    done = call(world, "run", "pages.yaml", *changes, "--out", "adapted")
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in results(world / "adapted")["rows"]}
    assert rows["lathadapter"]["label"] == "LatHAdapter on the words"
    assert rows["lathadapter"]["clip_numbers"] == 16 * 16  # as many attributes as the space is wide
    segmenter = OpenSegmenter.from_pretrained(world / "adapted" / "model")
    base = load_clip(str(world / "base"))
    own = segmenter.clip.model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in base.model.state_dict().items())
    words = ["Greek letter", "arrow"]
    plain = OpenSegmenter(base, segmenter.settings).word_vectors(words)
    wanted = torch.nn.functional.normalize(segmenter.text_adapter.refine(plain), dim=-1)
    torch.testing.assert_close(segmenter.word_vectors(words), wanted.detach())
    assert not torch.allclose(plain, wanted)
    refused = call(world, "run", "pages.yaml", *changes, "lathadapter={attributes: 0}")
    assert refused.code == 2
    assert "LatHAdapter, attributes" in refused.err


def test_segment_writes_a_picture(ran, world, glyphs):
    page = load_pages(glyphs, PageSettings(**PAGES))["test"][0]["image"]
    page.save(world / "photo.png")
    words = "Greek small letter,Greek capital letter/Greek letter"
    done = call(world, "segment", "ran", "photo.png", "--words", words, "--out", "overlay.png")
    assert done.code == 0, done.err
    assert "%  Greek" in done.out
    with Image.open(world / "overlay.png") as found:
        assert found.width >= 64
        assert found.height > 64
    again = call(world, "segment", "ran/model", "photo.png", "--words", words, "--threshold", "1")
    assert again.code == 0
    assert "%" not in again.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ran", "photo.png", "--words", "a,,b"), "holds an empty word"),
        (("ran", "photo.png", "--words", "a", "--out", "x.jpg"), "ends with .png"),
        (("ran", "missing.png", "--words", "a"), "does not exist"),
        (("base", "photo.png", "--words", "a"), "holds no segmenter"),
    ],
)
def test_segment_refuses(ran, world, arguments, expected):
    done = call(world, "segment", *arguments)
    assert done.code == 2
    assert expected in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["methods=[adapter]"], "method 'adapter' is unknown; there are frozen, full"),
        (["methods=[hyperclip-5]"], "blocks of 5 do not divide a width of 32"),
        (["keep=oft"], "method 'oft' is unknown"),
        (["methods=[hyperclip-8-radius-0]"], "a radius is above 0"),
        (["methods=[oft-5]"], "blocks of 5 do not divide a width of 32"),
        (["segmenter.window=128"], "a window of 128 pixels does not fit on pages of 64"),
        (["segmenter.window=60"], "window of 60 pixels does not divide into patches of 8"),
        (["base=nowhere/at/all"], "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(world, changes, expected):
    done = call(world, "run", "pages.yaml", "--out", "refused", *changes)
    assert done.code == 2
    assert expected in " ".join(done.err.split())


@pytest.mark.parametrize("level", [1, 3, 4])
def test_classes_of_pages(glyphs, level):
    classes = PageClasses.of(glyphs, level)
    chains = glyphs.classes["captions"]
    assert sorted(classes.seen + classes.new) == list(range(len(classes.names)))
    known = {c[level - 1] for c, new in zip(chains, glyphs.classes["new"], strict=True) if not new}
    assert {classes.names[k] for k in classes.seen} == known
    mask = np.array([[len(chains) + 1, 1], [len(chains), 2]], dtype=np.uint16)
    labels = classes.labels(mask)
    assert labels[0, 0] == VOID
    assert classes.names[labels[1, 0]] == chains[-1][level - 1]


def test_batches_ask_for_what_is_there_and_for_others(glyphs, world):
    classes, clip = PageClasses.of(glyphs, 3), load_clip(str(world / "base"))
    pages = load_pages(glyphs, PageSettings(**PAGES))["train"]

    def fetch(row):
        page = pages[row]
        return page["image"].convert("RGB"), classes.labels(np.array(page["mask"])).numpy()

    def collated(side=64, seed=0):
        made = WordBatches(
            len(pages), fetch, classes.names, classes.seen, clip, 8, side, "{}", seed
        )
        return made.collate([0, 2])

    batch, again = collated(), collated()
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    labels = torch.stack([torch.from_numpy(fetch(row)[1]) for row in (0, 2)])
    shown = sorted(set(labels.unique().tolist()) - {VOID})
    assert batch["input_ids"].shape[0] == max(8, len(shown))
    # The classes on the pages come first, by number.
    place = torch.full((VOID + 1,), VOID)
    place[shown] = torch.arange(len(shown))
    assert torch.equal(batch["masks"], place[labels])
    own = clip.tokens([classes.names[word] for word in shown])["input_ids"]
    assert torch.equal(batch["input_ids"][: len(shown), : own.shape[1]], own)
    # Another seed cuts elsewhere; a picture that is smaller than a piece is enlarged.
    assert not torch.equal(collated(32, 0)["pixels"], collated(32, 1)["pixels"])
    assert collated(96)["pixels"].shape == (2, 3, 96, 96)
    assert collated(96)["masks"].shape == (2, 96, 96)


def test_the_guides_block_runs(ran, world, glyphs, monkeypatch):
    guide = Path(__file__).parents[2] / "docs" / "hyperclip.md"
    block = re.search(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)[1]
    block = block.replace("runs/hyperclip-glyphs", "ran").replace("block=128", "block=8")
    image = load_pages(glyphs, PageSettings(**PAGES))["test"][0]["image"]
    names = {"image": image, "model": load_clip(str(world / "base")).model}
    monkeypatch.chdir(world)
    exec(block, names)
    assert names["labels"].shape == (64, 64)
    assert not names["scaling"].attached
