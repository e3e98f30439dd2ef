"""What a HyperCLIP run adds to its page: segmented pages, worst classes, the radius."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from geodapt.hyperclip.scene_report import SCENE_COLUMNS, SCENE_SECTIONS
from geodapt.pages.columns import Column, as_percent
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section, SystemPage

WORST = 15
"""Classes of the table of the worst."""


class Lenient(BaseModel):
    """A part of ``results.json``, of which more may be said than is read."""

    model_config = ConfigDict(extra="ignore")


class ShownWord(Lenient):
    """A word of a page, and its colour."""

    word: str
    colour: str
    new: bool
    true: bool
    predicted: bool


class PagePictures(Lenient):
    """One page, by name of the picture a PNG in base 64."""

    pictures: dict[str, str]
    words: list[ShownWord]


class RadiusRow(Lenient):
    """Norms of a group of embeddings."""

    group: str
    count: int
    norm: float
    norm_std: float
    radius: float


class ConfusedPair(Lenient):
    """Pixels of one class that were taken for another."""

    true: str
    predicted: str
    pixels: int


class RadiusTrial(Lenient):
    """One radius that ``-radius-auto`` tried."""

    target: float
    reached: float
    validation_miou: float
    miou: float
    miou_new: float | None = None


class TestSet(Lenient):
    """Figures on one data set of pictures."""

    miou: float
    miou_union: float
    miou_new: float | None = None
    pixel_accuracy: float


class MethodDetails(Lenient):
    """What a method's row in the table does not hold."""

    trials: list[RadiusTrial] = []
    sets: dict[str, TestSet] = {}

    radius: list[RadiusRow]
    confused: list[ConfusedPair]
    per_class: list[dict[str, Any]]
    pictures: list[PagePictures] = []


class Details(Lenient):
    """The part ``segmentation`` of a ``results.json``."""

    kept: str
    methods: dict[str, MethodDetails]


def pages_section(run: RunRecord) -> Section | None:
    """Pages with their truth, prediction and errors, by the method that the run keeps."""
    found = _details(run)
    if found is None or not (kept := found.methods.get(found.kept)) or not kept.pictures:
        return None
    names = {"image": "Page", "truth": "Truth", "predicted": "Predicted", "wrong": "Wrong pixels"}
    pages = [page.model_dump() for page in kept.pictures]
    context = {"pages": pages, "names": names, "method": _label(run, found.kept)}
    return Section("Segmented pages", "geodapt.hyperclip/pages.html", context)


def worst_section(run: RunRecord) -> Section | None:
    """The confused pairs and the worst classes of the method that the run keeps."""
    found = _details(run)
    if found is None or not (kept := found.methods.get(found.kept)):
        return None
    rows = [row for row in kept.per_class if row.get("iou") is not None]
    rows.sort(key=lambda row: (row["iou"], -row["pixels"]))
    classes = [
        {"name": row["class"], "iou": as_percent(row["iou"]), "pixels": f"{row['pixels']:,}"}
        for row in rows[:WORST]
    ]
    pairs = [{**pair.model_dump(), "pixels": f"{pair.pixels:,}"} for pair in kept.confused]
    context = {"classes": classes, "pairs": pairs, "method": _label(run, found.kept)}
    return Section("Worst classes", "geodapt.hyperclip/worst.html", context)


def radius_section(run: RunRecord) -> Section | None:
    """Norms of texts by level, of pictures and of patches, by every method."""
    found = _details(run)
    if found is None:
        return None
    groups = list(
        dict.fromkeys(row.group for method in found.methods.values() for row in method.radius)
    )
    rows = []
    for name, method in found.methods.items():
        own = {row.group: row for row in method.radius}
        rows.append(
            {
                "name": _label(run, name),
                "cells": [
                    f"{own[group].norm:.2f} ± {own[group].norm_std:.2f}" if group in own else "–"
                    for group in groups
                ],
            }
        )
    return Section("Radius", "geodapt.hyperclip/radius.html", {"groups": groups, "rows": rows})


def interval_section(run: RunRecord) -> Section | None:
    """95 % intervals over pictures, and the spread between seeds."""
    rows = []
    for row in run.results.get("rows") or []:
        cells = [_interval(row, key) for key in ("miou", "miou_seen", "miou_new")]
        if any(cells):
            rows.append({"name": row.get("label", ""), "cells": [cell or "–" for cell in cells]})
    if not rows:
        return None
    heads = ["mIoU", "mIoU, seen", "mIoU, new"]
    return Section("Intervals", "geodapt.hyperclip/intervals.html", {"heads": heads, "rows": rows})


def trial_section(run: RunRecord) -> Section | None:
    """The radii that were tried, and which one validation chose."""
    found = _details(run)
    rows = []
    for name, method in (found.methods if found else {}).items():
        best = max((trial.validation_miou for trial in method.trials), default=None)
        for trial in method.trials:
            new = "–" if trial.miou_new is None else as_percent(trial.miou_new)
            rows.append(
                {
                    "name": _label(run, name),
                    "target": f"{trial.target:.2f}",
                    "reached": f"{trial.reached:.2f}",
                    "cells": [as_percent(trial.validation_miou), as_percent(trial.miou), new],
                    "chosen": trial.validation_miou == best,
                }
            )
    return (
        Section("Radius tried", "geodapt.hyperclip/trials.html", {"rows": rows}) if rows else None
    )


def set_section(run: RunRecord) -> Section | None:
    """Figures of every data set of pictures, by method."""
    found = _details(run)
    rows = [
        {
            "name": _label(run, method),
            "set": name,
            "cells": [
                as_percent(figures.miou),
                as_percent(figures.miou_union),
                "–" if figures.miou_new is None else as_percent(figures.miou_new),
                as_percent(figures.pixel_accuracy),
            ],
        }
        for method, parts in (found.methods if found else {}).items()
        for name, figures in parts.sets.items()
    ]
    if not rows:
        return None
    data = run.results.get("data") or {}
    context = {"rows": rows, "editions": data.get("sets", {}), "notes": data.get("notes", [])}
    return Section("Data sets", "geodapt.hyperclip/sets.html", context)


def _interval(row: dict[str, Any], key: str) -> str | None:
    found = row.get(f"{key}_interval")
    if not isinstance(found, list) or len(found) != 2:
        return None
    text = f"{as_percent(found[0])} to {as_percent(found[1])}"
    spread = row.get(f"{key}_spread")
    return text if spread is None else f"{text}; between seeds ± {as_percent(spread)}"


def _details(run: RunRecord) -> Details | None:
    return parse_part(Details, run.results, "segmentation")


def _label(run: RunRecord, method: str) -> str:
    rows = run.results.get("rows") or []
    labels = {row.get("method"): row.get("label") for row in rows if isinstance(row, dict)}
    return labels.get(method) or method


PAGE = SystemPage(
    metrics=(
        Column("miou", "mIoU", as_percent, "%"),
        Column("miou_seen", "mIoU, seen", as_percent, "%", short="mIoU\nseen"),
        Column("miou_new", "mIoU, new", as_percent, "%", short="mIoU\nnew"),
        Column("miou_union", "mIoU, union rule", as_percent, "%", short="mIoU\nunion"),
        Column("pixel_accuracy", "Pixel accuracy", as_percent, "%", short="Pixels"),
        Column("miou_level_1", "mIoU, level 1", as_percent, "%", short="Level 1"),
        Column("miou_level_2", "mIoU, level 2", as_percent, "%", short="Level 2"),
        Column("zero_shot", "Zero-shot, single characters", as_percent, "%", short="0-shot"),
        *SCENE_COLUMNS,
    ),
    sections=(
        set_section,
        pages_section,
        interval_section,
        worst_section,
        radius_section,
        trial_section,
        *SCENE_SECTIONS,
    ),
)
