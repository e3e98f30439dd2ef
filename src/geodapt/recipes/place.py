"""Whether a folder may hold a run: a new one, or the one that is there already.

Nothing heavy is imported, so that a folder that will not do is told at once.
"""

from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.locks import LOCK, holds_only_lock
from geodapt.recipes.document import Document
from geodapt.recipes.loading import validate
from geodapt.runs import Recipe

# Keys that may differ without making it another run.
WORDS = {"title", "needs"}


def check_place(recipe: Recipe, out: Path, resume: bool) -> None:
    """Raise as :func:`is_there` does, and where the folder cannot be looked into.

    Of several processes each asks before they join, while none has begun.
    """
    try:
        is_there(recipe, out, resume)
    except OSError as error:
        raise InputError(f"cannot write the run to {out}: {error.strerror}") from error


def is_there(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether the run is in the folder already.

    Raises :class:`InputError` where anything else is, and where the run is and `resume` is not set.
    """
    config, work = out / "config.yaml", out / "work"
    if not out.exists() or (
        {path.name for path in out.iterdir()} <= {"work"} and holds_only_lock(work)
    ):
        return False
    if not resume:
        raise InputError(
            f"{out} is not empty; continue its run by --resume, or start another with --out FOLDER"
        )
    if not config.is_file():
        raise InputError(
            f"{out} holds files but no config.yaml: not a run that can be resumed; "
            "give another folder with --out"
        )
    _require_same(recipe, config)
    if not holds_only_lock(work) and not (work / LOCK).exists():
        raise InputError(
            f"{work} was not made by a run, which removes it at its end; move it away, or give "
            "another folder with --out"
        )
    return True


def _require_same(recipe: Recipe, config: Path) -> None:
    """Refuse to continue the run of another configuration."""
    # Validated, so that a key that is newer than the run has its default there too.
    document = Document.read(config, str(config))
    kind = document.values.get("recipe")
    if isinstance(kind, str) and kind != recipe.recipe:
        raise InputError(
            f"{config.parent} holds a run of another recipe ({kind}, not {recipe.recipe}); give "
            "another folder with --out"
        )
    there = validate(document, type(recipe))
    before, now = (_flat(each.model_dump(mode="json")) for each in (there, recipe))
    changed = [
        f"  {key}: {before.get(key, 'absent')!s} there, {now.get(key, 'absent')!s} asked"
        for key in dict.fromkeys((*before, *now))
        if key not in WORDS and before.get(key, ...) != now.get(key, ...)
    ]
    if changed:
        raise InputError(
            f"{config.parent} holds the run of another configuration:",
            *changed,
            f"Continue it with: geodapt run {config} --out {config.parent} --resume",
            "or start this one in another folder with --out FOLDER",
        )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one level of dotted keys."""
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list):
        items = list(enumerate(values))
    else:
        return {prefix: values}
    if not items and prefix:
        return {prefix: values}
    return {
        path: leaf
        for key, value in items
        for path, leaf in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }
