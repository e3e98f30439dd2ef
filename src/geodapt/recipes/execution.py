"""Running a recipe into a folder: starts a run, continues one, or finds it finished."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from geodapt import __version__
from geodapt.errors import InputError
from geodapt.files import sweep, write_text
from geodapt.locks import LOCK, holds_only_lock, only_user
from geodapt.paths import given
from geodapt.processes import is_main_process, wait_for_everyone
from geodapt.progress import schedule
from geodapt.recipes.document import Document, dump
from geodapt.recipes.loading import validate
from geodapt.runs import Recipe, RunFolder
from geodapt.systems import register_systems

register_systems()  # imports transformers, which takes seconds; users of this module expect that

# Keys that may differ without making it another run.
WORDS = {"title", "needs"}


def execute(recipe: Recipe, out: Path | str, resume: bool = False) -> dict[str, Any]:
    """Run a recipe into the folder ``out``; returns what its ``results.json`` holds.

    ``config.yaml`` is written before any work. With ``resume`` a run that was cut short continues
    in its folder, a finished one is not computed again, and a missing one starts.

    Raises :class:`InputError` when the folder holds something and ``resume`` is not set, or when
    it holds the run of another configuration.
    """
    out = given(out)
    with _held(recipe, out, resume):
        wait_for_everyone()
        folder = RunFolder(out)
        if folder.finished:
            return folder.results()
        try:
            return folder.finish(recipe.run(folder), recipe.seed)
        except InputError:
            # Refused before any work, so that the corrected call finds no folder in its way.
            if is_main_process() and folder.untouched:
                (out / "config.yaml").unlink()
            raise
        finally:
            schedule({})  # bars after a run, as in a notebook, are no stages of it


@contextmanager
def _held(recipe: Recipe, out: Path, resume: bool) -> Iterator[None]:
    """The run's folder for this run alone, with its configuration, in the main process."""
    if not is_main_process():
        yield
        return
    with ExitStack() as stack:
        try:
            _there(recipe, out, resume)  # refused without writing into somebody else's folder
            stack.enter_context(only_user(out, "work"))
            stack.callback(_remove_unused, out)  # while it is still held
            if _there(recipe, out, resume):  # now nobody else writes to it
                sweep(out)
            else:
                write_text(out / "config.yaml", config_text(recipe))
        except OSError as error:
            raise InputError(f"cannot write the run to {out}: {error.strerror}") from error
        yield


def _remove_unused(out: Path) -> None:
    """Remove folders that hold nothing but a lock, after a finished or refused run."""
    work = out / "work"
    with suppress(OSError):
        if work.is_dir() and holds_only_lock(work):
            shutil.rmtree(work)
        out.rmdir()


def _there(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether the run is in the folder already; raises where anything else is."""
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


def config_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every value written out."""
    header = (
        f"# Resolved by geodapt {__version__}. Running it again repeats the run:\n"
        "#   geodapt run config.yaml --out FOLDER\n"
    )
    return header + dump(recipe.model_dump(mode="json"))


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
