"""Boxes in YOLO's text files: a class number and shares of the picture on each line."""

from pathlib import Path
from typing import Any

import yaml

from geodapt.data.text_files import existing
from geodapt.data.vision.boxes import BoxCutter
from geodapt.data.vision.coco_settings import YoloSettings
from geodapt.data.vision.features import PictureClasses, PictureData, ReadableRows
from geodapt.data.vision.folder import files_by_name, read_class_list
from geodapt.errors import InputError
from geodapt.progress import track

Row = tuple[int, list[float]]


def load_yolo(settings: YoloSettings) -> PictureData:
    """The columns ``image`` and ``objects`` of pictures with text files of the same names.

    A line is a class number and the middle's x and y, the width and the height, as shares of the
    picture; or a class number and a polygon's corners, whose box is taken. A picture without a file
    shows nothing, as YOLO has it. ``notes`` say which pictures cannot be read, and are left out,
    how many show nothing, and how many boxes were empty, and left out, or were cut.

    Raises :class:`InputError`, with the file and line, for anything else, for a number that is no
    class, and for a box that lies mostly outside its picture.
    """
    classes = PictureClasses.numbered(_names(settings.classes))
    pictures = files_by_name(existing(settings.images), "images")
    labels = existing(settings.labels)
    rows, cutter, files = ReadableRows(settings.images), BoxCutter(), 0
    for name, path in track(pictures.items(), "reading pictures", len(pictures)):
        if (size := rows.size(path)) is None:
            continue
        file = labels / f"{name}.txt"
        boxes, categories = [], []
        files += file.is_file()
        for category, box in _boxes(file, size, len(classes.names)) if file.is_file() else []:
            if inside := cutter.inside(box, size, f"'{file}'"):
                boxes.append(inside)
                categories.append(category)
        objects = {"bbox": boxes, "category": categories, "crowd": [False] * len(boxes)}
        rows.append({"image": str(path), "objects": objects})
    if rows and not files:
        raise InputError(
            f"'{labels}' has no text file for any picture; expected '{next(iter(pictures))}.txt'"
        )
    return rows.data(classes, cutter.notes(rows))


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix not in {".yaml", ".yml"}:
        names, ids = read_class_list(path)
        if ids is not None and ids != tuple(range(len(names))):
            raise InputError(
                f"class list '{path}' has numbers other than 0 to {len(names) - 1} in order"
            )
        return names
    try:
        found = yaml.safe_load(existing(path).read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"class list '{path}' is no YAML: {error}") from error
    given: Any = found.get("names") if isinstance(found, dict) else None
    if isinstance(given, dict) and list(given) == list(range(len(given))):
        given = list(given.values())
    if not isinstance(given, list) or not given:
        raise InputError(f"'{path}' has no list 'names' of the classes in order")
    return tuple(str(name) for name in given)


def _boxes(file: Path, size: tuple[int, int], classes: int) -> list[Row]:
    """The class and the box in pixels of each line."""
    found: list[Row] = []
    try:
        written = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' is no text") from error
    for number, line in enumerate(written, 1):
        if not line.strip():
            continue
        called = f"'{file}', line {number}"
        try:
            first, *values = (float(value) for value in line.split())
        except ValueError as error:
            raise InputError(f"{called}: '{line.strip()[:60]}' is no row of numbers") from error
        if first != int(first) or not 0 <= first < classes:
            raise InputError(f"{called}: class {first:g}, but there are {classes}, counted from 0")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise InputError(
                f"{called} has {len(values)} numbers after the class; expected x, y, width, height "
                "or a polygon"
            )
        if any(not -0.5 <= value <= 1.5 for value in values):
            raise InputError(
                f"{called} has values that are no shares of the picture, which are 0 to 1"
            )
        if len(values) == 4:
            x, y, width, height = values
            left, top = x - width / 2, y - height / 2
        else:
            left, top = min(values[::2]), min(values[1::2])
            width, height = max(values[::2]) - left, max(values[1::2]) - top
        box = [left * size[0], top * size[1], width * size[0], height * size[1]]
        found.append((int(first), box))
    return found
