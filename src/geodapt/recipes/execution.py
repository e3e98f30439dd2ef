"""Running a recipe into a folder: what may start, what goes on, what is already done."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import geodapt.helm  # noqa: F401 - registers its model type, which any recipe may name
from geodapt import __version__
from geodapt.errors import InputError
from geodapt.files import sweep, write_text
from geodapt.processes import is_main_process, wait_for_everyone
from geodapt.recipes.document import Document, dump
from geodapt.recipes.loading import validate
from geodapt.runs import Recipe, RunFolder

# What a person may change about a finished run without making it another run.
WORDS = {"title", "needs"}


def execute(recipe: Recipe, out: Path | str, resume: bool = False) -> dict[str, Any]:
    """Run a recipe into the folder ``out``; returns what its ``results.json`` holds.

    ``config.yaml`` is written before any work. With ``resume`` a run that was cut short goes on
    in its folder, a finished one is not computed again, and a missing one starts.

    Raises :class:`InputError` when the folder holds something and ``resume`` is not set, or when
    it holds the run of another configuration.
    """
    out = Path(out)
    if is_main_process():
        _prepare(recipe, out, resume)
    wait_for_everyone()
    folder = RunFolder(out)
    if folder.finished:
        return folder.results()
    try:
        return folder.finish(recipe.run(folder), recipe.seed)
    except InputError:
        # Refused before any work: the mended call finds no folder in its way.
        if is_main_process() and folder.untouched:
            (out / "config.yaml").unlink()
            with suppress(OSError):  # it may hold what the recipe keeps there
                out.rmdir()
        raise


def _prepare(recipe: Recipe, out: Path, resume: bool) -> None:
    config = out / "config.yaml"
    try:
        if out.exists() and any(out.iterdir()):
            if not resume:
                raise InputError(
                    f"{out} is not empty; go on with its run by --resume, "
                    "or start another with --out FOLDER"
                )
            if config.is_file():
                _require_same(recipe, config)
                return sweep(out)
            raise InputError(
                f"{out} holds files but no config.yaml: not a run that can be resumed; "
                "give another folder with --out"
            )
        write_text(config, config_text(recipe))
    except OSError as error:
        raise InputError(f"cannot write the run to {out}: {error.strerror}") from error


def config_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every value written out."""
    header = (
        f"# Resolved by geodapt {__version__}. Running it again repeats the run:\n"
        "#   geodapt run config.yaml --out FOLDER\n"
    )
    return header + dump(recipe.model_dump(mode="json"))


def _require_same(recipe: Recipe, config: Path) -> None:
    """Refuse to go on with the run of another configuration."""
    # Validated, so that a key that is newer than the run has its default there too.
    there = validate(Document.read(config, str(config)), type(recipe))
    before, now = (_flat(each.model_dump(mode="json")) for each in (there, recipe))
    changed = [
        f"  {key}: {before.get(key, 'absent')!s} there, {now.get(key, 'absent')!s} asked"
        for key in dict.fromkeys((*before, *now))
        if key not in WORDS and before.get(key, ...) != now.get(key, ...)
    ]
    if changed:
        raise InputError(
            f"{config.parent} holds the run of another configuration:\n"
            + "\n".join(changed)
            + f"\nGo on with it by: geodapt run {config} --out {config.parent} --resume\n"
            "or start this one in another folder with --out FOLDER"
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
