"""Folders of pictures, masks and class lists, and what does not keep their contract."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from geodapt.data.vision import (
    BACKGROUND,
    FEATURES,
    IGNORED,
    PictureClasses,
    PictureFolderSettings,
    check_pictures,
    load_picture_folder,
    read_class_list,
    read_segments,
)
from geodapt.errors import InputError
from geodapt.vision import open_mask, open_picture

NAMES = ("cat", "dog", "grass")


@pytest.fixture
def folder(tmp_path):
    """Four photos in two folders with masks beside them; 3 is background, 255 a border."""
    generator = np.random.default_rng(0)
    for number in range(4):
        name = f"{'ab'[number % 2]}/{number}"
        for kind in ("photos", "masks"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
        photo = generator.integers(256, size=(6 + number, 9, 3), dtype=np.uint8)
        Pillow.fromarray(photo).save(tmp_path / "photos" / f"{name}.jpg")
        mask = generator.integers(4, size=(6 + number, 9), dtype=np.uint8)
        mask[0] = 255
        Pillow.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return tmp_path


def settings(folder, **changes):
    given = {
        "images": folder / "photos",
        "masks": folder / "masks",
        "classes": folder / "classes.txt",
        "background": 3,
        **changes,
    }
    return PictureFolderSettings.model_validate(given)


def test_a_folder_keeps_the_contract(folder):
    data = load_picture_folder(settings(folder))
    assert data.notes == []
    assert data.classes.names == NAMES
    assert len(data.rows) == 4
    counts = check_pictures(data.rows, data.classes)
    wanted = np.zeros(3, dtype=int)
    for row in data.rows:
        mask = open_mask(row["mask"])
        assert open_picture(row["image"]).size == mask.shape[::-1]
        labels = data.classes.labels(mask)
        assert (labels[0] == IGNORED).all()
        assert ((mask == 3) == (labels == BACKGROUND)).all()
        for value in range(3):
            wanted[value] += (mask == value).sum()
            assert ((mask == value) == (labels == value)).all()
    assert counts.pixels.tolist() == wanted.tolist()
    assert counts.pictures == 4


def test_unreadable_pictures_are_said_and_left_out(folder):
    (folder / "photos" / "a" / "0.jpg").write_bytes(b"torn")
    Pillow.new("L", (2, 2)).save(folder / "masks" / "more.png")
    (folder / "classes.txt").write_text("cat\ndog\ngrass\nunknown bird\n")
    data = load_picture_folder(settings(folder, background=None))
    assert len(data.rows) == 3
    assert data.notes[0].startswith("1 pictures skipped: picture '")
    assert "0.jpg" in data.notes[0]
    assert data.notes[1] == "1 masks without a picture, such as 'more'"
    (folder / "classes.txt").write_text("cat\ndog\ngrass\nsnow\nunknown bird\n")
    assert load_picture_folder(settings(folder, background=None)).notes[-1] == (
        "1 classes in no mask, such as 'unknown bird'"
    )


def test_a_folder_that_was_checked_before_is_not_read(folder):
    whole = load_picture_folder(settings(folder))
    (folder / "photos" / "a" / "0.jpg").write_bytes(b"torn")
    again = load_picture_folder(settings(folder, check=False))
    assert again.rows.column_names == ["image", "mask"]
    assert len(again.rows) == len(whole.rows)
    assert again.notes == []
    with pytest.raises(InputError, match=r"0\.jpg' is no image"):
        check_pictures(again.rows, again.classes)


def test_pictures_alone(folder):
    data = load_picture_folder(PictureFolderSettings(images=folder / "photos"))
    assert data.rows.column_names == ["image"]
    assert data.classes is None
    assert len(data.rows) == 4


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("cat\ndog\nsea lion\n", None),
        ("1 cat\n7 dog\n4 sea lion\n", (1, 7, 4)),
        ("1: cat\n\n7: dog \n4: sea lion", (1, 7, 4)),
        ("1,cat\r\n7,dog\r\n4,sea lion\r\n", (1, 7, 4)),
    ],
)
def test_class_lists(tmp_path, text, ids):
    (tmp_path / "a.txt").write_text(text, newline="")
    names, found = read_class_list(tmp_path / "a.txt")
    assert names == ("cat", "dog", "sea lion")
    assert found == ids


def test_class_lists_in_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["cat", "dog"]))
    assert read_class_list(path) == (("cat", "dog"), None)
    path.write_text(json.dumps({"5": "cat", "2": "dog "}))
    assert read_class_list(path) == (("cat", "dog"), (5, 2))
    for broken, said in (
        ({}, "has no names"),
        (["cat", ""], "an empty name"),
        ({"x": "cat"}, "mask value 'x'"),
        (3, "has no names"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=said):
            read_class_list(path)
    (tmp_path / "b.txt").write_text("\n \n")
    with pytest.raises(InputError, match="has no names"):
        read_class_list(tmp_path / "b.txt")


def resize(folder):
    path = folder / "masks" / "b" / "1.png"
    with Pillow.open(path) as mask:
        mask.resize((3, 3)).save(path)


def turn(folder):
    """The photo says that its camera was turned; the mask lies as the pixels do."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    path = folder / "photos" / "b" / "1.jpg"
    with Pillow.open(path) as photo:
        photo.load()
        photo.save(path, exif=exif)


@pytest.mark.parametrize(
    ("spoil", "changes", "said"),
    [
        (resize, {}, r"1\.png' has 3 x 3 pixels, its picture '.*1\.jpg' 9 x 7"),
        (turn, {}, r"1\.png' has 9 x 7 pixels, its picture '.*1\.jpg' 7 x 9"),
        (None, {"background": None}, "has the value 3, which is no class: 3 classes have"),
        (None, {"ignored": []}, "has the value 255, which is no class"),
        (None, {"offset": 1}, "mask value 3 stands for two of"),
        (
            lambda folder: (folder / "masks" / "a" / "2.png").unlink(),
            {},
            r"2\.jpg' has no mask: .* has no picture called 'a/2', but 'a/0'",
        ),
        (
            lambda folder: (folder / "masks" / "a" / "2.png").write_bytes(b"x"),
            {},
            r"2\.png' is no image",
        ),
        (
            lambda folder: (folder / "classes.txt").write_text("1 cat\n1 dog\n"),
            {},
            "mask value 1 stands for two",
        ),
        (
            lambda folder: (folder / "classes.txt").write_text("0 cat\n1 dog\n"),
            {"offset": 1},
            "has mask values of its own",
        ),
        (
            lambda folder: Pillow.new("L", (2, 2)).save(folder / "photos" / "a" / "0.png"),
            {},
            "have one name",
        ),
        (lambda folder: (folder / "empty").mkdir(), {"images": "empty"}, "has no picture"),
        (None, {"masks": "nowhere"}, "does not exist"),
        (None, {"images": "classes.txt"}, "is no folder"),
    ],
)
def test_folders_that_are_wrong(folder, spoil, changes, said):
    if spoil is not None:
        spoil(folder)
    for name in ("images", "masks"):
        if name in changes:
            changes = {**changes, name: folder / changes[name]}
    with pytest.raises(InputError, match=said):
        load_picture_folder(settings(folder, **changes))


def test_masks_without_classes_are_refused(folder):
    with pytest.raises(ValueError, match="masks need classes"):
        PictureFolderSettings(images=folder / "photos", masks=folder / "masks")


def test_all_pictures_unreadable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no picture of .* can be read"):
        load_picture_folder(PictureFolderSettings(images=tmp_path))


# --- data sets of other origins -------------------------------------------------------------------


def boxes(bbox, category):
    picture = Pillow.new("RGB", (8, 6))
    features = Features({name: FEATURES[name] for name in ("image", "objects")})
    rows = [{"image": picture, "objects": {"bbox": bbox, "category": category}}]
    return Dataset.from_list(rows, features)


def test_boxes_alone_are_counted():
    classes = PictureClasses.numbered(NAMES)
    counts = check_pictures(boxes([[0, 0, 8, 6], [1, 1, 2, 2.4]], [2, 2]), classes)
    assert counts.boxes.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (boxes([[0, 0, 9, 6]], [0]), r"has the box \[0\.0, 0\.0, 9\.0, 6\.0\]; expected x, y"),
        (boxes([[0, 0, 0, 6]], [0]), "has the box"),
        (boxes([[-2, 0, 4, 4]], [0]), "has the box"),
        (boxes([[float("nan"), 0, 4, 4]], [0]), "has the box"),
        (boxes([[0, 0, 4, 4]], [3]), "a box of class 3, but there are 3 classes"),
        (boxes([[0, 0, 4, 4]], []), "1 boxes, but 0 categories"),
        (Dataset.from_dict({"image": ["a"]}), "needs the columns image and mask or objects"),
        (
            Dataset.from_dict({"image": ["a"], "mask": ["b"]}),
            "column '(image|mask)' is Value",
        ),
        (
            Dataset.from_dict(
                {"image": [None], "mask": [None]}, Features({"image": Image(), "mask": Image()})
            ),
            "row 0 has no picture",
        ),
        (
            Dataset.from_dict({"picture": ["a"]}, Features({"picture": Value("string")})),
            "it has picture",
        ),
    ],
)
def test_data_sets_that_do_not_keep_the_contract(rows, said):
    with pytest.raises(InputError, match=said):
        check_pictures(rows, PictureClasses.numbered(NAMES))


def panoptic(ids=(7, 300), category=(0, 2), crowd=(False, False)):
    return {"id": [*ids], "category": [*category], "crowd": [*crowd]}


def colours():
    """Segment 7 left, 300 right of it, and a column of no segment."""
    values = np.zeros((4, 6, 3), dtype=np.uint8)
    values[:, :2, 0] = 7
    values[:, 2:5] = 300 % 256, 300 // 256, 0
    return Pillow.fromarray(values)


def test_segments_of_colours_and_of_numbers():
    classes = PictureClasses.numbered(NAMES, stuff=(2,))
    found = read_segments(colours(), panoptic((5, 300, 7), (1, 2, 0), (0, 0, 1)), classes)
    assert found.places[0].tolist() == [1, 1, 0, 0, 0, -1]
    assert found.categories.tolist() == [2, 0]  # 5 has no pixel
    assert found.crowd.tolist() == [False, True]
    assert found.masks().sum((1, 2)).tolist() == [12, 8]
    grey = Pillow.fromarray(np.array([[0, 300], [7, 7]], dtype=np.uint16))
    again = read_segments(grey, panoptic(), classes)
    assert again.places.tolist() == [[-1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (panoptic((7,), (0,), (False,)), "show the id 300, which their list lacks"),
        (panoptic((7, 7)), "list the id 7 twice"),
        (panoptic((7, 0)), "list the id 0"),
        (panoptic(category=(0, 3)), "have the class 3, but there are 3 classes"),
        (panoptic(category=(0,)), "list 2 ids, 1 categories"),
        (panoptic(category=(2, 2)), "have two of 'grass', which is stuff"),
    ],
)
def test_segments_that_their_list_does_not_explain(info, said):
    with pytest.raises(InputError, match=said):
        read_segments(colours(), info, PictureClasses.numbered(NAMES, stuff=(2,)))


def test_segments_in_a_data_set():
    rows = [{"image": Pillow.new("RGB", (6, 4)), "segments": colours()}]
    rows[0]["segments_info"] = panoptic()
    names = ("image", "segments", "segments_info")
    data = Dataset.from_list(rows, Features({name: FEATURES[name] for name in names}))
    assert check_pictures(data, PictureClasses.numbered(NAMES)).segments.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="of the columns segments and segments_info there is one"):
        check_pictures(data.remove_columns("segments_info"), PictureClasses.numbered(NAMES))
    rows[0]["image"] = Pillow.new("RGB", (4, 6))
    turned = Dataset.from_list(rows, data.features)
    with pytest.raises(InputError, match="have 6 x 4 pixels, their picture 'row 0' 4 x 6"):
        check_pictures(turned, PictureClasses.numbered(NAMES))


def test_classes_that_contradict_themselves():
    assert PictureClasses.numbered(NAMES, offset=1, background=0).ids == (1, 2, 3)
    for arguments, said in (
        (((), ()), "there are no classes"),
        ((NAMES, (0, 1)), "3 classes have 2 mask values"),
        ((NAMES, (0, 1, 1)), "mask value 1 stands for two"),
        ((NAMES, (0, 1, 2), 2), "mask value 2 stands for two"),
        ((NAMES, (0, 1, 2), None, (-1,)), "mask value -1 is not from 0"),
        ((NAMES, (0, 1, 2**40)), "is not from 0"),
        ((NAMES, (0, 1, 2), None, (), (3,)), "class 3 is stuff, but there are 3 classes"),
    ):
        with pytest.raises(InputError, match=said):
            PictureClasses(*arguments)


def test_values_far_beyond_the_classes_are_refused_not_indexed():
    classes = PictureClasses.numbered(NAMES, ignored=(65535,))
    with pytest.raises(InputError, match="has the value 70000"):
        classes.labels(np.array([[0, 70000]]), "a.png")
    assert classes.labels(np.array([[1, 65535]])).tolist() == [[1, IGNORED]]
