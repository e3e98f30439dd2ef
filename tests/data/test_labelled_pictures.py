"""Labelled pictures: draws, halves, layouts, and what does not keep their contract."""

import io
import json
import random
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from PIL import Image as Pillow

from geodapt.data.glyph_settings import CharacterSetSettings, GlyphSettings, OmniglotSettings
from geodapt.data.glyphs import load_glyphs
from geodapt.data.glyphs.sets import character_set
from geodapt.data.loading import load_labelled_pictures
from geodapt.data.vision import (
    LABELLED,
    ClassFolderSettings,
    CoopSettings,
    Pictures,
    PictureTableSettings,
    SplitFileSettings,
    draw_shots,
)
from geodapt.data.vision.coop_layout import COOP_SETS
from geodapt.data.vision.pictures import number_column
from geodapt.errors import InputError


def png(value=0, size=(4, 4)):
    buffer = io.BytesIO()
    Pillow.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


def rows(labels, domains=None):
    """A data set whose pictures show their own row number."""
    columns = {"image": [{"bytes": png(i % 256), "path": None} for i in range(len(labels))]}
    columns["label"] = list(labels)
    features = LABELLED
    if domains is not None:
        columns["domain"] = domains
        features = Features({**LABELLED, "domain": ClassLabel(names=["print", "hand"])})
    return Dataset.from_dict(columns, features)


def shown(dataset):
    return [(np.array(row["image"])[0, 0].item(), row["label"]) for row in dataset]


def written(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_draws_are_those_of_the_published_procedure():
    """CoOp's own steps: seed the global generator, group in order of appearance, sample rows."""
    generator = np.random.default_rng(0)
    train, validation = generator.integers(5, size=300), generator.integers(5, size=90)
    for shots, seed in ((1, 1), (16, 1), (4, 2)):
        random.seed(seed)
        wanted = []
        for labels, count in ((train, shots), (validation, min(shots, 4))):
            groups = {}
            for row, label in enumerate(labels.tolist()):
                groups.setdefault(label, []).append((row, label))
            wanted.append([row for g in groups.values() for row, _ in random.sample(g, count)])
        assert draw_shots([(train, shots), (validation, min(shots, 4))], seed) == wanted


def test_known_draws():
    """The places, in the split of describable textures, of what was published for its first
    three classes of sixty."""
    labels = np.repeat(np.arange(3), 60)
    assert draw_shots([(labels, 1)], 1) == [[8, 96, 174]]
    assert draw_shots([(labels, 1)], 2) == [[55, 114, 123]]


def test_few_shots_validate_with_four_and_short_classes_are_named():
    pictures = Pictures(
        ("cat", "dog", "cow"),
        "a {}.",
        {"train": rows([0, 1, 2] * 6 + [0]), "validation": rows([2, 1, 0] * 5), "test": rows([1])},
    )
    few = pictures.few_shot(6, seed=1)
    assert [row["label"] for row in few.splits["train"]] == [0] * 6 + [1] * 6 + [2] * 6
    assert [row["label"] for row in few.splits["validation"]] == [2] * 4 + [1] * 4 + [0] * 4
    assert len(few.splits["test"]) == 1
    assert shown(pictures.few_shot(2, 1).splits["train"]) != shown(few.splits["train"])
    with pytest.raises(InputError, match=r"'dog' has 6 training pictures, fewer than the 7"):
        pictures.few_shot(7, seed=1)
    assert len(pictures.few_shot(7, seed=1, short="all").splits["train"]) == 19
    with pytest.raises(InputError, match="0 shots"):
        pictures.few_shot(0, seed=1)


def test_halves_are_numbered_anew_with_their_pictures():
    pictures = Pictures(
        tuple("abcde"),
        "{}",
        {"test": rows([4, 0, 3, 1, 2, 4])},
        captions=tuple(("letter", name) for name in "abcde"),
    )
    base, new = pictures.base(), pictures.new()
    assert (base.names, new.names) == (("a", "b", "c"), ("d", "e"))
    assert shown(base.splits["test"]) == [(1, 0), (3, 1), (4, 2)]
    assert shown(new.splits["test"]) == [(0, 1), (2, 0), (5, 1)]
    assert new.captions == (("letter", "d"), ("letter", "e"))
    turned = pictures.named(["e", "a"])
    assert shown(turned.splits["test"]) == [(0, 0), (1, 1), (5, 0)]
    with pytest.raises(InputError, match="'z' is no class"):
        pictures.named(["z"])
    with pytest.raises(InputError, match="1 class"):
        Pictures(("a", "b", "c"), "{}", {"test": rows([0])}).new()


def test_domains():
    pictures = Pictures(("a", "b"), "{}", {"test": rows([0, 1, 0], [1, 0, 1])})
    assert pictures.domains() == ("print", "hand")
    assert shown(pictures.of_domains(["hand"]).splits["test"]) == [(0, 0), (2, 0)]
    with pytest.raises(InputError, match="no picture comes from 'film'"):
        pictures.of_domains(["film"])
    assert Pictures(("a", "b"), "{}", {"test": rows([0])}).domains() == ()


def test_columns_of_numbers_are_those_of_the_rows_as_they_stand():
    whole = concatenate_datasets([rows([2, 0, 1], [1, 0, 1]), rows([1, 1], [0, 0])])
    for asked in (whole, whole.select([4, 0, 0, 2]), whole.select([]), whole.shuffle(seed=1)):
        for name in ("label", "domain"):
            found = number_column(asked, name)
            assert found.dtype == np.int64
            assert found.tolist() == list(asked[name])


def test_what_is_no_data_set():
    test = {"test": rows([0, 1])}
    for arguments, message in (
        ((("a",), "{}", test), "fewer than two"),
        ((("a", " "), "{}", test), "class 1 .*empty name"),
        ((("a", "b"), "none", test), "exactly one"),
        ((("a", "b"), "{}", {"dev": rows([0])}), "'dev' is no split"),
        ((("a", "b"), "{}", {"test": rows([0, 2])}), "label 2, but there are 2"),
        ((("a", "b"), "{}", {"test": rows([0]).remove_columns("label")}), "no column 'label'"),
    ):
        with pytest.raises(InputError, match=message):
            Pictures(*arguments)


NAMES = ["tabby_cat", "lynx"]


def split_file(folder, images=""):
    """A split of two classes, in an order of its own, and its pictures."""
    found = {}
    for key, count in (("train", 3), ("val", 1), ("test", 2)):
        found[key] = [
            [f"{name}/{key}{number}.png", label, name]
            for number in range(count)
            for label, name in reversed(list(enumerate(NAMES)))
        ]
    written(folder / images, {path: png() for split in found.values() for path, _, _ in split})
    return found


@pytest.mark.parametrize("name", [name for name, of in COOP_SETS.items() if of.split])
def test_coops_layout_of_data_sets_with_a_split_file(tmp_path, name):
    of = COOP_SETS[name]
    found = split_file(tmp_path / of.folder, of.images)
    (tmp_path / of.folder / f"split_zhou_{of.split}.json").write_text(json.dumps(found))
    pictures = load_labelled_pictures(CoopSettings(path=tmp_path, name=name))
    assert pictures.names == ("tabby cat", "lynx")
    assert pictures.template == of.template
    assert {split: len(data) for split, data in pictures.splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert [row["label"] for row in pictures.splits["train"]] == [1, 0] * 3


def test_coops_layout_of_aircraft(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    written(folder / "images", {f"{number}.jpg": png() for number in range(6)})
    written(folder, {"variants.txt": "707-320\nDC-3 B\n"})
    for key, numbers in (("train", (0, 1)), ("val", (2, 3)), ("test", (4, 5))):
        lines = f"{numbers[0]} DC-3 B\n{numbers[1]} 707-320\n"
        written(folder, {f"images_variant_{key}.txt": lines})
    pictures = load_labelled_pictures(CoopSettings(path=tmp_path, name="fgvc_aircraft"))
    assert pictures.names == ("707-320", "DC-3 B")
    assert [row["label"] for row in pictures.splits["validation"]] == [1, 0]
    written(folder, {"images_variant_val.txt": "2 Concorde\n"})
    with pytest.raises(InputError, match="line 1: 'Concorde' is no variant"):
        load_labelled_pictures(CoopSettings(path=tmp_path, name="fgvc_aircraft"))


def test_coops_layout_of_imagenet_and_its_variants(tmp_path):
    classes = "n01 tench\nn02 goldfish\nn03 great white shark\n"
    for name, inside in (
        ("imagenet", ["images/train", "images/val"]),
        ("imagenetv2", [COOP_SETS["imagenetv2"].images]),
        ("imagenet_sketch", ["images"]),
        ("imagenet_a", ["imagenet-a"]),
    ):
        folder = tmp_path / COOP_SETS[name].folder
        written(folder, {"classnames.txt": classes})
        folders = ["0", "1", "2"] if name == "imagenetv2" else ["n01", "n02", "n03"]
        folders = ["n01", "n03"] if name == "imagenet_a" else folders
        written(folder, {f"{part}/{one}/x.png": png() for part in inside for one in folders})
        pictures = load_labelled_pictures(CoopSettings(path=tmp_path, name=name))
        wanted = ("tench", "goldfish", "great white shark")
        assert pictures.names == (wanted[::2] if name == "imagenet_a" else wanted)
        assert list(pictures.splits) == (["train", "test"] if name == "imagenet" else ["test"])
        labels = [row["label"] for row in pictures.splits["test"]]
        assert labels == list(range(len(folders)))


def refused(settings, message):
    with pytest.raises(InputError, match=message):
        load_labelled_pictures(settings)


def test_wrong_split_files_are_named(tmp_path):
    file = tmp_path / "own.json"
    settings = SplitFileSettings(path=file, images=tmp_path / "p")
    found = split_file(tmp_path, "p")
    file.write_text(json.dumps(found))
    assert load_labelled_pictures(settings).names == ("tabby cat", "lynx")
    gaps = {"test": [["lynx/test0.png", 0, "lynx"], ["lynx/test1.png", 2, "tabby_cat"]]}
    for content, message in (
        (gaps, "no picture has the label 1"),
        ({"test": [["a.png", 0, "lynx"], ["b.png", 0, "cat"]]}, "'lynx' and 'cat'"),
        ({"test": [["a.png", 0, "lynx"], ["b.png", 1, "cat"]]}, "2 pictures that are missing"),
        ({"test": [["../a.png", 0, "lynx"]]}, "within"),
        ({"test": [["a.png", "0", "lynx"]]}, "'test', row 0: expected"),
        ({"test": {"a": 1}}, "row 0: expected"),
        ({"all": []}, "is no split"),
        ([], "is no split"),
    ):
        file.write_text(json.dumps(content))
        refused(settings, message)
    file.write_text(json.dumps(found))
    (tmp_path / "p/lynx/test0.png").write_bytes(b"no picture")
    refused(settings, "test0.png' is no image")
    unchecked = settings.model_copy(update={"check": False})
    assert len(load_labelled_pictures(unchecked).splits["test"]) == 4
    refused(CoopSettings(path=tmp_path, name="dtd"), "has no folder 'dtd'")


def test_folders_of_classes(tmp_path):
    for split in ("train", "val", "test"):
        written(tmp_path / split, {f"{n}/{split}.png": png() for n in ("tabby_cat", "lynx")})
    pictures = load_labelled_pictures(ClassFolderSettings(path=tmp_path))
    assert pictures.names == ("lynx", "tabby cat")
    assert {split: len(data) for split, data in pictures.splits.items()} == {
        "train": 2,
        "validation": 2,
        "test": 2,
    }
    unsplit = load_labelled_pictures(ClassFolderSettings(path=tmp_path / "train"))
    assert sum(map(len, unsplit.splits.values())) == 2
    written(tmp_path / "train", {f"lynx/{number}.png": png() for number in range(9)})
    several = load_labelled_pictures(ClassFolderSettings(path=tmp_path / "train"))
    counts = {s: sum(x["label"] == 0 for x in d) for s, d in several.splits.items()}
    assert counts == {"train": 5, "validation": 2, "test": 3}
    written(tmp_path / "test", {"puma/x.png": png()})
    refused(ClassFolderSettings(path=tmp_path), "class 'puma' has no pictures in the split train")
    (tmp_path / "test/empty").mkdir()
    refused(ClassFolderSettings(path=tmp_path), "empty' has no picture")


def test_tables(tmp_path):
    table = tmp_path / "t.csv"
    written(tmp_path, {f"{number}.png": png(number) for number in range(3)})
    table.write_text("image,label,split\n0.png,lynx,train\n1.png,cat,test\n2.png,cat,val\n")
    pictures = load_labelled_pictures(PictureTableSettings(path=table))
    assert pictures.names == ("cat", "lynx")
    assert shown(pictures.splits["train"]) == [(0, 1)]
    assert list(pictures.splits) == ["train", "validation", "test"]
    table.write_text("image,label,split\n0.png,lynx,train\n1.png,cat,rest\n")
    refused(PictureTableSettings(path=table), "line 3: 'rest' is no split")
    table.write_text("image,label\n0.png,lynx\n1.png,lynx\n")
    refused(PictureTableSettings(path=table), "fewer than two")


FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def test_sets_of_characters(own_cache):
    fonts = [
        str(FONTS / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif")
    ]
    glyphs = GlyphSettings(fonts=fonts, scripts=["Greek"], size=8, new=0.5, shifted=[])
    asked = CharacterSetSettings(
        of="Greek small letter", glyphs=glyphs, tested_in=1, classes=10, train_fonts=["*Sans*"]
    )
    pictures = load_labelled_pictures(asked)
    assert len(pictures.names) == 10
    assert all(name.startswith("Greek small letter") for name in pictures.names)
    assert tuple(path[-1] for path in pictures.captions) == pictures.names
    assert len(pictures.splits["train"]) == 20
    assert pictures.domains("train") == ("DejaVu Sans", "DejaVu Sans Bold")
    assert pictures.domains("test") == ("DejaVu Serif",)
    loaded = load_glyphs(glyphs)
    new = {row["name"] for row in loaded.classes if row["new"]}
    assert new.issuperset(pictures.names)
    letters = asked.model_copy(update={"only": "αβγ", "shown": "known"})
    names = character_set(loaded, letters).names
    assert names == tuple(f"Greek small letter {name}" for name in ("alpha", "beta", "gamma"))
    for change, message in (
        ({"of": "Greek letters"}, "is no caption"),
        ({"only": "ab"}, "'a' is no 'Greek small letter'"),
        ({"train_fonts": ["Papyrus"]}, "no font is called 'Papyrus'"),
        ({"train_fonts": ["*"]}, "leave no font to test"),
        ({"tested_in": 2}, "only 0 are in every"),
    ):
        with pytest.raises(InputError, match=message):
            character_set(loaded, asked.model_copy(update=change))


def test_handwriting(tmp_path):
    greek = {
        f"small/Greek/character{number:02}/{number:04}_01.png": png(size=(105, 105))
        for number in range(1, 25)
    }
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        for name, content in greek.items():
            archive.writestr(name, content)
    written(tmp_path / "unpacked", greek)
    for place in ("o.zip", "unpacked"):
        settings = OmniglotSettings(path=tmp_path / place, alphabets=["Greek"])
        pictures = load_labelled_pictures(settings)
        assert pictures.names[2] == "Greek small letter gamma"
        assert pictures.names[-1] == "Greek small letter omega"
        assert [row["label"] for row in pictures.splits["test"]] == list(range(24))
        assert pictures.domains() == ("handwriting",)
    refused(OmniglotSettings(path=tmp_path / "o.zip"), "has 0 letters of the alphabet Latin")
    (tmp_path / "o.zip").write_bytes(b"PK")
    refused(settings.model_copy(update={"path": tmp_path / "o.zip"}), "no zip file")
