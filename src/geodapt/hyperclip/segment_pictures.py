"""Segments to look at: over a picture with words, and in a run's page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geodapt.data.vision import PictureClasses
from geodapt.hyperclip.boxes import PAGES, SIDE
from geodapt.hyperclip.overlay import colour_of, overlay, region_paths, shown_region
from geodapt.hyperclip.panoptic import panoptic_rows, picture_segments, true_segments
from geodapt.hyperclip.panoptic_model import OpenPanoptic
from geodapt.hyperclip.scenes import SceneClasses
from geodapt.hyperclip.segment_scores import FoundSegments
from geodapt.vision.images import png_text, shrunk

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_segments(image: "Image", found: FoundSegments, words: Sequence[str]) -> "Image":
    """The picture with every segment tinted, above a list of their words and probabilities."""
    titles = [
        f"{words[label]}, {100 * score:.0f} %,"
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    return overlay(image, found.places.numpy(), titles)


def segment_pictures(
    model: OpenPanoptic, rows: Any, categories: PictureClasses, classes: SceneClasses
) -> list[dict[str, Any]]:
    """Of the first pictures: the PNG in base 64, its true and its found segments as shapes."""
    opened = panoptic_rows(rows)
    texts = model.word_vectors(classes.names)
    stuff, seen, new = set(classes.stuff), set(classes.seen), set(classes.new)
    pictures = []
    for number in range(min(PAGES, len(opened))):
        image, segments = picture_segments(opened[number], categories)
        true, true_labels, crowd = true_segments(segments, classes)
        found = model.segment_texts(image, texts, stuff, seen)
        labels = found.labels.tolist()
        small, colour = shrunk(image, SIDE), colour_of([*true_labels.tolist(), *labels])

        def region(
            path: str, label: int, more: str = "", colour: dict[int, str] = colour
        ) -> dict[str, Any]:
            said = classes.names[label] + (", new" if label in new else "") + more
            return shown_region(path, said, colour[label], label in new)

        pictures.append(
            {
                "png": png_text(small),
                "width": small.width,
                "height": small.height,
                "true": [
                    region(path, int(true_labels[place]), ", many" if crowd[place] else "")
                    for place, path in region_paths(_shrunk(true, small.size)).items()
                ],
                "found": [
                    region(path, labels[place], f", {100 * float(found.scores[place]):.0f} %")
                    for place, path in region_paths(
                        _shrunk(found.places.numpy(), small.size)
                    ).items()
                ],
            }
        )
    return pictures


def _shrunk(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The segment at the middle of each pixel of a smaller picture."""
    height, width = places.shape
    rows = (np.arange(size[1]) + 0.5) * height / size[1]
    columns = (np.arange(size[0]) + 0.5) * width / size[0]
    return places[rows.astype(int)[:, None], columns.astype(int)]
