"""Published segmentation data sets, each as a tiny copy of its layout."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from geodapt.data.vision import open_segmentation
from geodapt.data.vision.features import IGNORED
from geodapt.errors import InputError

SIDE = (6, 5)


def photo(path, size=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", size, "teal").save(path)


def mask(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.asarray(values)).save(path)


def grid(first, rest=None, kind=np.uint8):
    """A mask of the photo's size: ``first`` in its first row, ``rest`` below."""
    values = np.full((SIDE[1], SIDE[0]), first if rest is None else rest, dtype=kind)
    values[0] = first
    return values


def only(data):
    assert len(data) == 1
    image, labels = data[0]
    assert labels.shape == (image.height, image.width)
    return labels


@pytest.mark.parametrize("folder", ["annotations", "stuffthingmaps", "annotations_detectron2"])
def test_coco_stuff(tmp_path, folder):
    photo(tmp_path / "images" / "val2017" / "7.jpg")
    prepared = folder == "annotations_detectron2"
    # Published masks have COCO's id minus 1: toothbrush is 90, wood the last stuff, 182.
    values = grid(79 if prepared else 89, 170 if prepared else 181)
    values[1] = 255
    mask(tmp_path / folder / "val2017" / "7.png", values)
    data = open_segmentation(tmp_path)
    assert "COCO-Stuff-164k" in data.edition
    assert ("prepared" in data.edition) == prepared
    assert len(data.names) == 171
    labels = only(data)
    assert data.names[labels[0, 0]] == "toothbrush"
    assert data.names[labels[4, 0]] == "wood"
    assert (labels[1] == IGNORED).all()
    # The id 12, "street sign", was never annotated.
    mask(tmp_path / folder / "val2017" / "7.png", grid(254 if prepared else 11))
    with pytest.raises(InputError, match=r"7\.png' has the value (254|11), which means nothing"):
        open_segmentation(tmp_path)[0]
    with pytest.raises(InputError, match=r"has no annotations/train2017"):
        open_segmentation(tmp_path, "train")


@pytest.mark.parametrize("prepared", [False, True])
def test_ade20k_150(tmp_path, prepared):
    photo(tmp_path / "images" / "validation" / "ADE_val_1.jpg")
    folder = "annotations_detectron2" if prepared else "annotations"
    values = grid(0 if not prepared else 255, 149 if prepared else 150)
    mask(tmp_path / folder / "validation" / "ADE_val_1.png", values)
    rows = "".join(f"{k}\t0.1\t1\t1\tname {k} \n" for k in range(1, 151))
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + rows)
    data = open_segmentation(tmp_path)
    assert data.edition.startswith("ADE20K-150, validation")
    assert data.names[149] == "name 150"  # without the blank that is published behind one
    labels = only(data)
    assert (labels[0] == IGNORED).all()
    assert (labels[1:] == 149).all()
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n")
    with pytest.raises(InputError, match="names 1 classes; expected 150"):
        open_segmentation(tmp_path)


def test_ade20k_full_reads_ids_from_two_channels(tmp_path):
    scene = tmp_path / "images" / "ADE" / "validation" / "urban" / "street"
    photo(scene / "ADE_val_1.jpg")
    colours = np.zeros((SIDE[1], SIDE[0], 3), dtype=np.uint8)
    colours[0] = (110, 2978 - 11 * 256, 77)  # wall, 2978, of instance 77
    mask(scene / "ADE_val_1_seg.png", colours)
    with pytest.raises(InputError, match="only a list says which are the 847"):
        open_segmentation(tmp_path)
    (tmp_path / "classes.txt").write_text("312: building, edifice\n2978: wall\n")
    data = open_segmentation(tmp_path)
    assert data.names == ("building, edifice", "wall")
    labels = only(data)
    assert (labels[0] == 1).all()
    assert (labels[1:] == IGNORED).all()


@pytest.fixture
def voc(tmp_path):
    home = tmp_path / "VOCdevkit" / "VOC2012"
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\nb\n")
    for name, values in (("a", grid(255, 20)), ("b", grid(0))):
        photo(home / "JPEGImages" / f"{name}.jpg")
        path = home / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        picture = Pillow.fromarray(values).convert("P")
        picture.putdata(values.flatten().tolist())
        picture.putpalette([k % 256 for k in range(768)])
        picture.save(path)
    return tmp_path


def test_voc_20_ignores_the_background(voc):
    data = open_segmentation(voc)
    assert data.edition == "Pascal VOC 2012, 20 classes, validation, SegmentationClass"
    assert data.notes == ["1 pictures without a class left out"]
    labels = only(data)
    assert (labels[0] == IGNORED).all()
    assert data.names[labels[1, 0]] == "tvmonitor"
    assert data.asked == list(data.names)


def test_voc_20b_asks_for_the_context_too(voc):
    data = open_segmentation(voc, edition="voc-20b")
    assert len(data) == 2
    assert data.names[20] == "background"
    assert (data[1][1] == 20).all()
    assert len(data.asked) == 59
    assert "background" not in data.asked
    answers = data.answers(np.array([[0, 19, 20, 58]]))
    assert answers.tolist() == [[0, 19, 20, 20]]
    with pytest.raises(InputError, match=r"no '.*train\.txt'"):
        open_segmentation(voc, "train")


@pytest.fixture
def context(tmp_path):
    home = tmp_path / "VOC2010"
    for name in ("2008_000001", "2008_000002"):
        photo(home / "JPEGImages" / f"{name}.jpg")
    return home


def test_context_59_decodes_run_lengths(context):
    coder = pytest.importorskip("faster_coco_eval.core.mask")
    shape = (SIDE[1], SIDE[0])

    def runs(row):
        part = np.zeros(shape, dtype=np.uint8, order="F")
        part[row] = 1
        found = coder.encode(part)
        return {"size": list(shape), "counts": found["counts"].decode()}

    rows = [(458, 0), (2, 1), (3, 2)]  # wood, aeroplane, and one of the other 400
    merged = {
        "images": [
            {"image_id": 1, "file_name": "2008_000001.jpg", "phase": "val"},
            {"image_id": 2, "file_name": "2008_000002.jpg", "phase": "train"},
        ],
        "annos_segmentation": [
            {"image_id": 1, "category_id": number, "mask": runs(row)} for number, row in rows
        ],
    }
    (context / "trainval_merged.json").write_text(json.dumps(merged))
    data = open_segmentation(context.parent)
    assert len(data.names) == 59
    labels = only(data)
    assert data.names[labels[0, 0]] == "wood"
    assert data.names[labels[1, 0]] == "aeroplane"
    assert (labels[2:] == IGNORED).all()
    with pytest.raises(InputError, match="has no masks"):
        open_segmentation(context.parent, "train")[0]
    (context / "trainval_merged.json").write_text("{}")
    with pytest.raises(InputError, match="no file of Pascal Context: images: Field required"):
        open_segmentation(context.parent)


def test_context_459_reads_matlab_files(context):
    from scipy.io import savemat

    (context / "labels.txt").write_text("".join(f"{k}: name {k}\n" for k in range(1, 460)))
    (context / "trainval").mkdir()
    savemat(context / "trainval" / "2008_000001.mat", {"LabelMap": grid(1, 459, np.uint16)})
    lists = context / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2008_000001\n2008_000002\n")
    data = open_segmentation(context.parent)
    labels = only(data)
    assert len(data.names) == 459
    assert (labels[0] == 0).all()
    assert (labels[1:] == 458).all()
    savemat(context / "trainval" / "2008_000001.mat", {"LabelMap": grid(0, 1, np.uint16)})
    with pytest.raises(InputError, match="expected 1 to 459"):
        data[0]


def test_any_folder_with_splits(tmp_path):
    for split, value in (("train", 0), ("validation", 1)):
        photo(tmp_path / "images" / split / "x.png")
        mask(tmp_path / "masks" / split / "x.png", grid(value, 255))
    with pytest.raises(InputError, match=r"has no classes\.txt"):
        open_segmentation(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog, puppy\n")
    for split, value in (("train", 0), ("validation", 1)):
        labels = only(open_segmentation(tmp_path, split))
        assert (labels[0] == value).all()
        assert (labels[1:] == IGNORED).all()


def test_what_is_no_data_set(tmp_path, voc):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data set that is known: expected one of ade20k-150"):
        open_segmentation(tmp_path / "empty")
    with pytest.raises(InputError, match="does not look like coco-stuff"):
        open_segmentation(voc, edition="coco-stuff")
    photo(voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg", (3, 3))
    with pytest.raises(InputError, match=r"has 6 x 5 pixels, the picture 3 x 3"):
        open_segmentation(voc)[0]
