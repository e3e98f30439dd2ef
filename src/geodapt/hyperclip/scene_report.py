"""What runs of detection and panoptic segmentation add to their page."""

from typing import Any

from geodapt.pages.columns import Column, as_percent
from geodapt.pages.section import RunRecord, Section


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
    kept, method = kept_by(run, task)
    if not kept.get("pictures"):
        return None
    context = {
        "pictures": kept["pictures"],
        "method": method,
        "classes": run.part("data").get("classes", ""),
        "what": said,
        "measure": measure,
        "worst": [(row["class"], as_percent(row[key])) for row in kept["per_class"]],
    }
    return Section(title, "geodapt.hyperclip/found.html", context)


def kept_by(run: RunRecord, task: str) -> tuple[dict[str, Any], str]:
    """What a run shows of the method that it keeps, and that method's name; empty without any."""
    found = run.part(task)
    kept = found.get("kept", "")
    return found.get("methods", {}).get(kept) or {}, row_label(run, kept)


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
