"""Which ready-made recipes there are."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from geodapt.errors import InputError
from geodapt.paths import given
from geodapt.recipes.document import Document

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PackagedRecipe:
    """A ready-made recipe, as ``geodapt ls`` shows it."""

    name: str
    path: Path
    system: str
    title: str
    needs: str


def packaged() -> dict[str, PackagedRecipe]:
    """The ready-made recipes by name, in alphabetical order."""
    entries = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        values = Document.read(path, path.name).values
        entries[path.stem] = PackagedRecipe(
            path.stem, path, *(str(values.get(key, "")) for key in ("recipe", "title", "needs"))
        )
    return entries


def find_recipe(name: str) -> Path:
    """The file of a ready-made recipe's name or of a path.

    Raises :class:`InputError` that names the nearest one when there is neither.
    """
    entries = {path.stem: path for path in FOLDER.glob("*.yaml")}
    if name in entries:
        return entries[name]
    path = given(name)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or path.name != name:
        raise InputError(
            f"recipe file '{name}' does not exist; copy a ready-made one with: geodapt cp NAME FILE"
        )
    raise InputError(
        f"there is no recipe '{name}'{suggestion(name, entries)} ('geodapt ls' lists them all)"
    )


def suggestion(name: str, valid) -> str:
    """``; did you mean 'x'?`` for the closest valid name, or nothing when none is close."""
    close = get_close_matches(name, [str(item) for item in valid], n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
