"""What a HyperCLIP run adds to its page: segmented pages, worst classes, the radius."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from geodapt.hyperclip.scene_report import (
    SCENE_COLUMNS,
    SCENE_SECTIONS,
    ShownShape,
    row_label,
)
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
    """One page, a PNG in base 64, with shapes of what is true, predicted and wrong."""

    png: str
    width: int
    height: int
    shapes: dict[str, list[ShownShape]]
    words: list[ShownWord]
    more: int = 0
    """Words that are not listed."""


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
    context = {"pages": pages, "names": names, "method": row_label(run, found.kept)}
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
    context = {"classes": classes, "pairs": pairs, "method": row_label(run, found.kept)}
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
                "name": row_label(run, name),
                "cells": [
                    f"{own[group].norm:.2f} ± {own[group].norm_std:.2f}" if group in own else "–"
                    for group in groups
                ],
            }
        )
    said = (
        "Norms of embeddings before they are scaled to length 1: mean and standard deviation over "
        "the group. The hyperbolic radius of exp₀(e) in the Poincaré ball is twice the norm, for "
        "every curvature."
    )
    return _table("Radius", "Norms by method", [(group, "") for group in groups], rows, said)


def interval_section(run: RunRecord) -> Section | None:
    """95 % intervals over pictures, and the spread between seeds."""
    rows = []
    for row in run.results.get("rows") or []:
        cells = [_interval(row, key) for key in ("miou", "miou_seen", "miou_new")]
        if any(cells):
            rows.append({"name": row.get("label", ""), "cells": [cell or "–" for cell in cells]})
    if not rows:
        return None
    said = (
        "95 % of the means over resampled sets of the test pictures lie between these, in percent."
    )
    heads = [("mIoU", ""), ("mIoU, seen", ""), ("mIoU, new", "")]
    return _table("Intervals", "Intervals by method", heads, rows, said)


def trial_section(run: RunRecord) -> Section | None:
    """The radii that were tried, and which one validation chose."""
    found = _details(run)
    rows = []
    for name, method in (found.methods if found else {}).items():
        best = max(method.trials, key=lambda trial: trial.validation_miou, default=None)
        for trial in method.trials:
            new = "–" if trial.miou_new is None else as_percent(trial.miou_new)
            rows.append(
                {
                    "name": row_label(run, name) + (" (chosen)" if trial is best else ""),
                    "cells": [
                        f"{trial.target:.2f}",
                        f"{trial.reached:.2f}",
                        *(as_percent(trial.validation_miou), as_percent(trial.miou), new),
                    ],
                }
            )
    if not rows:
        return None
    said = (
        "Texts were drawn to each of these hyperbolic radii; the one with the best mIoU on "
        "validation data was taken. How far they came is in the second column."
    )
    heads = [("Target", ""), ("Reached", ""), ("Validation mIoU", "%"), ("Test mIoU", "%")]
    return _table("Radius tried", "Radii that were tried", [*heads, ("Test, new", "%")], rows, said)


def set_section(run: RunRecord) -> Section | None:
    """Figures of every data set of pictures, by method."""
    found = _details(run)
    rows = [
        {
            "name": row_label(run, method),
            "cells": [
                name,
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
    notes = [f"{name}: {edition}" for name, edition in data.get("sets", {}).items()]
    heads = [("Data set", ""), ("mIoU", "%"), ("Union rule", "%"), ("Classes new to training", "%")]
    return _table(
        "Data sets",
        "Figures by data set",
        [*heads, ("Pixel accuracy", "%")],
        rows,
        notes=[*notes, *data.get("notes", [])],
    )


def _table(
    title: str,
    about: str,
    heads: list[tuple[str, str]],
    rows: list[dict[str, Any]],
    intro: str = "",
    notes: Sequence[str] = (),
) -> Section:
    """A table by method: heads with their units, a name and cells per row."""
    context = {
        "intro": intro,
        "about": about,
        "heads": [("Method", ""), *heads],
        "rows": rows,
        "notes": [*notes],
    }
    return Section(title, "geodapt.hyperclip/table.html", context)


def _interval(row: dict[str, Any], key: str) -> str | None:
    found = row.get(f"{key}_interval")
    if not isinstance(found, list) or len(found) != 2:
        return None
    text = f"{as_percent(found[0])} to {as_percent(found[1])}"
    spread = row.get(f"{key}_spread")
    return text if spread is None else f"{text}; between seeds ± {as_percent(spread)}"


def _details(run: RunRecord) -> Details | None:
    return parse_part(Details, run.results, "segmentation")


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
