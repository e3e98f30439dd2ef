"""Handwritten letters under the names that Unicode has for them.

Source: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic
program induction" (Omniglot): twenty hands wrote each letter once, black on white.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from datasets import ClassLabel, Dataset, Features

from geodapt.data.glyph_settings import OmniglotSettings
from geodapt.data.glyphs.taxonomy import path as path_of
from geodapt.data.text_files import existing
from geodapt.data.vision.pictures import LABELLED, Pictures
from geodapt.errors import InputError
from geodapt.vision.images import open_picture

LETTERS = {
    "Latin": "abcdefghijklmnopqrstuvwxyz",
    "Greek": "αβγδεζηθικλμνξοπρστυφχψω",
}
"""What ``character01`` and so on are, by alphabet."""

HANDWRITING = "handwriting"
"""The domain of these pictures."""

MOST_BYTES = 1 << 20
"""Of one picture in a zip file; Omniglot's have a few hundred."""


def load_omniglot(settings: OmniglotSettings) -> Pictures:
    """The letters of some alphabets, all of them in the split ``test``.

    Class names are those of :func:`~geodapt.data.glyphs.sets.load_character_set`, such as
    ``Latin small letter A``, so that a model tuned on fonts can be tested on hands. Raises
    :class:`InputError` for a path without the alphabets, an alphabet of more or fewer letters, and
    a picture that cannot be read.
    """
    place = existing(settings.path)
    found: dict[str, dict[int, list[tuple[str, bytes]]]] = {}
    for name, content in _files(place):
        parts = PurePosixPath(name).parts
        if len(parts) < 3 or parts[-3] not in settings.alphabets:
            continue
        number = parts[-2].removeprefix("character")
        if number.isdecimal():
            letters = found.setdefault(parts[-3], {})
            letters.setdefault(int(number), []).append((name, content))
    rows: list[tuple[str, bytes, int]] = []
    characters = ""
    for alphabet_name in settings.alphabets:
        alphabet = LETTERS[alphabet_name]
        numbers = sorted(found.get(alphabet_name, {}))
        if numbers != list(range(1, len(alphabet) + 1)):
            raise InputError(
                f"{place} has {len(numbers)} letters of the alphabet {alphabet_name}; expected "
                f"folders {alphabet_name}/character01 to character{len(alphabet)} somewhere in it"
            )
        for at in numbers:
            label = len(characters) + at - 1
            rows += [(name, content, label) for name, content in found[alphabet_name][at]]
        characters += alphabet
    for name, content, _ in rows:
        open_picture(content, f"{place}: {name}")
    hands = Features({**LABELLED, "domain": ClassLabel(names=[HANDWRITING])})
    test = Dataset.from_dict(
        {
            "image": [{"bytes": content, "path": None} for _, content, _ in rows],
            "label": [label for _, _, label in rows],
            "domain": [0] * len(rows),
        },
        hands,
    )
    paths = tuple(path_of(character) for character in characters)
    return Pictures(
        tuple(path[-1] for path in paths), "{}", {"test": test}, HANDWRITING, captions=paths
    )


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures at a place, sorted by name, with their bytes."""
    if place.is_dir():
        for file in sorted(place.rglob("*.png")):
            yield file.relative_to(place.parent).as_posix(), file.read_bytes()
        return
    try:
        with ZipFile(place) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if not entry.filename.endswith(".png"):
                    continue
                if entry.file_size > MOST_BYTES:
                    raise InputError(
                        f"{place}: '{entry.filename}' has {entry.file_size:,} bytes; Omniglot's "
                        "pictures are small"
                    )
                yield entry.filename, archive.read(entry)
    except (BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{place} is no zip file that can be read ({error}); give one, or the unpacked folder"
        ) from error
