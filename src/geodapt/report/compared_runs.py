"""Several runs side by side: one table, and one chart per quantity for all of their curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.files import write_text
from geodapt.pages.rendering import render_sections
from geodapt.pages.section import RunRecord, Section, SystemPage
from geodapt.report.comparison import comparison_section
from geodapt.report.curves import curves_section
from geodapt.report.page import read_run
from geodapt.systems import page_of

HIDDEN = {"title", "needs"}
"""Keys of a recipe that do not change what a run does."""


class Compared:
    """The finished runs in some folders.

    Raises :class:`InputError` for fewer than two, and for a folder that holds no finished run.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        if len(folders) < 2:
            raise InputError("give two finished runs' folders or more, such as runs/a runs/b")
        self.runs: dict[str, RunRecord] = {}
        for name, folder in zip(short_names(folders), folders, strict=True):
            self.runs[name] = read_run(folder)

    @property
    def system_page(self) -> SystemPage:
        """The columns of all runs' systems."""
        return page_of(*(run.results.get("recipe") for run in self.runs.values()))

    def results(self) -> dict[str, Any]:
        """All rows of all runs as one ``results.json``, each row named by its run and method."""
        rows = [
            {**row, "method": f"{name}: {row['method']}", "label": f"{name}: {_label(row)}"}
            for name, run in self.runs.items()
            for row in run.results.get("rows") or ()
        ]
        if not rows:
            raise InputError("these runs have no rows of figures to compare")
        tested = {(run.results.get("data") or {}).get("test") for run in self.runs.values()}
        data = {"test": tested.pop()} if len(tested) == 1 else {}
        return {"title": f"{len(self.runs)} runs compared", "rows": rows, "data": data}

    def metrics(self) -> list[dict[str, Any]]:
        """All log lines, each stage named by its run."""
        return [
            {**line, "stage": f"{name}: {line['stage']}"}
            for name, run in self.runs.items()
            for line in run.metrics
            if isinstance(line, dict) and "stage" in line
        ]

    def settings(self) -> list[tuple[str, list[str]]]:
        """The recipe's keys whose values differ between the runs, and the values in their order."""
        import yaml

        flat = [flattened(yaml.safe_load(run.config or "") or {}) for run in self.runs.values()]
        keys = dict.fromkeys(key for each in flat for key in each if key not in HIDDEN)
        found = [(key, [_shown(each.get(key)) for each in flat]) for key in keys]
        return [(key, values) for key, values in found if len(set(values)) > 1]

    def page(self) -> str:
        """The comparison as one HTML file."""
        merged = RunRecord(self.results(), self.metrics(), "")
        differing = Section(
            "Settings that differ",
            "geodapt.report/settings.html",
            {"runs": list(self.runs), "rows": self.settings()},
        )
        built = [
            comparison_section(merged, self.system_page),
            differing,
            curves_section(merged, self.system_page),
        ]
        sections = [section for section in built if section is not None]
        lede = "; ".join(f"{name}: {run.results.get('title')}" for name, run in self.runs.items())
        return render_sections(merged.results["title"], lede, sections)

    def write_page(self, path: Path) -> Path:
        """Write the page; returns where it is."""
        write_text(path, self.page())
        return path


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' last names, with as much of the path before them as makes them differ."""
    parts = [Path(folder).absolute().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError("a run stands twice among those to compare; give each once")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(each) for each in parts]


def flattened(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys; lists stay whole."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(value: Any) -> str:
    """A setting as a recipe has it; what is not set, or not there, is a dash."""
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _label(row: dict[str, Any]) -> str:
    return str(row.get("label") or row["method"])
