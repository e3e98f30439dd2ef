"""Composed pages: masks and boxes that agree, of characters that their split may show."""

import numpy as np
import pytest
from pydantic import ValidationError

from geodapt.data.glyphs import (
    Glyphs,
    GlyphSettings,
    PageSettings,
    load_glyphs,
    load_pages,
    page_classes,
    pages,
)
from geodapt.data.glyphs.drawing import INK, PAPER
from geodapt.data.glyphs.pages import PAPERS as NAMES
from geodapt.data.glyphs.pages import rules
from geodapt.data.vision import check_pictures, read_segments
from geodapt.errors import InputError
from geodapt.vision import open_mask
from tests.data.test_glyph_pictures import GREEK

SETTINGS = PageSettings(train=12, test=8, size=96, characters=(3, 9), em=(12, 30))


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def greek(own_cache) -> Glyphs:
    return load_glyphs(GlyphSettings(**{**GREEK, "test": 0.2}))


@pytest.fixture(scope="module")
def found(greek):
    return load_pages(greek, SETTINGS)


def content(found):
    return {
        name: [
            (*(row[key].tobytes() for key in ("image", "mask", "segments")), row["objects"])
            for row in rows
        ]
        for name, rows in found.items()
    }


def test_masks_and_boxes_agree(greek, found):
    papers = [1 + number for number in page_classes(greek).stuff]
    assert {name: len(rows) for name, rows in found.items()} == {
        "train": 12,
        "validation": 8,
        "test": 8,
    }
    for rows in found.values():
        for row in rows:
            mask, grey = np.array(row["mask"]), np.array(row["image"]).astype(int)
            assert mask.shape == grey.shape == (96, 96)
            assert mask.dtype == np.uint16
            boxed = np.zeros_like(mask)
            objects = row["objects"]
            assert 1 <= len(objects["category"]) <= 9
            for (x, y, width, height), label in zip(
                objects["bbox"], objects["category"], strict=True
            ):
                box = slice(int(y), int(y + height)), slice(int(x), int(x + width))
                assert x >= 0
                assert y >= 0
                assert x + width <= 96
                assert y + height <= 96
                assert not boxed[box].any(), "boxes overlap"
                boxed[box] = label + 1
                assert set(np.unique(mask[box])) - {*papers} == {label + 1}
                # The box is tight: each of its sides has ink.
                paper = grey.max()
                sides = (grey[box][0], grey[box][-1], grey[box][:, 0], grey[box][:, -1])
                assert all((side < paper).any() for side in sides)
            (paper,) = set(np.unique(mask[boxed == 0]))
            assert paper in papers
            # Where the mask says paper there is mostly paper, elsewhere mostly ink.
            assert grey.max() >= PAPER[0]
            assert grey[mask != paper].mean() < grey[mask == paper].mean()
            assert grey.min() <= INK[1] + 60


def test_pages_keep_the_contract_of_pictures(greek, found):
    classes = page_classes(greek)
    for rows in found.values():
        counts = check_pictures(rows, classes)
        assert counts.pictures == len(rows)
        objects = sum(len(row["objects"]["category"]) for row in rows)
        assert counts.boxes.sum() == objects
        assert counts.segments.sum() == objects + len(rows)
        assert counts.pixels.sum() == len(rows) * 96**2
        things = np.delete(np.arange(len(classes.names)), classes.stuff)
        assert (counts.segments[things] == counts.boxes[things]).all()
        assert ((counts.pixels > 0) == (counts.segments > 0)).all()


def test_segments_are_the_objects_in_their_order_then_the_paper(greek, found):
    classes = page_classes(greek)
    for rows in found.values():
        for row in rows:
            labels = classes.labels(open_mask(row["mask"]))
            segments = read_segments(row["segments"], row["segments_info"], classes)
            boxes = row["objects"]["bbox"]
            assert segments.categories[:-1].tolist() == row["objects"]["category"]
            assert segments.categories[-1] in classes.stuff
            assert not segments.crowd.any()
            assert (
                classes.labels(open_mask(row["mask"])) == segments.categories[segments.places]
            ).all()
            for (x, y, width, height), mask, category in zip(
                boxes, segments.masks(), segments.categories, strict=False
            ):
                # An object is what its box shows of its class, and nothing else.
                inside = np.zeros_like(mask)
                inside[int(y) : int(y + height), int(x) : int(x + width)] = True
                assert (mask == (inside & (labels == category))).all()


def test_each_kind_of_paper_has_its_rules(greek):
    random = np.random.default_rng(0)
    drawn = {kind: rules(kind, 64, random) > 0 for kind in NAMES}
    assert not drawn["plain"].any()
    rows, columns = (drawn["lined"].all(1), drawn["squared"].all(0))
    assert rows.sum() == drawn["lined"].any(1).sum() >= 3
    assert columns.sum() >= 3
    assert drawn["squared"].all(1).sum() >= 3
    dots = drawn["dotted"]
    assert dots.sum() == dots.any(0).sum() * dots.any(1).sum() >= 9
    lined = SETTINGS.model_copy(update={"papers": ["lined"], "train": 3, "test": 1})
    for row in load_pages(greek, lined)["train"]:
        category = row["segments_info"]["category"][-1]
        assert page_classes(greek).names[category] == "lined paper"


def test_papers_show_on_their_pages(greek, found):
    """The darkest paper is darker than the lightest on all but plain pages."""
    shown = set()
    classes = page_classes(greek)
    for row in found["train"]:
        kind = classes.names[row["segments_info"]["category"][-1]]
        shown.add(kind)
        grey, mask = np.array(row["image"]).astype(int), np.array(row["mask"])
        far = np.ones_like(mask, dtype=bool)
        for x, y, width, height in row["objects"]["bbox"]:
            far[int(y) : int(y + height), int(x) : int(x + width)] = False
        assert (np.ptp(grey[far]) == 0) == (kind == "plain paper")
    assert len(shown) >= 3


def test_pages_show_what_their_split_may_show(greek, found):
    new = {label for label, flag in enumerate(greek.classes["new"]) if flag}
    shown = {
        name: {label for row in rows for label in row["objects"]["category"]}
        for name, rows in found.items()
    }
    assert not shown["train"] & new
    assert not shown["validation"] & new
    assert shown["test"] & new
    known = set(greek.splits["test"]["label"])
    assert shown["test"] <= new | known


def test_the_same_settings_give_the_same_pages(greek, found, monkeypatch, tmp_path):
    before = content(found)
    with monkeypatch.context() as patch:
        patch.setattr(pages, "_Press", None)
        assert content(load_pages(greek, SETTINGS)) == before
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    assert content(load_pages(greek, SETTINGS)) == before
    other = SETTINGS.model_copy(update={"seed": 1})
    assert content(load_pages(greek, other))["train"] != before["train"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"characters": (5, 3)}, "characters: expected 1 <= smallest <= largest, got 5, 3"),
        ({"characters": (0, 3)}, "characters: expected 1"),
        ({"em": (4, 30)}, "em: expected 8"),
        ({"em": (20, 300)}, "em: 300 pixels do not fit on a page of 128"),
        ({"size": 8}, "greater than or equal to 32"),
        ({"papers": ["lined", "lined"]}, "papers: lined is given twice"),
        ({"papers": ["handmade"]}, "Input should be 'plain', 'lined'"),
        ({"pages": 3}, "Extra inputs"),
    ],
)
def test_settings_out_of_range(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        PageSettings(**changes)


def test_nothing_to_set_pages_with():
    glyphs = load_glyphs(GlyphSettings(**{**GREEK, "test": 0.0, "new": 0.0, "validation": 0.1}))
    with pytest.raises(InputError, match="no rows for test and new"):
        load_pages(glyphs, SETTINGS)
