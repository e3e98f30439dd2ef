"""`geodapt panoptic`: find the segments of a picture by words."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.importing import importing
from geodapt.console import Console


def panoptic(
    run: Annotated[
        str,
        typer.Argument(help="A run of the recipe hyperclip-panoptic, its model/, or a hub name."),
    ],
    picture: Annotated[str, typer.Argument(help="The picture: .png, .jpg, ...")],
    words: Annotated[
        str, typer.Option(help="Words to look for, by commas; synonyms of one by slashes.")
    ],
    stuff: Annotated[
        str | None,
        typer.Option(
            help="Those of the words that are one segment each, such as sky, by commas; where not "
            "given, what was stuff in training."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("segments.png"),
) -> None:
    """Find the segments of a picture that show some words.

    Each object is a segment by itself. They are tinted in the picture that is written.

    \b
    Example:
      geodapt panoptic runs/hyperclip-glyphs-panoptic photo.png --words "dog/puppy,grass"
    """
    from geodapt.cli.segment import words_of  # imported late: --help should be quick
    from geodapt.errors import InputError
    from geodapt.files import write_bytes

    with importing():
        from geodapt.hyperclip import OpenPanoptic
    from geodapt.hyperclip.overlay import png_bytes
    from geodapt.hyperclip.segment_pictures import draw_segments
    from geodapt.paths import given
    from geodapt.vision import open_picture

    if out.suffix.lower() != ".png":
        raise InputError(f"--out is '{out}'; give a name that ends with .png")
    names = words_of(words)
    kinds = None if stuff is None else [name for (name, *_) in words_of(stuff)] if stuff else []
    inside = given(run) / "model"
    model = OpenPanoptic.from_pretrained(str(inside) if inside.is_dir() else run)
    image = open_picture(picture)
    found = model.segments(image, names, kinds)
    titles = [synonyms[0] for synonyms in names]
    write_bytes(given(out), png_bytes(draw_segments(image, found, titles)))
    console = Console()
    for number, (label, score) in enumerate(
        zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ):
        share = 100 * (found.places == number).double().mean().item()
        console.print(
            f"{share:5.1f} %  {titles[label]}, {100 * score:.0f} % sure",
            highlight=False,
            markup=False,
        )
    console.print(f"Picture: {out}", highlight=False, markup=False)
