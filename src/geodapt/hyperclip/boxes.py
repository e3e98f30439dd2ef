"""Boxes with words to look at: drawn into a file, or laid over a picture of the page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geodapt.hyperclip.detection import true_boxes
from geodapt.hyperclip.detector import Detections, OpenDetector
from geodapt.hyperclip.overlay import COLOURS, colour_of
from geodapt.hyperclip.scenes import PictureRows, SceneClasses
from geodapt.vision.images import png_text, shrunk

if TYPE_CHECKING:
    from PIL.Image import Image

PAGES = 4
"""Pictures that a run's report shows."""
SIDE = 640
"""Pixels of their longer side at most."""


def draw_boxes(image: "Image", found: Detections, words: Sequence[str]) -> "Image":
    """The picture with each box and its word and probability, the likeliest on top."""
    from PIL import ImageDraw

    drawn = image.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    for box, score, label in zip(
        found.boxes.flip(0).tolist(),
        found.scores.flip(0).tolist(),
        found.labels.flip(0).tolist(),
        strict=True,
    ):
        x, y, width, height = box
        colour = COLOURS[label % len(COLOURS)]
        draw.rectangle((x, y, x + width, y + height), outline=colour, width=2)
        text = f"{words[label]} {100 * score:.0f} %"
        # Above the box, or in it where the picture ends.
        left, top, right, bottom = draw.textbbox((x, max(0, y - 12)), text)
        draw.rectangle((left, top, right, bottom), fill=colour)
        draw.text((x, max(0, y - 12)), text, fill="white")
    return drawn


def box_pictures(detector: OpenDetector, rows: Any, classes: SceneClasses) -> list[dict[str, Any]]:
    """Of the first pictures: the PNG in base 64, its true boxes, and as many of the likeliest."""
    opened = PictureRows(rows.select_columns(["image", "objects"]))
    texts = detector.word_vectors(classes.names)
    new = set(classes.new)
    pictures = []
    for number in range(min(PAGES, len(opened))):
        row = opened[number]
        image = opened.image(row)
        true = true_boxes(row, classes)
        (found,) = detector.detect_all([image], texts, most=max(1, len(true)))
        colour = colour_of([*(label for _, label, _ in true), *found.labels.tolist()])
        pictures.append(
            {
                "png": png_text(shrunk(image, SIDE)),
                "width": image.width,
                "height": image.height,
                "true": [
                    _row(box, classes.names[label], colour[label], label in new)
                    for box, label, _ in true
                ],
                "found": [
                    _row(box, classes.names[label], colour[label], label in new, score)
                    for box, score, label in zip(
                        found.boxes.tolist(),
                        found.scores.tolist(),
                        found.labels.tolist(),
                        strict=True,
                    )
                ],
            }
        )
    return pictures


def _row(
    box: Sequence[float], word: str, colour: str, new: bool, score: float | None = None
) -> dict[str, Any]:
    said = word + (", new" if new else "") + ("" if score is None else f", {100 * score:.0f} %")
    return {"box": [round(value, 1) for value in box], "said": said, "colour": colour, "new": new}
