"""COCO's JSON, YOLO's text files and panoptic PNGs, as published, right or refused."""

import json

import numpy as np
import pytest
from PIL import Image

from geodapt.data.vision import (
    CocoBoxSettings,
    CocoPanopticSettings,
    YoloSettings,
    check_pictures,
    load_coco_boxes,
    load_coco_panoptic,
    load_yolo,
    read_segments,
)
from geodapt.data.vision.coco_settings import BASE, NOVEL
from geodapt.errors import InputError

CATEGORIES = [
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 17, "name": "cat", "isthing": 1},
    {"id": 184, "name": "tree-merged", "isthing": 0},
]


@pytest.fixture
def coco(tmp_path):
    """Three pictures of 20 x 10: two boxes, a crowd; nothing; one box and an empty one."""
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"images/{number:012}.jpg")
    annotations = [
        {"id": 5, "image_id": 1, "category_id": 17, "bbox": [1, 1, 4, 4], "iscrowd": 0},
        {"id": 6, "image_id": 1, "category_id": 3, "bbox": [10.5, 2, 9.6, 8], "iscrowd": 0},
        {"id": 7, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 10], "iscrowd": 1},
        {"id": 8, "image_id": 3, "category_id": 17, "bbox": [2, 2, 3, 3], "iscrowd": 0},
        {"id": 9, "image_id": 3, "category_id": 17, "bbox": [2, 2, 0, 3], "iscrowd": 0},
    ]
    images = [{"id": n, "file_name": f"{n:012}.jpg", "width": 20, "height": 10} for n in (1, 2, 3)]
    write(tmp_path, images=images, annotations=annotations, categories=CATEGORIES[:2])
    return tmp_path


def write(folder, **parts):
    (folder / "boxes.json").write_text(json.dumps(parts))


def change(folder, **changes):
    parts = json.loads((folder / "boxes.json").read_text())
    write(folder, **{**parts, **changes})


def boxes(folder):
    return load_coco_boxes(
        CocoBoxSettings(images=folder / "images", annotations=folder / "boxes.json")
    )


def test_coco_boxes(coco):
    data = boxes(coco)
    assert data.classes.names == ("car", "cat")
    assert data.classes.ids == (3, 17)
    first = data.rows[0]["objects"]
    assert first["category"] == [1, 0, 0]
    assert first["crowd"] == [False, False, True]
    assert np.allclose(first["bbox"][1], [10.5, 2, 9.5, 8])  # cut by a tenth of a pixel
    assert data.rows[1]["objects"]["bbox"] == []
    assert data.notes == [
        "1 pictures without boxes",
        "1 boxes without width or height, left out",
        "1 boxes cut to their picture",
    ]
    assert check_pictures(data.rows, data.classes).boxes.tolist() == [2, 2]


def test_missing_and_unreadable_pictures_are_said(coco):
    (coco / "images" / "000000000001.jpg").unlink()
    (coco / "images" / "000000000002.jpg").write_bytes(b"torn")
    data = boxes(coco)
    assert len(data.rows) == 1
    assert data.notes[0].startswith("2 pictures skipped: picture '")
    (coco / "images" / "000000000003.jpg").unlink()
    with pytest.raises(InputError, match=r"no picture of .* can be read"):
        boxes(coco)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"category_id": 4}, "annotation 1 of .* has the category 4, which it lacks"),
        ({"image_id": 77}, "is of picture 77, which the file lacks"),
        ({"bbox": [15, 5, 18, 9]}, "lies outside its picture of 20 x 10"),
        ({"bbox": [25, 2, 3, 3]}, "lies outside its picture"),
        ({"bbox": None}, r"no file of COCO's: annotations\.0\.bbox: "),
        ({"bbox": [25, 2, "x", 3]}, r"annotations\.0\.bbox\.2: "),
        ({"image_id": None}, r"annotations\.0\.image_id"),
        (
            {"bbox": [float("nan"), 2, 3, 3]},
            r"annotations\.0\.bbox\.0: Input should be a finite number",
        ),
    ],
)
def test_boxes_that_are_wrong_are_refused(coco, row, said):
    whole = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], **row}
    change(coco, annotations=[whole])
    with pytest.raises(InputError, match=said):
        boxes(coco)


def test_files_that_are_not_cocos(coco):
    change(coco, images=[{"id": 1, "file_name": "000000000001.jpg", "width": 10, "height": 20}])
    change(coco, annotations=[])
    with pytest.raises(InputError, match=r"has 20 x 10 pixels .* its list says 10 x 20"):
        boxes(coco)
    change(coco, categories=[])
    with pytest.raises(InputError, match="has no categories"):
        boxes(coco)
    write(coco, images=[])
    with pytest.raises(InputError, match="no file of COCO's: annotations: Field required"):
        boxes(coco)
    (coco / "boxes.json").write_text("[1]")
    with pytest.raises(InputError, match="no file of COCO's"):
        boxes(coco)


@pytest.mark.parametrize("name", ["../boxes.json", "/etc/hostname"])
def test_pictures_lie_in_their_folder(coco, name):
    change(coco, images=[{"id": 1, "file_name": name, "width": 10, "height": 20}], annotations=[])
    with pytest.raises(InputError, match="expected a path within"):
        boxes(coco)


def test_annotations_may_be_larger_than_other_json(coco, monkeypatch):
    monkeypatch.setattr("geodapt.files.LARGEST_JSON", 10)
    assert len(boxes(coco).rows) == 3


def test_cocos_split():
    assert len(BASE) == len(set(BASE)) == 48
    assert len(NOVEL) == len(set(NOVEL)) == 17
    assert not {*BASE} & {*NOVEL}


@pytest.fixture
def yolo(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name in "abc":
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n\n0 0.1 0.1 0.3 0.2\n")
    (tmp_path / "labels" / "b.txt").write_text("0 0.1 0.2 0.5 0.2 0.3 0.8\n")
    (tmp_path / "classes.txt").write_text("dog\nball\n")
    return tmp_path


def shares(folder, classes="classes.txt"):
    return load_yolo(
        YoloSettings(images=folder / "images", labels=folder / "labels", classes=folder / classes)
    )


def test_yolo_boxes_and_polygons(yolo):
    data = shares(yolo)
    assert data.classes.names == ("dog", "ball")
    a, b, c = (row["objects"] for row in data.rows)
    assert np.allclose(a["bbox"], [[10, 5, 20, 10], [0, 0, 10, 4]], atol=1e-4)
    assert a["category"] == [1, 0]
    assert np.allclose(b["bbox"], [[4, 4, 16, 12]], atol=1e-4)
    assert c["bbox"] == []
    assert data.notes == ["1 pictures without boxes", "1 boxes cut to their picture"]
    assert check_pictures(data.rows, data.classes).boxes.tolist() == [2, 1]
    (yolo / "data.yaml").write_text("path: x\nnames:\n  0: dog\n  1: ball\n")
    assert shares(yolo, "data.yaml").classes.names == ("dog", "ball")


def test_yolo_files_with_a_byte_order_mark(yolo):
    plain = shares(yolo)
    (yolo / "data.yaml").write_text("names: [dog, ball]\n")
    for path in (yolo / "data.yaml", yolo / "classes.txt", *(yolo / "labels").iterdir()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for classes in ("classes.txt", "data.yaml"):
        marked = shares(yolo, classes)
        assert marked.classes.names == ("dog", "ball")
        assert [row["objects"] for row in marked.rows] == [row["objects"] for row in plain.rows]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.5 0.5", "a.txt', line 1: class 2, but there are 2, counted from 0"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5"),
        ("0 10 5 20 10", "no shares of the picture"),
        ("0 1.4 0.5 0.1 0.5", "lies outside its picture"),
        ("0 0.5 0.5 0.5", "has 3 numbers after the class"),
        ("dog 0.5 0.5 0.5 0.5", "is no row of numbers"),
    ],
)
def test_yolo_lines_that_are_wrong_are_refused(yolo, line, said):
    (yolo / "labels" / "a.txt").write_text(line)
    with pytest.raises(InputError, match=said):
        shares(yolo)


def test_yolo_folders_that_do_not_fit(yolo):
    (yolo / "data.yaml").write_text("nc: 2\n")
    with pytest.raises(InputError, match="has no list 'names'"):
        shares(yolo, "data.yaml")
    (yolo / "numbers.txt").write_text("1 dog\n2 ball\n")
    with pytest.raises(InputError, match="numbers other than 0 to 1 in order"):
        shares(yolo, "numbers.txt")
    for file in (yolo / "labels").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"no text file for any picture; expected 'a\.txt'"):
        shares(yolo)


@pytest.fixture
def panoptic(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "000000000009.jpg")
    values = np.zeros((4, 6, 3), dtype=np.uint8)
    values[:, :3] = 70000 % 256, 70000 // 256 % 256, 70000 // 65536
    values[:2, 3:, 0] = 9
    Image.fromarray(values).save(tmp_path / "masks" / "000000000009.png")
    write_segments(tmp_path, [(70000, 184), (9, 17)])
    return tmp_path


def write_segments(folder, pairs):
    rows = [
        {
            "image_id": 9,
            "file_name": "000000000009.png",
            "segments_info": [
                {"id": one, "category_id": category, "iscrowd": 0} for one, category in pairs
            ],
        }
    ]
    parts = {"annotations": rows, "categories": CATEGORIES}
    (folder / "panoptic.json").write_text(json.dumps(parts))


def segments(folder):
    return load_coco_panoptic(
        CocoPanopticSettings(
            images=folder / "images",
            annotations=folder / "panoptic.json",
            masks=folder / "masks",
        )
    )


def test_panoptic_segments(panoptic):
    data = segments(panoptic)
    assert data.classes.stuff == (2,)
    row = data.rows[0]
    found = read_segments(row["segments"], row["segments_info"], data.classes)
    assert found.categories.tolist() == [2, 1]
    assert found.places[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert found.places[3].tolist() == [0, 0, 0, -1, -1, -1]
    assert check_pictures(data.rows, data.classes).segments.tolist() == [0, 1, 1]


def test_panoptic_files_that_do_not_explain_their_pngs(panoptic):
    write_segments(panoptic, [(70000, 184)])
    with pytest.raises(InputError, match=r"000000000009\.png' show the id 9, which their list"):
        segments(panoptic)
    write_segments(panoptic, [(70000, 184), (9, 5)])
    with pytest.raises(InputError, match="has the category 5, which the file lacks"):
        segments(panoptic)
    write_segments(panoptic, [(70000, 184), (9, None)])
    with pytest.raises(InputError, match=r"annotations\.0\.segments_info\.1\.category_id: "):
        segments(panoptic)
    write_segments(panoptic, [(70000, 184), (9, 17)])
    Image.new("RGB", (4, 6)).save(panoptic / "images" / "000000000009.jpg")
    with pytest.raises(InputError, match="have 6 x 4 pixels, their picture"):
        segments(panoptic)
    (panoptic / "images" / "000000000009.jpg").unlink()
    with pytest.raises(InputError, match="no picture of"):
        segments(panoptic)
