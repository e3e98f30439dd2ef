"""What a HyperCLIP run adds to its page: segmented pages, worst classes, the radius."""

from typing import Any

from pydantic import BaseModel, ConfigDict

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


class MethodDetails(Lenient):
    """What a method's row in the table does not hold."""

    radius: list[RadiusRow]
    confused: list[ConfusedPair]
    per_class: list[dict[str, Any]]
    pictures: list[PagePictures]


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
    ),
    sections=(pages_section, worst_section, radius_section),
)
