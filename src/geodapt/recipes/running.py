"""A recipe from Python, as ``geodapt run`` runs it from the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodapt.paths import child, given
from geodapt.recipes.loading import Loaded, load_recipe

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its figures and its page."""

    folder: Path
    results: dict[str, Any]
    page: Path

    @property
    def table(self) -> "pandas.DataFrame":
        """The rows of the table that the command line prints, with all of their figures."""
        import pandas

        rows = [
            {key: value for key, value in row.items() if not isinstance(value, dict | list)}
            for row in self.results.get("rows", [])
        ]
        return pandas.DataFrame(rows).set_index("label") if rows else pandas.DataFrame()

    def __repr__(self) -> str:
        rows = len(self.results.get("rows", []))
        return f"Run({str(self.folder)!r}: {rows} rows in .table; page {str(self.page)!r})"

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.4g}".format)


def run(
    recipe: str,
    *overrides: str,
    out: Path | str | None = None,
    resume: bool = False,
    smoke: bool = False,
) -> Run:
    """Run a ready-made recipe or a recipe's file; leave figures, model and a page in a folder.

    ::

        run = geodapt.run("demo", "training.steps=10", out="runs/short")
        run.table

    ``overrides`` are ``key=value`` as on the command line. ``out`` is ``runs/NAME`` when not
    given. With ``resume`` a run that was cut short continues, and a finished one is only read. With
    ``smoke`` every part runs on a few rows for two steps.

    Raises :class:`InputError` for what the command line refuses.
    """
    loaded = prepare_recipe(recipe, overrides, smoke, resume)
    folder = given(Path(out)) if out is not None else child(Path("runs"), loaded.name)
    from geodapt.recipes.execution import execute
    from geodapt.report import write_report

    results = execute(loaded.recipe, folder, resume)
    return Run(folder, results, write_report(folder))


def prepare_recipe(
    recipe: str, overrides: "tuple[str, ...] | list[str]", smoke: bool, resume: bool = False
) -> Loaded:
    """A validated recipe; with ``smoke`` at the smallest size that still runs all of it.

    Raises :class:`InputError`, before torch is imported, for what is wrong in it and for packages
    and files that it needs and that are missing; these only where no run goes on, since one that
    is finished needs none.
    """
    loaded = load_recipe(recipe, overrides)
    if not resume:
        loaded.recipe.require_inputs()
    if not smoke:
        return loaded
    small = loaded.recipe.small()
    small.title = f"{small.title or loaded.name} (smoke test)"  # its figures mean nothing
    return Loaded(f"{loaded.name}-smoke", small)
