"""`geodapt segment`: label the pixels of a picture with words."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.importing import importing
from geodapt.console import Console


def segment(
    run: Annotated[
        str, typer.Argument(help="A run of the recipe hyperclip, its model/, or a hub name.")
    ],
    picture: Annotated[str, typer.Argument(help="The picture: .png, .jpg, ...")],
    words: Annotated[
        str, typer.Option(help="Words to look for, by commas; synonyms of one by slashes.")
    ],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("overlay.png"),
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
    from geodapt.errors import InputError  # imported late: --help should be quick
    from geodapt.files import write_bytes

    with importing():
        from geodapt.hyperclip import OpenSegmenter
    from geodapt.hyperclip.overlay import overlay, png_bytes, shown_words
    from geodapt.paths import given
    from geodapt.vision import open_picture

    if out.suffix.lower() != ".png":
        raise InputError(f"--out is '{out}'; give a name that ends with .png")
    names = words_of(words)
    inside = given(run) / "model"
    segmenter = OpenSegmenter.from_pretrained(str(inside) if inside.is_dir() else run)
    image = open_picture(picture)
    labels = segmenter.segment(image, names, threshold).numpy()
    titles = [synonyms[0] for synonyms in names]
    write_bytes(given(out), png_bytes(overlay(image, labels, titles)))
    console = Console()
    for number in shown_words(labels, titles):
        share = 100 * (labels == number).mean()
        console.print(f"{share:5.1f} %  {titles[number]}", highlight=False, markup=False)
    console.print(f"Picture: {out}", highlight=False, markup=False)


def words_of(text: str) -> list[list[str]]:
    """Words by commas, the synonyms of each by slashes."""
    from geodapt.errors import InputError

    names = [[name.strip() for name in word.split("/")] for word in text.split(",")]
    if not all(all(synonyms) for synonyms in names):
        raise InputError(f"--words is '{text}', which holds an empty word between its commas")
    return names
