"""What a HyperCLIP run adds to its page: segmented pages, worst classes, the radius."""

from typing import Any

from geodapt.hyperclip.scene_report import SCENE_COLUMNS, SCENE_SECTIONS, kept_by, row_label
from geodapt.pages.columns import Column, as_percent
from geodapt.pages.section import RunRecord, Section, SystemPage, table_section

WORST = 15
"""Classes of the table of the worst."""


def pages_section(run: RunRecord) -> Section | None:
    """Pages with their truth, prediction and errors, by the method that the run keeps."""
    kept, method = kept_by(run, "segmentation")
    if not kept.get("pictures"):
        return None
    names = {"image": "Page", "truth": "Truth", "predicted": "Predicted", "wrong": "Wrong pixels"}
    context = {"pages": kept["pictures"], "names": names, "method": method}
    return Section("Segmented pages", "geodapt.hyperclip/pages.html", context)


def worst_section(run: RunRecord) -> Section | None:
    """The confused pairs and the worst classes of the method that the run keeps."""
    kept, method = kept_by(run, "segmentation")
    if not kept:
        return None
    rows = [row for row in kept["per_class"] if row.get("iou") is not None]
    rows.sort(key=lambda row: (row["iou"], -row["pixels"]))
    pairs = [(each["true"], each["predicted"], f"{each['pixels']:,}") for each in kept["confused"]]
    context = {
        "classes": [
            (row["class"], as_percent(row["iou"]), f"{row['pixels']:,}") for row in rows[:WORST]
        ],
        "pairs": pairs,
        "method": method,
    }
    return Section("Worst classes", "geodapt.hyperclip/worst.html", context)


def radius_section(run: RunRecord) -> Section | None:
    """Norms of texts by level, of pictures and of patches, by every method."""
    methods = _methods(run)
    groups = list(
        dict.fromkeys(row["group"] for each in methods.values() for row in each["radius"])
    )
    rows = []
    for name, method in methods.items():
        own = {
            row["group"]: f"{row['norm']:.2f} ± {row['norm_std']:.2f}" for row in method["radius"]
        }
        rows.append([row_label(run, name), *(own.get(group, "–") for group in groups)])
    said = (
        "Norms of embeddings before they are scaled to length 1: mean and standard deviation over "
        "the group. The hyperbolic radius of exp₀(e) in the Poincaré ball is twice the norm, for "
        "every curvature."
    )
    return table_section("Radius", ["Method", *groups], rows, said, "Norms by method")


def interval_section(run: RunRecord) -> Section | None:
    """95 % intervals over pictures, and the spread between seeds."""
    rows = []
    for row in run.results.get("rows") or []:
        cells = [_interval(row, key) for key in ("miou", "miou_seen", "miou_new")]
        if any(cells):
            rows.append([row.get("label", ""), *(cell or "–" for cell in cells)])
    said = "95 % of the means over resampled sets of the test pictures lie between these."
    heads = ["Method", *((name, "%") for name in ("mIoU", "mIoU, seen", "mIoU, new"))]
    return table_section("Intervals", heads, rows, said, "Intervals by method")


def trial_section(run: RunRecord) -> Section | None:
    """The radii that were tried, and which one validation chose."""
    rows = []
    for name, method in _methods(run).items():
        trials = method.get("trials") or []
        best = max(trials, key=lambda trial: trial["validation_miou"], default=None)
        for trial in trials:
            shares = (trial["validation_miou"], trial["miou"], trial.get("miou_new"))
            rows.append(
                [
                    row_label(run, name) + (" (chosen)" if trial is best else ""),
                    *(f"{trial[key]:.2f}" for key in ("target", "reached")),
                    *map(_percent, shares),
                ]
            )
    said = (
        "Texts were drawn to each of these hyperbolic radii; the one with the best mIoU on "
        "validation data was taken. The second column says how far they came."
    )
    heads = [
        *("Method", "Target", "Reached", ("Validation mIoU", "%")),
        *(("Test mIoU", "%"), ("Test, new", "%")),
    ]
    return table_section("Radius tried", heads, rows, said, "Radii that were tried")


def set_section(run: RunRecord) -> Section | None:
    """Figures of every data set of pictures, by method."""
    keys = ("miou", "miou_union", "miou_new", "pixel_accuracy")
    rows = [
        [row_label(run, method), name, *(_percent(figures.get(key)) for key in keys)]
        for method, parts in _methods(run).items()
        for name, figures in (parts.get("sets") or {}).items()
    ]
    data = run.part("data")
    notes = [f"{name}: {edition}" for name, edition in data.get("sets", {}).items()] if rows else []
    shares = ("mIoU", "Union rule", "Classes new to training", "Pixel accuracy")
    heads = ["Method", "Data set", *((name, "%") for name in shares)]
    notes += data.get("notes", [])
    return table_section("Data sets", heads, rows, about="Figures by data set", notes=notes)


def _methods(run: RunRecord) -> dict[str, dict[str, Any]]:
    """What each method's row in the table does not hold."""
    return run.part("segmentation").get("methods", {})


def _percent(share: float | None) -> str:
    return "–" if share is None else as_percent(share)


def _interval(row: dict[str, Any], key: str) -> str | None:
    found = row.get(f"{key}_interval")
    if not isinstance(found, list) or len(found) != 2:
        return None
    text = f"{as_percent(found[0])} to {as_percent(found[1])}"
    spread = row.get(f"{key}_spread")
    return text if spread is None else f"{text}; between seeds ± {as_percent(spread)}"


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
