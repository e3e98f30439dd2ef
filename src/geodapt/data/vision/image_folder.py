"""Labelled pictures of one's own: a folder per class, a table, or a split file like CoOp's."""

from functools import partial
from pathlib import Path
from typing import Any

from geodapt.data.table_files import cell, require_columns, table
from geodapt.data.text_files import existing, not_found
from geodapt.data.vision.labelled_files import labelled_files, split_by_chance, within
from geodapt.data.vision.pictures import SPLITS, Pictures
from geodapt.data.vision.settings import (
    ClassFolderSettings,
    PictureTableSettings,
    SplitFileSettings,
)
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.vision.images import IMAGE_SUFFIXES

SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training")},
    **{name: "validation" for name in ("val", "valid", "validation", "dev")},
    **{name: "test" for name in ("test", "testing")},
}
"""What folders and tables call the splits."""

Rows = dict[str, list[tuple[Path, int]]]


def load_class_folders(settings: ClassFolderSettings) -> Pictures:
    """A folder per class, within ``train``, ``val`` and ``test`` or without them.

    Without them, half of each class trains, a fifth validates and the rest tests. Classes are in
    the order of their folders' names, in which ``_`` becomes a space. Raises :class:`InputError`
    for a class that one split lacks, an empty class, and as
    :func:`~geodapt.data.vision.labelled_files.labelled_files` does.
    """
    root = existing(settings.path)
    if not root.is_dir():
        raise InputError(f"'{root}' is no folder; give one with a folder of pictures per class")
    named = [folder for folder in _folders(root) if folder.name.lower() in SPLIT_NAMES]
    parts: dict[str, list[tuple[Path, str]]] = {}
    for folder in named or [root]:
        split = SPLIT_NAMES[folder.name.lower()] if named else "all"
        if split in parts:
            raise InputError(f"'{root}' has two folders for the split {split}; rename one")
        parts[split] = _by_class(folder)
    classes = {split: sorted({name for _, name in rows}) for split, rows in parts.items()}
    names = next(iter(classes.values()))
    for split, found in classes.items():
        if odd := sorted(set(found) ^ set(names)):
            lacks = split if odd[0] not in found else next(iter(classes))
            raise InputError(
                f"'{root}': class '{odd[0]}' has no pictures in the split {lacks}; every split "
                "needs the same classes"
            )
    number = {name: label for label, name in enumerate(names)}
    rows: Rows = {
        split: [(path, number[name]) for path, name in found] for split, found in parts.items()
    }
    return _labelled(rows, [name.replace("_", " ") for name in names], settings, root)


def load_picture_table(settings: PictureTableSettings) -> Pictures:
    """A CSV, TSV, JSONL or Parquet table with a picture's path and its class's name in each row.

    Classes are in the order of their names. Raises :class:`InputError` with the line for an
    unknown split, and as :func:`~geodapt.data.vision.labelled_files.labelled_files` does.
    """
    file = existing(settings.path)
    folder = file.parent if settings.images is None else existing(settings.images)
    found: list[tuple[str, Path, str]] = []
    columns = [("data.image", settings.image), ("data.label", settings.label)]
    for place, row in table(file, "pictures and their classes", partial(require_columns, columns)):
        path = within(folder, str(cell(row, settings.image, place)), file)
        name = str(cell(row, settings.label, place)).strip()
        split = "all"
        if settings.split in row:
            word = str(cell(row, settings.split, place)).strip().lower()
            if word not in SPLIT_NAMES:
                raise InputError(f"{place}: '{word}' is no split; expected train, val or test")
            split = SPLIT_NAMES[word]
        found.append((split, path, name))
    if not found:
        raise InputError(f"{file} has no rows")
    names = sorted({name for _, _, name in found})
    number = {name: label for label, name in enumerate(names)}
    rows: Rows = {}
    for split, path, name in found:
        rows.setdefault(split, []).append((path, number[name]))
    return _labelled(rows, names, settings, file)


def load_split_file(settings: SplitFileSettings) -> Pictures:
    """The splits of a JSON file as CoOp writes them, in its order.

    ``{"train": [[path, label, name], ...], "val": ..., "test": ...}``. Raises
    :class:`InputError`, with the file, for a label of two names, labels with gaps, and as
    :func:`~geodapt.data.vision.labelled_files.labelled_files` does.
    """
    return read_split_file(
        existing(settings.path),
        existing(settings.images),
        settings.template,
        Path(settings.path).stem.removeprefix("split_zhou_"),
        settings.check,
    )


def read_split_file(file: Path, images: Path, template: str, title: str, check: bool) -> Pictures:
    """As :func:`load_split_file`, for a file and a folder that exist."""
    content = read_json(file)
    wanted = {"train": "train", "val": "validation", "test": "test"}
    if not isinstance(content, dict) or not set(wanted) >= set(content) or not content:
        raise InputError(f"{file} is no split: expected an object with {', '.join(wanted)}")
    names: dict[int, str] = {}
    rows: Rows = {}
    for key, split in wanted.items():
        for entry in _entries(content.get(key, []), file, key):
            path, label, name = entry
            if names.setdefault(label, name) != name:
                raise InputError(
                    f"{file}: label {label} is called '{names[label]}' and '{name}'; a label has "
                    "one class"
                )
            rows.setdefault(split, []).append((within(images, path, file), label))
    if gaps := [label for label in range(max(names, default=-1) + 1) if label not in names]:
        raise InputError(
            f"{file}: no picture has the label {gaps[0]}, but one has {max(names)}; labels must "
            "count from 0 without gaps"
        )
    classes = [names[label].replace("_", " ") for label in range(len(names))]
    return labelled_files(rows, classes, template, title, check, file)


def _entries(found: Any, file: Path, key: str) -> list[tuple[str, int, str]]:
    for number, entry in enumerate(found if isinstance(found, list) else [found]):
        right = isinstance(entry, list) and len(entry) == 3
        kinds = (str, int, str)
        if not right or not all(
            isinstance(value, kind) and not isinstance(value, bool)
            for value, kind in zip(entry, kinds, strict=True)
        ):
            raise InputError(
                f"{file}, '{key}', row {number}: expected [path, label, name], found "
                f"{str(entry)[:80]}"
            )
        if entry[1] < 0:
            raise InputError(f"{file}, '{key}', row {number}: the label {entry[1]} is negative")
    return [(path, label, name) for path, label, name in found]


def _labelled(
    rows: Rows, names: list[str], settings: ClassFolderSettings | PictureTableSettings, place: Path
) -> Pictures:
    if "all" in rows:
        splits = split_by_chance(rows["all"], settings.seed)
    else:
        splits = {split: rows[split] for split in SPLITS if split in rows}
    title = place.name if place.is_dir() else place.stem
    return labelled_files(splits, names, settings.template, title, settings.check, place)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _by_class(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of a folder of classes, each with its class's folder name."""
    if not (classes := _folders(folder)):
        raise not_found(folder, "folder of pictures per class")
    found = []
    for of_class in classes:
        pictures = picture_files(of_class)
        if not pictures:
            raise InputError(f"'{of_class}' has no picture: no {', '.join(IMAGE_SUFFIXES)} file")
        found += [(path, of_class.name) for path in pictures]
    return found


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder and those below, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path.name[0] != "."
    )
