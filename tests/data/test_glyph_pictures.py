"""Pictures of characters: drawn right, drawn once, the same by seed; splits; bad fonts."""

import io
import math
import shutil
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from geodapt.data.glyphs import GlyphSettings, load_glyphs, store
from geodapt.data.glyphs.drawing import (
    BASELINE,
    EM,
    SHIFT,
    SUPERSAMPLED,
    TURN,
    ZOOM,
    Pen,
    draw_glyph,
)
from geodapt.data.glyphs.splits import new_classes
from geodapt.errors import InputError

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SANS, SERIF, ROMAN = (
    str(FOLDER / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSerif", "cmr10")
)
GREEK = {"fonts": [SANS, SERIF], "scripts": ["Greek"], "size": 16, "shifted": []}


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def greek(own_cache):
    return load_glyphs(GlyphSettings(**GREEK))


def content(glyphs):
    """All of a data set that no second call may change."""
    return (
        glyphs.classes.to_dict(),
        {
            name: [(row["image"].tobytes(), row["label"], row["domain"]) for row in rows]
            for name, rows in glyphs.splits.items()
        },
    )


def naive(ink, size, jitter):
    """Every pixel by itself, in float64: back to the ink, between its four nearest pixels."""
    turn, zoom, x, y, dark, light = jitter
    side = SUPERSAMPLED * size
    coverage = np.pad(np.asarray(ink.coverage, dtype=np.float64), 1)
    middle = size * (0.5 + SHIFT * x), size * (0.5 + SHIFT * y)
    left = min(max(0.03 * side, side / 2 + ink.left), 0.97 * side - ink.coverage.width)
    top = min(max(0.03 * side, BASELINE * side + ink.top), 0.97 * side - ink.coverage.height)
    black, white = 45 + 45 * dark, 222.5 + 32.5 * light
    out = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            dx, dy = column + 0.5 - middle[0], row + 0.5 - middle[1]
            a = math.radians(TURN * turn)
            u = (math.cos(a) * dx + math.sin(a) * dy) * SUPERSAMPLED / (1 + ZOOM * zoom)
            v = (-math.sin(a) * dx + math.cos(a) * dy) * SUPERSAMPLED / (1 + ZOOM * zoom)
            u, v = u + side / 2 - left, v + side / 2 - top  # from the ink's corner
            inside = 0 <= u < ink.coverage.width and 0 <= v < ink.coverage.height
            out[row, column] = white
            if inside:
                px, py = u - 0.5, v - 0.5
                fx, fy = px - math.floor(px), py - math.floor(py)
                # At the edge the ink's last pixel goes on.
                edge = np.pad(coverage[1:-1, 1:-1], 1, mode="edge")
                i, j = math.floor(py) + 1, math.floor(px) + 1
                value = (
                    edge[i, j] * (1 - fx) * (1 - fy)
                    + edge[i, j + 1] * fx * (1 - fy)
                    + edge[i + 1, j] * (1 - fx) * fy
                    + edge[i + 1, j + 1] * fx * fy
                )
                out[row, column] = white + (black - white) * value / 255
    return out


@settings(deadline=None, max_examples=25)
@given(st.sampled_from("aÄgñΩ@▒─"), st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6))
def test_a_view_equals_the_naive_one(character, jitter):
    size = 16
    ink = Pen(Path(SANS), round(EM * SUPERSAMPLED * size)).ink(character, 30)
    found = np.asarray(draw_glyph(ink, size, jitter)).astype(float)
    assert np.abs(found - naive(ink, size, jitter)).max() <= 2  # two roundings to whole greys


def test_letters_stand_on_one_line_and_keep_their_sizes():
    pen = Pen(Path(SANS), round(EM * 64))
    rows = {
        c: np.flatnonzero((np.asarray(draw_glyph(pen.ink(c, 60), 32)) < 128).any(1))
        for c in "oOx,'"
    }
    assert rows["o"][-1] == rows["O"][-1] == pytest.approx(rows["x"][-1], abs=1)
    assert rows["O"][0] < rows["o"][0] - 3
    assert rows["'"][-1] < rows[","][0]


def test_what_is_too_large_is_made_smaller_and_blanks_have_no_ink():
    pen = Pen(Path(SANS), 40)
    assert max(pen.ink("﷽" if pen.ink("﷽", 99) else "⟹", 20).coverage.size) == 20
    assert pen.ink(" ", 20) is None
    assert pen.ink("\u2800", 20) is None


def test_captions_and_classes(greek):
    assert greek.classes.num_rows > 250
    for row in greek.classes:
        assert row["path"][-1] == row["name"] == row["captions"][-1]
        assert row["captions"] == row["path"][:2] + row["path"][-2:]
        assert len(row["contradictions"]) == 4
        assert row["script"] == "Greek"
        assert row["captions"][0] in {"letter", "symbol", "number", "punctuation mark"}


def test_pictures_are_ink_on_paper(greek):
    for row in greek.splits["train"].select(range(0, 300, 10)):
        grey = np.asarray(row["image"])
        assert grey.shape == (16, 16)
        assert grey.dtype == np.uint8
        assert grey.max() >= 190
        assert grey.min() < grey.max() - 30


def test_no_two_characters_look_the_same(greek):
    pen = Pen(Path(SANS), round(EM * 32))
    covered = set(greek.fonts[0].characters)
    shapes = Counter()
    for character in greek.classes["character"]:
        if character in covered:
            ink = pen.ink(character, 30)
            shapes[ink.left, ink.top, ink.coverage.size, ink.coverage.tobytes()] += 1
    assert max(shapes.values()) == 1


def test_greek_capital_alpha_looks_like_latin_a():
    both = load_glyphs(GlyphSettings(**{**GREEK, "fonts": [SANS], "scripts": ["Latin", "Greek"]}))
    assert "A" in both.classes["character"]
    assert "Α" not in both.classes["character"]
    assert "Ω" in both.classes["character"]


# --- splits ------------------------------------------------------------------------------------


def test_rows_are_split_once_and_whole(greek):
    of = {name: rows.to_dict() for name, rows in greek.splits.items()}
    pairs = {
        name: set(zip(rows["label"], rows["domain"], strict=True)) for name, rows in of.items()
    }
    names = list(pairs)
    for index, name in enumerate(names):
        assert not any(pairs[name] & pairs[other] for other in names[:index])
    covered = sum(
        len(set(font.characters) & set(greek.classes["character"])) for font in greek.fonts
    )
    assert sum(map(len, pairs.values())) == covered
    trained = {label for label, _ in pairs["train"]}
    new = {label for label, flag in enumerate(greek.classes["new"]) if flag}
    assert trained == set(range(len(greek.classes))) - new
    assert {label for label, _ in pairs["new"]} == new
    assert {label for label, _ in pairs["test"]} <= trained
    assert 0.05 < len(pairs["test"]) / covered < 0.15


def test_new_characters_are_made_of_parts_that_training_shows(greek):
    rows = greek.classes.to_list()
    shown = {row["name"] for row in rows if not row["new"]}
    for row in rows:
        if row["new"]:
            base, addition = row["path"][-2], row["name"].removeprefix(row["path"][-2])
            assert base in shown
            assert any(name.endswith(addition) and name != row["name"] for name in shown), row[
                "name"
            ]
    assert 10 < sum(row["new"] for row in rows) < 80


@given(st.integers(0, 50), st.floats(0, 0.99))
def test_training_shows_every_part_of_a_new_character(seed, share):
    paths = [("letter", base) for base in "abcd"]
    paths += [("letter", base, f"{base} with {mark}") for base in "abcd" for mark in ("x", "y")]
    new = new_classes(paths, GlyphSettings(new=share, seed=seed))
    assert not new[:4].any()
    for mark in ("x", "y"):
        assert not all(new[i] for i, path in enumerate(paths) if path[-1].endswith(mark))


def test_fonts_that_training_never_shows():
    chosen = {"fonts": [SANS, SERIF, ROMAN], "scripts": ["Latin"], "kinds": ["letter"], "size": 16}
    glyphs = load_glyphs(GlyphSettings(**chosen))
    assert [font.name for font in glyphs.fonts] == [
        "DejaVu Sans",
        "DejaVu Serif",
        "Computer Modern",
    ]
    assert set(glyphs.splits["shifted"]["domain"]) == {2}
    letters = {glyphs.classes[label]["character"] for label in glyphs.splits["shifted"]["label"]}
    assert letters == {chr(code) for code in (*range(65, 91), *range(97, 123))}
    for name in ("train", "validation", "test", "new"):
        assert 2 not in set(glyphs.splits[name]["domain"])


# --- once, and the same ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_settings_give_the_same_data_without_drawing_again(greek, monkeypatch, tmp_path):
    before = content(greek)
    with monkeypatch.context() as patch:
        patch.setattr(store, "Pen", None)
        assert content(load_glyphs(GlyphSettings(**GREEK))) == before
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    assert content(load_glyphs(GlyphSettings(**GREEK))) == before
    other = content(load_glyphs(GlyphSettings(**GREEK, seed=1)))
    assert other[0]["name"] == before[0]["name"]
    assert other[0]["contradictions"] != before[0]["contradictions"]
    assert other[0]["new"] != before[0]["new"]
    assert other[1]["train"] != before[1]["train"]


def test_views_of_a_character_differ_and_stay_together(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    glyphs = load_glyphs(GlyphSettings(**{**GREEK, "fonts": [SANS], "views": 3}))
    for rows in glyphs.splits.values():
        seen = Counter(zip(rows["label"], rows["domain"], strict=True))
        assert set(seen.values()) <= {3}
    train = glyphs.splits["train"]
    assert len({row["image"].tobytes() for row in train}) > 0.95 * len(train)


def test_a_kill_leaves_nothing_half(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(store, "png", lambda picture: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_glyphs(GlyphSettings(**GREEK))
    assert [path for path in (tmp_path / "glyphs").iterdir() if path.is_dir()] == []
    assert load_glyphs(GlyphSettings(**GREEK)).classes.num_rows > 250


# --- what can be wrong -------------------------------------------------------------------------


def test_a_matplotlib_that_lacks_a_font_is_named(tmp_path, monkeypatch):
    shipped = tmp_path / "fonts" / "ttf"
    shutil.copytree(FOLDER, shipped, ignore=shutil.ignore_patterns("cmti10.ttf"))
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"does not ship cmti10.ttf.*install matplotlib 3.11"):
        load_glyphs(GlyphSettings(fonts=["matplotlib"], scripts=["Greek"]))


def test_missing_fonts(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.ttf' does not exist; give a file, a folder"):
        load_glyphs(GlyphSettings(fonts=["nowhere.ttf"]))
    with pytest.raises(InputError, match="holds no font"):
        load_glyphs(GlyphSettings(fonts=[str(tmp_path)]))


def test_a_file_that_is_no_font(tmp_path):
    (tmp_path / "x.ttf").write_text("not a font")
    with pytest.raises(InputError, match=r"x.ttf is not a font that can be read"):
        load_glyphs(GlyphSettings(fonts=[str(tmp_path)]))
    torn = Path(SANS).read_bytes()[:3000]
    (tmp_path / "x.ttf").write_bytes(torn)
    with pytest.raises(InputError, match=r"x.ttf is not a font that can be read"):
        load_glyphs(GlyphSettings(fonts=[str(tmp_path)]))


def own_font(path: Path, name: str, width: int) -> Path:
    """A font of one letter, which is a rectangle, or blank where it has no width."""
    pen = TTGlyphPen(None)
    if width:
        pen.moveTo((0, 0))
        for corner in ((0, 500), (width, 500), (width, 0)):
            pen.lineTo(corner)
        pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "A"])
    builder.setupCharacterMap({65: "A"})
    builder.setupGlyf({".notdef": glyph, "A": glyph})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "A": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "fullName": name})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_a_users_own_fonts(tmp_path):
    own_font(tmp_path / "one.ttf", "Square", 500)
    (tmp_path / "copy.ttf").write_bytes((tmp_path / "one.ttf").read_bytes())
    glyphs = load_glyphs(GlyphSettings(fonts=[str(tmp_path)], size=16))
    assert [font.name for font in glyphs.fonts] == ["Square"]
    assert glyphs.classes["name"][:] == ["Latin capital letter A"]
    assert glyphs.classes[0]["contradictions"][0] in {"number", "symbol", "punctuation mark"}
    own_font(tmp_path / "two.ttf", "Square", 400)
    with pytest.raises(InputError, match="are both called 'Square'"):
        load_glyphs(GlyphSettings(fonts=[str(tmp_path)]))


def test_a_font_of_blanks(tmp_path):
    path = own_font(tmp_path / "blank.ttf", "Blank", 0)
    with pytest.raises(InputError, match="Blank draw none of the 1 characters"):
        load_glyphs(GlyphSettings(fonts=[str(path)]))


def test_unknown_scripts_and_kinds():
    with pytest.raises(InputError, match=r"no font has the script 'Klingon'; there are Arabic"):
        load_glyphs(GlyphSettings(fonts=[SANS], scripts=["Greek", "Klingon"]))
    with pytest.raises(InputError, match=r"no font has the kind 'word'; there are letter, number"):
        load_glyphs(GlyphSettings(fonts=[SANS], kinds=["word"]))
    with pytest.raises(InputError, match="no font has a character of the kinds"):
        load_glyphs(GlyphSettings(fonts=[SERIF], scripts=["Braille"], kinds=["letter"]))


def test_all_fonts_held_out():
    with pytest.raises(InputError, match=r"shifted: \['\*'\] holds out all fonts"):
        load_glyphs(GlyphSettings(**{**GREEK, "shifted": ["*"]}))


def test_a_held_out_font_that_is_not_there(monkeypatch):
    monkeypatch.setattr(store, "Pen", None)  # refused before anything is drawn
    with pytest.raises(InputError, match=r"no font is called 'DejaVu Snas'; there are DejaVu Sans"):
        load_glyphs(GlyphSettings(**{**GREEK, "seed": 5, "shifted": ["DejaVu Snas"]}))


@pytest.mark.parametrize(
    "changes", [{"size": 4}, {"views": 0}, {"test": 1.0}, {"fonts": []}, {"scripts": []}, {"x": 1}]
)
def test_settings_out_of_range(changes):
    with pytest.raises(ValidationError):
        GlyphSettings(**changes)


def test_pictures_are_png_in_arrow(greek):
    table = greek.splits["train"].data.table
    with Image.open(io.BytesIO(table["image"][0].as_py()["bytes"])) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (16, 16))
