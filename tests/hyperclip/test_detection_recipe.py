"""Detection on Greek pages and on files of boxes: trained, measured, its page, `geodapt detect`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodapt.data.glyphs import PageSettings, load_pages
from geodapt.data.vision import PictureClasses
from geodapt.errors import InputError
from geodapt.hyperclip import OpenDetector, Scaling
from geodapt.hyperclip.detection import DetectionBatches
from geodapt.hyperclip.scenes import LEFT_OUT, glyph_scenes, scene_classes
from geodapt.vision import load_clip
from tests.commands import call
from tests.hyperclip.worlds import GREEK, PAGES, glyph_world, greek, results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]
RECIPE = {
    **GREEK,
    "recipe": "hyperclip-detection",
    "side": 64,
    "methods": ["frozen", "full", "lora", "hyperclip-8"],
}


@pytest.fixture(scope="module")
def glyphs(own_cache):
    return greek()


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_cache) -> Path:
    return glyph_world(tmp_path_factory.mktemp("detection"), RECIPE, embedding=32)


@pytest.fixture(scope="module")
def ran(world) -> Path:
    done = call(world, "run", "pages.yaml", "--out", "ran")
    assert done.code == 0, done.err
    return world / "ran"


def test_a_run_measures_every_method_and_shows_boxes(ran):
    rows = {row["method"]: row for row in results(ran)["rows"]}
    assert list(rows) == RECIPE["methods"]
    for row in rows.values():
        assert 0 <= row["ap50"] <= 1
        assert row["ap50_interval"][0] <= row["ap50"] <= row["ap50_interval"][1]
        assert row["objects"] == row["objects_seen"] + row.get("objects_new", 0)
    weights = 32 * 32
    assert rows["frozen"]["clip_numbers"] == 0
    assert rows["hyperclip-8"]["clip_numbers"] == 2 * 3 * 32 * 8
    assert rows["lora"]["clip_numbers"] == 2 * 3 * 2 * (32 + 32)
    assert rows["full"]["clip_numbers"] > 20 * weights
    heads = rows["frozen"]["trainable_parameters"]
    assert rows["hyperclip-8"]["trainable_parameters"] == heads + 2 * 3 * 32 * 8
    page = (ran / "report.html").read_text()
    for text in ("Found objects", "<svg viewBox=", "<title>", "Worst classes"):
        assert text in page


def test_the_kept_model_has_the_scaling_folded_in(ran, world):
    detector = OpenDetector.from_pretrained(ran / "model")
    base = load_clip(str(world / "base"))
    Scaling.load(base.model, ran / "scaling").fold()
    own = detector.clip.model.state_dict()
    name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(base.model.state_dict()[name], own[name])


def test_detect_writes_a_picture(ran, world, glyphs):
    load_pages(glyphs, PageSettings(**PAGES))["test"][0]["image"].save(world / "photo.png")
    command = ("detect", "ran", "photo.png", "--words", "Greek small letter,alpha/A")
    done = call(world, *command, "--threshold", "0", "--out", "boxes.png")
    assert done.code == 0, done.err
    assert "%  alpha  at " in done.out
    with Image.open(world / "boxes.png") as found:
        assert found.size == (64, 64)
    for arguments, said in (
        (("ran", "photo.png", "--words", "a,,b"), "holds an empty word"),
        (("ran", "photo.png", "--words", "a", "--out", "x.jpg"), "ends with .png"),
        (("base", "photo.png", "--words", "a"), "holds no detector"),
    ):
        done = call(world, "detect", *arguments)
        assert done.code == 2
        assert said in " ".join(done.err.split())


def test_batches_hold_seen_words_and_their_boxes(glyphs, world):
    scenes = glyph_scenes(glyphs, load_pages(glyphs, PageSettings(**PAGES)), 3)
    clip = load_clip(str(world / "base"))
    detector = OpenDetector.from_clip(clip, 64)
    batches = DetectionBatches(scenes.train, scenes.classes, detector, asked=12)
    batch, again = batches.collate([0, 2]), batches.collate([0, 2])
    assert torch.equal(batch["input_ids"], again["input_ids"])
    texts = clip.processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    for number, target in zip([0, 2], batch["targets"], strict=True):
        objects = scenes.train[number]["objects"]
        assert len(target["boxes"]) == len(objects["bbox"])
        x, y, width, height = np.array(objects["bbox"]).T
        wanted = np.stack([x + width / 2, y + height / 2, width, height], 1) / 64
        assert np.allclose(target["boxes"], wanted, atol=1e-6)
        for label, category in zip(target["class_labels"], objects["category"], strict=True):
            name = scenes.classes.names[scenes.classes.of_category[category]]
            assert name.lower() in " ".join(texts[label].split())


def test_classes_of_pages_and_of_cocos_split(glyphs):
    scenes = glyph_scenes(glyphs, load_pages(glyphs, PageSettings(**PAGES)), 4)
    classes = scenes.classes
    assert sorted(classes.seen + classes.new) == list(range(len(classes.names)))
    new = {glyphs.classes["captions"][k][3] for k, one in enumerate(glyphs.classes["new"]) if one}
    assert {classes.names[k] for k in classes.new} <= new
    assert {classes.names[k] for k in classes.stuff} >= {"plain paper", "dotted paper"}
    coco = PictureClasses(("person", "cat", "frisbee", "airplane"), (1, 17, 34, 5))
    split = scene_classes(coco, "48-17")
    assert [split.names[k] for k in split.new] == ["cat", "airplane"]
    assert [split.names[k] for k in split.seen] == ["person", "frisbee"]
    sink = scene_classes(PictureClasses(("a bench", "cup"), (14, 47)), "48-17")
    assert sink.of_category == [LEFT_OUT, 0]
    with pytest.raises(InputError, match="none of the categories of COCO's split"):
        scene_classes(PictureClasses(("x",), (14,)), "48-17")


def test_boxes_from_a_path(world):
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        (world / part).mkdir()
        annotations = []
        for number in range(3):
            values = random.integers(256, size=(30 + number, 40, 3), dtype=np.uint8)
            Image.fromarray(values).save(world / part / f"{number}.png")
            if number:  # the first shows nothing
                box = {"id": number, "image_id": number, "bbox": [3, 4, 20, 15], "iscrowd": 0}
                annotations.append({**box, "category_id": (1, 17)[number - 1]})
        images = [
            {"id": n, "file_name": f"{n}.png", "width": 40, "height": 30 + n} for n in range(3)
        ]
        parts = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
        }
        (world / f"{part}.json").write_text(json.dumps(parts))
    data, test = (
        f"{{kind: coco, images: {part}, annotations: {part}.json}}" for part in ("train", "test")
    )
    command = ("run", "pages.yaml", "methods=[hyperclip-8]", f"data={data}", f"test={test}")
    done = call(world, *command, "split=48-17", "--out", "path")
    assert done.code == 0, done.err
    (row,) = results(world / "path")["rows"]
    assert row["objects_seen"] == row["objects_new"] == 1
    assert results(world / "path")["notes"] == [
        "training: 1 pictures without boxes",
        "test: 1 pictures without boxes",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["methods=[adapter]"], "method 'adapter' is unknown; there are frozen, full"),
        (["methods=[hyperclip-8-radius-6]"], "a radius is for segmentation alone"),
        (["methods=[hyperclip-5]"], "blocks of 5 do not divide a width of 32"),
        (["side=60"], "pictures of 60 pixels do not divide into patches of 8"),
        (["split=48-17"], "split: '48-17' is of COCO's categories"),
        (["data={kind: yolo, images: base, labels: base, classes: base}"], "test: give the set"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(world, changes, said):
    done = call(world, "run", "pages.yaml", "--out", "refused", *changes)
    assert done.code == 2
    assert said in " ".join(done.err.split())
