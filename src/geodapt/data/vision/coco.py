"""Boxes and segments in COCO's JSON files, as published."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from geodapt.data.text_files import existing
from geodapt.data.vision.boxes import BoxCutter
from geodapt.data.vision.coco_settings import CocoBoxSettings, CocoPanopticSettings
from geodapt.data.vision.features import PictureClasses, PictureData, ReadableRows
from geodapt.data.vision.segments import read_segments
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.progress import track
from geodapt.vision.images import require_size


def load_coco_boxes(settings: CocoBoxSettings) -> PictureData:
    """The columns ``image`` and ``objects`` of a file like ``instances_val2017.json``.

    ``ids`` of the classes are COCO's category ids. ``notes`` say which pictures are missing or
    cannot be read, and are left out, how many have no box, and how many boxes were empty, and left
    out, or were cut to their picture.

    Raises :class:`InputError` for a file that is not COCO's, a box of an unknown category or
    picture, one that lies mostly outside its picture, and a picture of another size than the file
    says.
    """
    found = _read(settings.annotations, ("images", "annotations", "categories"))
    classes = _classes(found["categories"], settings.annotations)
    number = {identity: place for place, identity in enumerate(classes.ids)}
    sizes = {row["id"]: (row["width"], row["height"]) for row in found["images"]}
    boxes: dict[Any, list[tuple[list[float], int, bool]]] = defaultdict(list)
    cutter = BoxCutter()
    for row in found["annotations"]:
        called = f"annotation {row.get('id')} of '{settings.annotations}'"
        if row["image_id"] not in sizes:
            raise InputError(f"{called} is of picture {row['image_id']}, which the file lacks")
        if row["category_id"] not in number:
            raise InputError(f"{called} has the category {row['category_id']}, which it lacks")
        if inside := cutter.inside(row["bbox"], sizes[row["image_id"]], called):
            boxes[row["image_id"]].append(
                (inside, number[row["category_id"]], bool(row.get("iscrowd", 0)))
            )
    rows = ReadableRows(settings.annotations)
    for row in track(found["images"], "reading pictures", len(found["images"])):
        path, listed = settings.images / row["file_name"], sizes[row["id"]]
        if settings.check:
            if (size := rows.size(path)) is None:
                continue
            if size != listed:
                raise InputError(
                    f"picture '{path}' has {size[0]} x {size[1]} pixels (turned as its camera "
                    f"was), its list says {listed[0]} x {listed[1]}"
                )
        own = boxes[row["id"]]
        objects = {
            key: [one[k] for one in own] for k, key in enumerate(("bbox", "category", "crowd"))
        }
        rows.append({"image": str(path), "objects": objects})
    return rows.data(classes, cutter.notes(rows))


def load_coco_panoptic(settings: CocoPanopticSettings) -> PictureData:
    """The columns ``image``, ``segments`` and ``segments_info`` of a panoptic file and its PNGs.

    Categories with ``isthing: 0`` are stuff. ``notes`` say which pictures are missing or cannot be
    read, and are left out.

    Raises :class:`InputError` for a file that is not COCO's, a segment of an unknown category, and,
    where the set is checked, for a PNG that is missing, of another size than its picture, or shows
    an id that the file does not list.
    """
    found = _read(settings.annotations, ("annotations", "categories"))
    classes = _classes(found["categories"], settings.annotations)
    number = {identity: place for place, identity in enumerate(classes.ids)}
    names = {row["id"]: row["file_name"] for row in found.get("images", [])}
    rows = ReadableRows(settings.annotations)
    for row in track(found["annotations"], "reading segments", len(found["annotations"])):
        called = f"'{row['file_name']}' of '{settings.annotations}'"
        for segment in row["segments_info"]:
            if segment["category_id"] not in number:
                raise InputError(
                    f"{called} has the category {segment['category_id']}, which the file lacks"
                )
        info = {
            "id": [segment["id"] for segment in row["segments_info"]],
            "category": [number[segment["category_id"]] for segment in row["segments_info"]],
            "crowd": [bool(segment.get("iscrowd", 0)) for segment in row["segments_info"]],
        }
        # COCO's list of pictures and its annotations both name them; ADE20K's alike.
        name = names.get(row["image_id"], Path(row["file_name"]).with_suffix(".jpg").name)
        path, mask = settings.images / name, settings.masks / row["file_name"]
        if settings.check:
            if (size := rows.size(path)) is None:
                continue
            shape = read_segments(mask, info, classes, str(mask)).places.shape
            require_size(shape, size, f"segments '{mask}'", str(path), many=True)
        rows.append({"image": str(path), "segments": str(mask), "segments_info": info})
    return rows.data(classes, [])


def _read(path: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    found = read_json(existing(path))
    lacks = [part for part in parts if not isinstance(found, dict) or part not in found]
    if lacks:
        raise InputError(f"'{path}' is no file of COCO's: it has no '{lacks[0]}'")
    return found


def _classes(categories: list[dict[str, Any]], path: Path) -> PictureClasses:
    if not categories:
        raise InputError(f"'{path}' has no categories")
    stuff = tuple(place for place, row in enumerate(categories) if not row.get("isthing", 1))
    return PictureClasses(
        tuple(row["name"].strip() for row in categories),
        tuple(row["id"] for row in categories),
        stuff=stuff,
    )
