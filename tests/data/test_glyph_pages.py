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
from geodapt.data.vision import BACKGROUND, check_pictures
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
        name: [(row["image"].tobytes(), row["mask"].tobytes(), row["objects"]) for row in rows]
        for name, rows in found.items()
    }


def test_masks_and_boxes_agree(found):
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
                assert set(np.unique(mask[box])) - {0} == {label + 1}
                # The box is tight: each of its sides has ink.
                paper = grey.max()
                sides = (grey[box][0], grey[box][-1], grey[box][:, 0], grey[box][:, -1])
                assert all((side < paper).any() for side in sides)
            assert not mask[boxed == 0].any()
            # Where the mask says paper there is mostly paper, elsewhere mostly ink.
            assert grey.max() >= PAPER[0]
            assert grey[mask > 0].mean() < grey[mask == 0].mean()
            assert grey.min() <= INK[1] + 60


def test_pages_keep_the_contract_of_pictures(greek, found):
    classes = page_classes(greek)
    for rows in found.values():
        counts = check_pictures(rows, classes)
        assert counts.pictures == len(rows)
        assert counts.boxes.sum() == sum(len(row["objects"]["category"]) for row in rows)
        assert counts.pixels.sum() == sum((np.array(row["mask"]) > 0).sum() for row in rows)
        assert ((counts.pixels > 0) == (counts.boxes > 0)).all()
        row = rows[0]
        labels = classes.labels(open_mask(row["mask"]))
        assert set(np.unique(labels)) == {BACKGROUND, *row["objects"]["category"]}


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
