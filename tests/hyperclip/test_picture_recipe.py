"""The recipe on pictures with masks: any folder of them, and what is wrong with some."""

import numpy as np
import pytest
import torch
from PIL import Image

from geodapt.data.vision import open_segmentation
from geodapt.hyperclip import OpenSegmenter
from geodapt.vision import load_clip
from tests.commands import call
from tests.hyperclip.worlds import glyph_world, results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

RECIPE = {
    "recipe": "hyperclip-pictures",
    "title": "Colours",
    "base": "base",
    "data": "colours",
    "segmenter": {"templates": ["{}"], "window": 32},
    "classes": 2,
    "training": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "tensorboard": False},
    "methods": ["frozen", "hyperclip-8"],
}


def write_set(root, sizes, names="red, crimson\nblue\n"):
    random = np.random.default_rng(0)
    for split in ("train", "validation"):
        for number, (width, height) in enumerate(sizes):
            mask = (random.random((height // 8, width // 8)) < 0.5).astype(np.uint8)
            mask = mask.repeat(8, 0).repeat(8, 1)
            colours = np.array([[200, 30, 30], [30, 30, 200]], dtype=np.uint8)[mask]
            mask[:2] = 255
            for kind, values, suffix in (("images", colours, "jpg"), ("masks", mask, "png")):
                path = root / kind / split / f"{number}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    (root / "classes.txt").write_text(names)


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_cache):
    folder = glyph_world(tmp_path_factory.mktemp("pictures"), RECIPE)
    write_set(folder / "colours", [(48, 40), (64, 24), (24, 24)])
    write_set(folder / "others", [(40, 40), (40, 40)], "blue\ngreen\n")
    return folder


@pytest.fixture(scope="module")
def ran(world):
    done = call(world, "run", "pages.yaml", "--out", "ran", "test.more=others")
    assert done.code == 0, done.err
    return world / "ran"


def test_every_set_is_measured_as_if_by_hand(ran, world):
    found = results(ran)
    sets = found["segmentation"]["methods"]["hyperclip-8"]["sets"]
    assert list(sets) == ["validation", "more"]
    segmenter = OpenSegmenter.from_pretrained(ran / "model")
    data = open_segmentation(world / "colours")
    both, either = torch.zeros(2), torch.zeros(2)
    for row in range(len(data)):
        image, mask = data[row]
        said = segmenter.segment(image, [["red", "crimson"], "blue"])
        counts = torch.from_numpy(mask >= 0)
        for k in range(2):
            true, own = torch.from_numpy(mask == k), (said == k) & counts
            both[k] += (true & own).sum()
            either[k] += (true | own).sum()
    assert sets["validation"]["miou"] == pytest.approx((both / either).mean().item(), abs=1e-6)
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["hyperclip-8"]["miou"] == sets["validation"]["miou"]
    assert "miou_new" in sets["more"]  # red, which the other set lacks, is no class of it
    page = (ran / "report.html").read_text()
    for text in ("Data sets", "Worst classes"):
        assert text in page


def test_unreadable_pictures_are_skipped_and_said(world):
    write_set(world / "torn", [(40, 40), (40, 40), (40, 40)])
    (world / "torn" / "images" / "train" / "1.jpg").write_bytes(b"torn")
    (world / "torn" / "images" / "validation" / "0.jpg").write_bytes(b"torn")
    done = call(world, "run", "pages.yaml", "--out", "ran-torn", "data=torn", "methods=[frozen]")
    assert done.code == 0, done.err
    found = results(world / "ran-torn")
    assert sum("1 pictures skipped" in note for note in found["data"]["notes"]) == 2


def spoiled(world, name, spoil):
    root = world / name
    if not root.exists():
        write_set(root, [(40, 40), (40, 40)])
        spoil(root)
    return root


def shrink(root):
    Image.new("L", (3, 3)).save(root / "masks" / "validation" / "1.png")


def unknown(root):
    Image.new("L", (40, 40), 7).save(root / "masks" / "train" / "1.png")


@pytest.mark.parametrize(
    ("name", "spoil", "changes", "expected"),
    [
        ("shrunk", shrink, [], "has 3 x 3 pixels, its picture"),
        ("unknown", unknown, [], "has the value 7, which is no class"),
        ("short", lambda r: (r / "classes.txt").write_text("red\n"), [], "the class list may be"),
        ("empty", lambda r: (r / "classes.txt").write_text("\n"), [], "has no names"),
        ("bare", lambda r: (r / "masks" / "train" / "0.png").unlink(), [], "has no mask"),
        ("fine", lambda r: None, ["data.edition=coco-stuff"], "does not look like coco-stuff"),
        ("fine", lambda r: None, ["methods=[hyperclip-5]"], "do not divide a width of 32"),
        ("fine", lambda r: None, ["methods=[hyperclip-8-radius-auto]"], "give a test beside it"),
        ("fine", lambda r: None, ["test.more=nowhere"], "does not exist"),
        ("fine", lambda r: None, ["base=nowhere/at/all"], "does not exist"),
    ],
)
def test_what_is_wrong_is_refused_before_training(world, name, spoil, changes, expected):
    spoiled(world, name, spoil)
    done = call(world, "run", "pages.yaml", "--out", "refused", f"data={{path: {name}}}", *changes)
    assert done.code == 2
    assert expected in " ".join(done.err.split())
    assert not (world / "refused" / "results.json").exists()


def test_the_base_stays_as_it_was(ran, world):
    base = load_clip(str(world / "base"))
    own = OpenSegmenter.from_pretrained(ran / "model").clip.model.state_dict()
    changed = {n for n, t in base.model.state_dict().items() if not torch.equal(t, own[n])}
    assert changed
    assert all(name.split(".")[-2] in ("q_proj", "k_proj", "v_proj") for name in changed)
