"""Segmented pictures to look at: colours or outlines over the image, with a list of words."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from geodapt.hyperclip.model import NO_WORD, OpenSegmenter
from geodapt.hyperclip.page_classes import VOID, PageClasses
from geodapt.vision.images import png_text

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image


def region_paths(labels: Int[np.ndarray, "height width"]) -> dict[int, str]:
    """The outline of each label from 0 on as the ``d`` of an SVG path, a unit a pixel.

    Pixels of a row that lie side by side are one rectangle, and so are equal ones of rows below
    each other.
    """
    found: dict[int, list[str]] = defaultdict(list)
    open_runs: dict[tuple[int, int, int], int] = {}  # (label, left, right): its first row
    height = labels.shape[0]
    for y in range(height + 1):
        runs = _runs(labels[y]) if y < height else set()
        for run in [run for run in open_runs if run not in runs]:
            label, left, right = run
            top = open_runs.pop(run)
            found[label].append(f"M{left} {top}h{right - left}v{y - top}h{left - right}z")
        for run in runs:
            open_runs.setdefault(run, y)
    return {label: "".join(parts) for label, parts in sorted(found.items())}


def _runs(row: Int[np.ndarray, " width"]) -> set[tuple[int, int, int]]:
    """The label, start and end of each stretch of one label."""
    ends = np.flatnonzero(np.diff(row)) + 1
    starts = np.concatenate([[0], ends])
    stops = np.concatenate([ends, [len(row)]])
    return {
        (int(row[start]), int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if row[start] >= 0
    }


def shown_region(path: str, said: str, colour: str, new: bool = False) -> dict[str, Any]:
    """What a page needs of a shape."""
    return {"path": path, "said": said, "colour": colour, "new": new}


COLOURS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#ee7733", "#009988", "#882255", "#999933", "#332288", "#88ccee"),
)
"""Told apart by most people who confuse red and green (Paul Tol's qualitative schemes)."""
RED = "#cc3311"
"""Of mistakes."""
OPACITY = 0.55
PAGES = 4
"""Pages that a run's report shows."""
MISTAKEN = 6
"""Words beside a page that it does not show, but was given; the rest are under the pointer."""


def overlay(
    image: "Image", labels: Int[np.ndarray, "height width"], words: Sequence[str]
) -> "Image":
    """The picture with every pixel tinted by its word, above a list of the words that it shows.

    ``labels`` number the words; what is none of them, such as -1, keeps its colour.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    shown = shown_words(labels, words)
    colours = colour_of(shown)
    tinted = tint(image, labels, colours)
    total = labels.size
    lines = [
        (colours[number], f"{words[number]}  {100 * (labels == number).sum() / total:.1f} %")
        for number in shown
    ]
    height = 18
    legend = Pillow.new("RGB", (max(tinted.width, 200), height * len(lines) + 6), "white")
    draw = ImageDraw.Draw(legend)
    for place, (colour, line) in enumerate(lines):
        top = 4 + height * place
        draw.rectangle((4, top, 16, top + 12), fill=colour)
        draw.text((22, top), line, fill="black")
    page = Pillow.new("RGB", (legend.width, tinted.height + legend.height), "white")
    page.paste(tinted, (0, 0))
    page.paste(legend, (0, tinted.height))
    return page


def colour_of(numbers: Iterable[int]) -> dict[int, str]:
    """A colour for each of some numbers, in the order in which they come first."""
    return {
        number: COLOURS[place % len(COLOURS)] for place, number in enumerate(dict.fromkeys(numbers))
    }


def shown_words(labels: Int[np.ndarray, "height width"], words: Sequence[str]) -> list[int]:
    """The words that a picture shows, those with the most pixels first."""
    numbers, counts = np.unique(labels[(labels >= 0) & (labels < len(words))], return_counts=True)
    return numbers[np.argsort(-counts, kind="stable")].tolist()


def tint(
    image: "Image", labels: Int[np.ndarray, "height width"], colours: Mapping[int, str]
) -> "Image":
    """The picture with the pixels of some labels tinted."""
    from PIL import Image as Pillow
    from PIL import ImageColor

    values = np.asarray(image.convert("RGB")).astype(np.float64)
    for number, colour in colours.items():
        where = labels == number
        paint = np.array(ImageColor.getrgb(colour), dtype=np.float64)
        values[where] = (1 - OPACITY) * values[where] + OPACITY * paint
    return Pillow.fromarray(values.round().astype(np.uint8))


def page_pictures(
    segmenter: OpenSegmenter, pages: "Dataset", classes: PageClasses
) -> list[dict[str, Any]]:
    """Of the first pages: the PNG in base 64, shapes of truth, prediction and error, and words.

    The prediction is asked for all classes, and shown where the truth has a character.
    """
    found, new = [], set(classes.new)
    for page in pages.select(range(min(PAGES, len(pages)))):
        image = page["image"].convert("RGB")
        truth = classes.labels(np.array(page["mask"])).numpy()
        predicted = segmenter.segment(image, classes.names).numpy()
        truth = np.where(truth == VOID, NO_WORD, truth)
        predicted = np.where(truth == NO_WORD, NO_WORD, predicted)
        shown = shown_words(truth, classes.names)
        shown += [n for n in shown_words(predicted, classes.names) if n not in shown]
        colours = colour_of(shown)
        listed = shown[: len(shown_words(truth, classes.names)) + MISTAKEN]

        def regions(labels: np.ndarray, colours: dict[int, str] = colours) -> list[dict[str, Any]]:
            return [
                shown_region(path, classes.names[number], colours[number], number in new)
                for number, path in region_paths(labels).items()
            ]

        found.append(
            {
                "png": png_text(image),
                "width": image.width,
                "height": image.height,
                "shapes": {
                    "image": [],
                    "truth": regions(truth),
                    "predicted": regions(predicted),
                    "wrong": _mistakes(truth, predicted, classes.names),
                },
                "words": [
                    {
                        "word": classes.names[number],
                        "colour": colours[number],
                        "new": number in new,
                        "true": bool((truth == number).any()),
                        "predicted": bool((predicted == number).any()),
                    }
                    for number in listed
                ],
                "more": len(shown) - len(listed),
            }
        )
    return found


def _mistakes(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Pixels that show one word and were given another, by the pair of the two."""
    pairs = np.where(predicted != truth, truth * len(names) + predicted, NO_WORD)
    return [
        shown_region(
            path, f"{names[pair // len(names)]}, taken for {names[pair % len(names)]}", RED
        )
        for pair, path in region_paths(pairs).items()
    ]
