"""`geodapt detect`: find the objects of a picture by words."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.importing import importing
from geodapt.console import Console


def detect(
    run: Annotated[
        str,
        typer.Argument(help="A run of the recipe hyperclip-detection, its model/, or a hub name."),
    ],
    picture: Annotated[str, typer.Argument(help="The picture: .png, .jpg, ...")],
    words: Annotated[
        str, typer.Option(help="Words to look for, by commas; synonyms of one by slashes.")
    ],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("boxes.png"),
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
    from geodapt.cli.segment import words_of  # imported late: --help should be quick
    from geodapt.errors import InputError
    from geodapt.files import write_bytes

    with importing():
        from geodapt.hyperclip import OpenDetector
    from geodapt.hyperclip.boxes import draw_boxes
    from geodapt.hyperclip.overlay import png_bytes
    from geodapt.paths import given
    from geodapt.vision import open_picture

    if out.suffix.lower() != ".png":
        raise InputError(f"--out is '{out}'; give a name that ends with .png")
    names = words_of(words)
    inside = given(run) / "model"
    detector = OpenDetector.from_pretrained(str(inside) if inside.is_dir() else run)
    image = open_picture(picture)
    found = detector.detect(image, names, threshold)
    titles = [synonyms[0] for synonyms in names]
    write_bytes(given(out), png_bytes(draw_boxes(image, found, titles)))
    console = Console()
    for box, score, label in zip(
        found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
    ):
        corners = ", ".join(f"{value:.0f}" for value in box)
        console.print(
            f"{100 * score:5.1f} %  {titles[label]}  at {corners}", highlight=False, markup=False
        )
    console.print(f"Picture: {out}", highlight=False, markup=False)
