r"""Where and how large a CLIP reads characters: accuracy by shift and by size of the font.

    geodapt run clip-glyphs 'data.scripts=[Greek,Cyrillic]' training.steps=900 \
        training.batch_size=64 --out base
    python benchmarks/glyph_places.py base/model --scripts Greek Cyrillic

Its own pictures have letters of 22 pixels (em) on one baseline, moved by a pixel or two; pages show
them anywhere. Test characters are drawn alone, without turning, and named among all names.
"""

import argparse
from collections.abc import Callable

import torch
from PIL import Image

from geodapt.data.glyphs import Glyphs, GlyphSettings, load_glyphs
from geodapt.data.glyphs.drawing import BASELINE, EM, Pen, greys
from geodapt.vision import load_clip

SIZES = (16, 20, 22, 24, 28, 36)
SHIFTS = (0, 1, 2, 4, 6, 8)


def picture(ink, side: int, x: float, y: float) -> Image.Image:
    """Ink in the middle of the room that its font gives it, on the baseline, then moved."""
    wide = Image.new("L", (3 * side, 3 * side))
    left, top = 1.5 * side + ink.left + x, side + BASELINE * side + ink.top + y
    wide.paste(ink.coverage, (round(left), round(top)))
    return wide.crop((side, side, 2 * side, 2 * side)).point(greys(0, 0)).convert("RGB")


def asker(base: str, glyphs: Glyphs, count: int) -> Callable[[int, float, float], float]:
    """The share of test characters that are named rightly, by em and shift."""
    clip, side = load_clip(base), glyphs.splits["test"][0]["image"].width
    texts = clip.embed_texts([chain[-1] for chain in glyphs.classes["captions"]])
    test = glyphs.splits["test"]
    rows = test.select(range(0, len(test), max(1, len(test) // count)))
    labels, fonts = rows["label"][:], rows["domain"][:]

    def accuracy(em: int, x: float, y: float) -> float:
        pens = {font: Pen(glyphs.fonts[font].file, em) for font in set(fonts)}
        inks = [
            pens[font].ink(glyphs.classes["character"][label], 2 * side)
            for label, font in zip(labels, fonts, strict=True)
        ]
        shown = [(ink, label) for ink, label in zip(inks, labels, strict=True) if ink is not None]
        images = clip.embed_images([picture(ink, side, x, y) for ink, _ in shown])
        right = (images @ texts.T).argmax(1) == torch.tensor([label for _, label in shown])
        return right.double().mean().item()

    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--scripts", nargs="+")
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    glyphs = load_glyphs(GlyphSettings(scripts=given.scripts))
    accuracy = asker(given.base, glyphs, given.count)
    own = round(EM * glyphs.splits["test"][0]["image"].width)
    for em in SIZES:
        print(f"em {em}: {100 * accuracy(em, 0, 0):.1f} %", flush=True)
    for shift in SHIFTS:
        ways = [(shift, 0), (-shift, 0), (0, shift), (0, -shift)]
        mean = sum(accuracy(own, *way) for way in ways) / len(ways)
        print(f"moved by {shift} pixels: {100 * mean:.1f} %", flush=True)


if __name__ == "__main__":
    main()
