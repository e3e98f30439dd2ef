"""`geodapt segment`, `detect` and `panoptic`: find words in a picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodapt.cli.importing import importing
from geodapt.console import Console
from geodapt.errors import InputError
from geodapt.extras import require_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Annotated[str, typer.Argument(help="The picture: .png, .jpg, ...")]
Words = Annotated[
    str, typer.Option(help="Words to look for, by commas; synonyms of one by slashes.")
]
Out = Annotated[Path, typer.Option(help="The picture to write.")]


def segment(
    run: Annotated[
        str, typer.Argument(help="A run of the recipe hyperclip, its model/, or a hub name.")
    ],
    picture: Picture,
    words: Words,
    out: Out = Path("overlay.png"),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave pixels unlabelled below this probability."),
    ] = None,
) -> None:
    """Label the pixels of a picture with words.

    Each pixel gets the likeliest of the words, and their colour in the picture that is written.

    \b
    Example:
      geodapt segment runs/hyperclip-glyphs photo.png --words "dog/puppy,grass,sky"
    """
    names, titles, folder = _asked(run, picture, words, out)
    with importing():  # late: --help and mistakes should be told quickly
        from geodapt.hyperclip import OpenSegmenter
    from geodapt.hyperclip.overlay import overlay, shown_words
    from geodapt.vision import open_picture

    segmenter = OpenSegmenter.from_pretrained(folder)
    image = open_picture(picture)
    labels = segmenter.segment(image, names, threshold).numpy()
    lines = (
        f"{100 * (labels == number).mean():5.1f} %  {titles[number]}"
        for number in shown_words(labels, titles)
    )
    _show(out, overlay(image, labels, titles), lines)


def detect(
    run: Annotated[
        str,
        typer.Argument(help="A run of the recipe hyperclip-detection, its model/, or a hub name."),
    ],
    picture: Picture,
    words: Words,
    out: Out = Path("boxes.png"),
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Leave boxes out below this probability.")
    ] = 0.1,
) -> None:
    """Find the boxes in a picture that show some words.

    They are printed, and drawn into the picture that is written.

    \b
    Example:
      geodapt detect runs/hyperclip-glyphs-detection photo.png --words "dog/puppy,ball"
    """
    names, titles, folder = _asked(run, picture, words, out)
    with importing():  # late: --help and mistakes should be told quickly
        from geodapt.hyperclip import OpenDetector
    from geodapt.hyperclip.boxes import draw_boxes
    from geodapt.vision import open_picture

    detector = OpenDetector.from_pretrained(folder)
    image = open_picture(picture)
    found = detector.detect(image, names, threshold)
    lines = (
        f"{100 * score:5.1f} %  {titles[label]}  at {', '.join(f'{value:.0f}' for value in box)}"
        for box, score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    )
    _show(out, draw_boxes(image, found, titles), lines)


def panoptic(
    run: Annotated[
        str,
        typer.Argument(help="A run of the recipe hyperclip-panoptic, its model/, or a hub name."),
    ],
    picture: Picture,
    words: Words,
    stuff: Annotated[
        str | None,
        typer.Option(
            help="Those of the words that are one segment each, such as sky, by commas; where not "
            "given, what was stuff in training."
        ),
    ] = None,
    out: Out = Path("segments.png"),
) -> None:
    """Find the segments of a picture that show some words.

    Each object is a segment by itself. They are tinted in the picture that is written.

    \b
    Example:
      geodapt panoptic runs/hyperclip-glyphs-panoptic photo.png --words "dog/puppy,grass"
    """
    names, titles, folder = _asked(run, picture, words, out)
    kinds = None if stuff is None else [name for (name, *_) in _words(stuff)] if stuff else []
    with importing():  # late: --help and mistakes should be told quickly
        from geodapt.hyperclip import OpenPanoptic
    from geodapt.hyperclip.segment_pictures import draw_segments
    from geodapt.vision import open_picture

    model = OpenPanoptic.from_pretrained(folder)
    image = open_picture(picture)
    found = model.segments(image, names, kinds)
    shares = [100 * (found.places == number).double().mean() for number in range(len(found.labels))]
    lines = (
        f"{share:5.1f} %  {titles[label]}, {100 * score:.0f} % sure"
        for share, label, score in zip(
            shares, found.labels.tolist(), found.scores.tolist(), strict=True
        )
    )
    _show(out, draw_segments(image, found, titles), lines)


def _asked(
    run: str, picture: str, words: str, out: Path
) -> tuple[list[list[str]], list[str], Path]:
    """The words with their synonyms, the first of each, which stands for it, and the model."""
    from geodapt.models.hub import find_folder
    from geodapt.paths import given, names_file

    require_pillow()
    if not names_file(picture):
        raise InputError(f"picture '{picture}' does not exist or is no file")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out is '{out}'; give a name that ends with .png")
    names = _words(words)
    inside = given(run) / "model"
    folder = find_folder(inside if inside.is_dir() else run, "model", "a run's folder or its model")
    return names, [synonyms[0] for synonyms in names], folder


def _words(text: str) -> list[list[str]]:
    names = [[name.strip() for name in word.split("/")] for word in text.split(",")]
    if not all(all(synonyms) for synonyms in names):
        raise InputError(f"--words is '{text}', which holds an empty word between its commas")
    return names


def _show(out: Path, image: "Image", lines: Iterable[str]) -> None:
    from geodapt.files import write_bytes
    from geodapt.paths import given
    from geodapt.vision.images import png_bytes

    write_bytes(given(out), png_bytes(image))
    for line in [*(list(lines) or ["Nothing was found by these words."]), f"Picture: {out}"]:
        Console(markup=False, highlight=False).print(line)
