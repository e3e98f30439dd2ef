"""Any folder of pictures, with masks of the same names and a list of classes."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from geodapt.data.text_files import existing, lines
from geodapt.data.vision.checks import count_pixels
from geodapt.data.vision.features import PictureClasses, PictureData, ReadableRows
from geodapt.data.vision.settings import PictureFolderSettings
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.progress import track
from geodapt.vision.images import IMAGE_SUFFIXES

NUMBERED = re.compile(r"\s*(\d+)\s*[:,;\t ]\s*(.*\S)\s*")


def load_picture_folder(settings: PictureFolderSettings) -> PictureData:
    """The pictures of a folder with the masks of the same names.

    The data set holds paths, so that memory does not grow with the pictures. ``notes`` say which
    pictures cannot be read, and are left out, which masks have no picture, and which classes are in
    no mask. Raises :class:`InputError` for a folder without pictures, a picture without its mask,
    and as :func:`~geodapt.data.vision.checks.check_pictures` does.
    """
    pictures = files_by_name(existing(settings.images), "images")
    masks = {} if settings.masks is None else files_by_name(existing(settings.masks), "masks")
    classes = None if settings.classes is None else _classes(settings)
    pixels = np.zeros(len(classes.names) if classes else 0, dtype=np.int64)
    rows = ReadableRows(settings.images)
    for name, path in track(pictures.items(), "reading pictures", len(pictures)):
        if masks and name not in masks:
            raise InputError(
                f"picture '{path}' has no mask: '{settings.masks}' has no picture called '{name}', "
                f"but '{next(iter(masks))}'; leave the picture out, or rename its mask"
            )
        row = {"image": str(path)} | ({"mask": str(masks[name])} if masks else {})
        if settings.check:
            if (size := rows.size(path)) is None:
                continue
            if masks and classes:
                pixels += count_pixels(masks[name], row["mask"], row["image"], size, classes)
        rows.append(row)
    notes = []
    if alone := [name for name in masks if name not in pictures]:
        notes.append(f"{len(alone):,} masks without a picture, such as '{alone[0]}'")
    absent = [n for n in np.flatnonzero(pixels == 0) if masks and settings.check]
    if classes and absent:
        notes.append(f"{len(absent):,} classes in no mask, such as '{classes.names[absent[0]]}'")
    return rows.data(classes, notes)


def read_class_list(path: Path | str) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """The names of classes in a file, and their mask values where it has them.

    A text file has a name per line, or a value and a name in every line (``12 cat``, ``12: cat``,
    ``12,cat``). A JSON file has a list of names, or an object of values to names. Raises
    :class:`InputError` for an empty list and for a value that stands twice.
    """
    path = existing(path)
    pairs = _json_pairs(path) if path.suffix == ".json" else _text_pairs(path)
    names = [name.strip() if isinstance(name, str) else "" for _, name in pairs]
    if not names or not all(names):
        raise InputError(
            f"class list '{path}' has {'an empty name' if names else 'no names'}; expected a name "
            'per line, "value name" per line, or JSON of either'
        )
    if pairs[0][0] is None:
        return tuple(names), None
    if not all(str(value).isdigit() for value, _ in pairs):
        wrong = next(value for value, _ in pairs if not str(value).isdigit())
        raise InputError(f"class list '{path}': mask value '{wrong}' is no whole number")
    return tuple(names), tuple(int(value) for value, _ in pairs)


def _json_pairs(path: Path) -> list[tuple[Any, Any]]:
    found = read_json(path)
    if isinstance(found, dict):
        return list(found.items())
    return [(None, name) for name in found] if isinstance(found, list) else []


def _text_pairs(path: Path) -> list[tuple[Any, Any]]:
    written = [line for _, line in lines(path) if line.strip()]
    matches = [NUMBERED.fullmatch(line) for line in written]
    if all(matches):
        return [(match[1], match[2]) for match in matches if match]
    return [(None, line) for line in written]


def _classes(settings: PictureFolderSettings) -> PictureClasses:
    names, ids = read_class_list(str(settings.classes))
    if ids is not None and settings.offset:
        raise InputError(
            f"class list '{settings.classes}' has mask values of its own; leave offset out"
        )
    ids = ids or tuple(range(settings.offset, settings.offset + len(names)))
    # Values are ignored by default, so a list that names one of them is right.
    asked = "ignored" in settings.model_fields_set
    ignored = tuple(value for value in settings.ignored if asked or value not in ids)
    return PictureClasses(names, ids, settings.background, ignored)


def files_by_name(folder: Path, what: str) -> dict[str, Path]:
    """The picture files in a folder and below, by their path without suffix, sorted."""
    if not folder.is_dir():
        raise InputError(f"{what} '{folder}' is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{what}: '{found[name]}' and '{path}' have one name; rename one")
        found[name] = path
    if not found:
        raise InputError(f"{what} '{folder}' has no picture: no {', '.join(IMAGE_SUFFIXES)} file")
    return found
