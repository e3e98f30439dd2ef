"""What runs of detection and panoptic segmentation add to their page."""

from typing import Any

from pydantic import BaseModel

from geodapt.pages.columns import Column, as_percent
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section


class ShownShape(BaseModel):
    """A box or a region of pixels, and what is said of it."""

    box: tuple[float, float, float, float] | None = None
    path: str = ""
    """Of a region: the ``d`` of an SVG path."""
    said: str
    colour: str
    new: bool


class ShownPicture(BaseModel):
    """One picture, a PNG in base 64, with what is true of it and what was found."""

    png: str
    width: int
    height: int
    true: list[ShownShape]
    found: list[ShownShape]


class FoundDetails(BaseModel):
    """What a method's row in the table does not hold."""

    pictures: list[ShownPicture]
    per_class: list[dict[str, Any]]


class SceneDetails(BaseModel):
    """The part ``detection`` or ``panoptic`` of a ``results.json``."""

    kept: str
    methods: dict[str, FoundDetails]


def boxes_section(run: RunRecord) -> Section | None:
    """Pictures with their true and found boxes, by the method that the run keeps."""
    said = (
        "the true boxes, and as many of the likeliest. Dashed boxes are of classes that training "
        "never showed. Point at a box for its word."
    )
    return _found(run, "detection", "Found objects", said, "ap50", "AP50")


def segments_section(run: RunRecord) -> Section | None:
    """Pictures with their true and found segments, by the method that the run keeps."""
    said = (
        "the true segments, and those found. Words in italics are of classes that training never "
        "showed. Point at a segment for its word."
    )
    return _found(run, "panoptic", "Found segments", said, "pq", "PQ")


def _found(
    run: RunRecord, task: str, title: str, said: str, key: str, measure: str
) -> Section | None:
    found = parse_part(SceneDetails, run.results, task)
    if found is None or not (kept := found.methods.get(found.kept)) or not kept.pictures:
        return None
    context = {
        "pictures": [picture.model_dump() for picture in kept.pictures],
        "method": row_label(run, found.kept),
        "classes": (run.results.get("data") or {}).get("classes", ""),
        "what": said,
        "measure": measure,
        "worst": [
            {"name": str(row.get("class")), "value": as_percent(row.get(key))}
            for row in kept.per_class
        ],
    }
    return Section(title, "geodapt.hyperclip/found.html", context)


def row_label(run: RunRecord, method: str) -> str:
    """What the run's table calls a method."""
    rows = run.results.get("rows") or []
    labels = {row.get("method"): row.get("label") for row in rows if isinstance(row, dict)}
    return labels.get(method) or method


SCENE_COLUMNS = (
    Column("ap50", "AP50", as_percent, "%"),
    Column("ap50_seen", "AP50, seen", as_percent, "%", short="AP50\nseen"),
    Column("ap50_new", "AP50, new", as_percent, "%", short="AP50\nnew"),
    Column("ap", "AP", as_percent, "%"),
    Column("pq", "PQ", as_percent, "%"),
    Column("pq_seen", "PQ, seen", as_percent, "%", short="PQ\nseen"),
    Column("pq_new", "PQ, new", as_percent, "%", short="PQ\nnew"),
    Column("sq", "SQ", as_percent, "%"),
    Column("rq", "RQ", as_percent, "%"),
    Column("pq_masks", "PQ, whatever the word", as_percent, "%", short="PQ\nmasks"),
)
SCENE_SECTIONS = (boxes_section, segments_section)
