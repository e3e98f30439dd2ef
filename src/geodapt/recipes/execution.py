"""Running a recipe into a folder: starts a run, continues one, or finds it finished."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from geodapt import __version__
from geodapt.errors import InputError
from geodapt.files import sweep, write_text
from geodapt.locks import holds_only_lock, only_user
from geodapt.paths import given
from geodapt.processes import is_main_process, wait_for_everyone
from geodapt.progress import schedule
from geodapt.recipes.document import dump
from geodapt.recipes.place import check_place, is_there
from geodapt.runs import Recipe, RunFolder
from geodapt.systems import register_systems

register_systems()  # imports transformers, which takes seconds; users of this module expect that


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
            check_place(recipe, out, resume)  # refused without writing into another's folder
            stack.enter_context(only_user(out, "work"))
            stack.callback(_remove_unused, out)  # while it is still held
            if is_there(recipe, out, resume):  # now nobody else writes to it
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


def config_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every value written out."""
    header = (
        f"# Resolved by geodapt {__version__}. Running it again repeats the run:\n"
        "#   geodapt run config.yaml --out FOLDER\n"
    )
    return header + dump(recipe.model_dump(mode="json"))
