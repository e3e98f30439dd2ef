"""Boxes and segments in COCO's JSON files, as published."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import FiniteFloat

from geodapt.data.vision.annotation_files import read_annotations
from geodapt.data.vision.boxes import BoxCutter
from geodapt.data.vision.coco_settings import CocoBoxSettings, CocoPanopticSettings
from geodapt.data.vision.features import PictureClasses, PictureData, ReadableRows
from geodapt.data.vision.labelled_files import within
from geodapt.data.vision.segments import read_segments
from geodapt.errors import InputError
from geodapt.progress import track
from geodapt.vision.images import require_size

Identity = int | str
"""COCO's pictures have numbers, ADE20K's names."""


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """A class."""

    id: int
    name: str
    isthing: int = 1


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """A picture whose boxes are listed."""

    id: Identity
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CocoBox:
    """An object; ``bbox`` is x, y, width, height in pixels."""

    image_id: Identity
    category_id: int
    bbox: list[FiniteFloat]
    id: int | None = None
    iscrowd: int = 0


@dataclass(frozen=True, slots=True)
class CocoBoxes:
    """A file like ``instances_val2017.json``."""

    images: list[CocoPicture]
    annotations: list[CocoBox]
    categories: list[CocoCategory]


@dataclass(frozen=True, slots=True)
class CocoSegment:
    """A segment of a picture, by its id in the PNG."""

    id: int
    category_id: int
    iscrowd: int = 0


@dataclass(frozen=True, slots=True)
class CocoSegments:
    """The PNG of a picture."""

    image_id: Identity
    file_name: str
    segments_info: list[CocoSegment]


@dataclass(frozen=True, slots=True)
class CocoPictureName:
    """A picture whose segments are listed."""

    id: Identity
    file_name: str


@dataclass(frozen=True, slots=True)
class CocoPanoptic:
    """A file like ``panoptic_val2017.json``."""

    annotations: list[CocoSegments]
    categories: list[CocoCategory]
    images: list[CocoPictureName] = field(default_factory=list)


def load_coco_boxes(settings: CocoBoxSettings) -> PictureData:
    """The columns ``image`` and ``objects`` of a file like ``instances_val2017.json``.

    ``ids`` of the classes are COCO's category ids. ``notes`` say which pictures are missing or
    cannot be read, and are left out, how many have no box, and how many boxes were empty, and left
    out, or were cut to their picture.

    Raises :class:`InputError` for a file that is not COCO's, a box of an unknown category or
    picture, one that lies mostly outside its picture, and a picture of another size than the file
    says.
    """
    listed = settings.annotations
    found = read_annotations(listed, CocoBoxes, "COCO's")
    classes = _classes(found.categories, listed)
    number = {identity: place for place, identity in enumerate(classes.ids)}
    sizes = {row.id: (row.width, row.height) for row in found.images}
    boxes: dict[Identity, list[tuple[list[float], int, bool]]] = defaultdict(list)
    cutter = BoxCutter()
    for box in found.annotations:
        called = f"annotation {box.id} of '{listed}'"
        if box.image_id not in sizes:
            raise InputError(f"{called} is of picture {box.image_id}, which the file lacks")
        if box.category_id not in number:
            raise InputError(f"{called} has the category {box.category_id}, which it lacks")
        if inside := cutter.inside(box.bbox, sizes[box.image_id], called):
            boxes[box.image_id].append((inside, number[box.category_id], bool(box.iscrowd)))
    rows = ReadableRows(listed)
    for picture in track(found.images, "reading pictures", len(found.images)):
        path, asked = within(settings.images, picture.file_name, listed), sizes[picture.id]
        if settings.check:
            if (size := rows.size(path)) is None:
                continue
            if size != asked:
                raise InputError(
                    f"picture '{path}' has {size[0]} x {size[1]} pixels (turned as its camera "
                    f"was), its list says {asked[0]} x {asked[1]}"
                )
        own = boxes[picture.id]
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
    listed = settings.annotations
    found = read_annotations(listed, CocoPanoptic, "COCO's")
    classes = _classes(found.categories, listed)
    number = {identity: place for place, identity in enumerate(classes.ids)}
    names = {row.id: row.file_name for row in found.images}
    rows = ReadableRows(listed)
    for row in track(found.annotations, "reading segments", len(found.annotations)):
        for segment in row.segments_info:
            if segment.category_id not in number:
                raise InputError(
                    f"'{row.file_name}' of '{listed}' has the category {segment.category_id}, "
                    "which the file lacks"
                )
        info = {
            "id": [segment.id for segment in row.segments_info],
            "category": [number[segment.category_id] for segment in row.segments_info],
            "crowd": [bool(segment.iscrowd) for segment in row.segments_info],
        }
        # COCO's list of pictures and its annotations both name them; ADE20K's alike.
        name = names.get(row.image_id, Path(row.file_name).with_suffix(".jpg").name)
        path = within(settings.images, name, listed)
        mask = within(settings.masks, row.file_name, listed)
        if settings.check:
            if (size := rows.size(path)) is None:
                continue
            shape = read_segments(mask, info, classes, str(mask)).places.shape
            require_size(shape, size, f"segments '{mask}'", str(path), many=True)
        rows.append({"image": str(path), "segments": str(mask), "segments_info": info})
    return rows.data(classes, [])


def _classes(categories: list[CocoCategory], path: Path) -> PictureClasses:
    if not categories:
        raise InputError(f"'{path}' has no categories")
    return PictureClasses(
        tuple(row.name.strip() for row in categories),
        tuple(row.id for row in categories),
        stuff=tuple(place for place, row in enumerate(categories) if not row.isthing),
    )
