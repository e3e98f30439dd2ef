"""What runs of detection and panoptic segmentation add to their page."""

from typing import Any

from pydantic import BaseModel

from geodapt.pages.columns import Column, as_percent
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section


class ShownBox(BaseModel):
    """One box and what is said of it."""

    box: tuple[float, float, float, float]
    said: str
    colour: str
    new: bool


class ShownBoxes(BaseModel):
    """One picture, a PNG in base 64, with its true and its found boxes."""

    png: str
    width: int
    height: int
    true: list[ShownBox]
    found: list[ShownBox]


class ClassPrecision(BaseModel):
    """Average precision of a class."""

    ap50: float
    new: bool


class MethodBoxes(BaseModel):
    """What a method's row in the table does not hold."""

    pictures: list[ShownBoxes]
    per_class: list[dict[str, Any]]


class DetectionDetails(BaseModel):
    """The part ``detection`` of a ``results.json``."""

    kept: str
    methods: dict[str, MethodBoxes]


def boxes_section(run: RunRecord) -> Section | None:
    """Pictures with their true and found boxes, by the method that the run keeps."""
    found = parse_part(DetectionDetails, run.results, "detection")
    if found is None or not (kept := found.methods.get(found.kept)) or not kept.pictures:
        return None
    worst = [
        {"name": str(row.get("class")), "ap50": as_percent(row.get("ap50"))}
        for row in kept.per_class
    ]
    context = {
        "pictures": [picture.model_dump() for picture in kept.pictures],
        "method": row_label(run, found.kept),
        "classes": (run.results.get("data") or {}).get("classes", ""),
        "worst": worst,
    }
    return Section("Found objects", "geodapt.hyperclip/boxes.html", context)


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
)
SCENE_SECTIONS = (boxes_section,)
