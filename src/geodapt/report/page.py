"""The page: a run's sections in one HTML file that opens without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from geodapt.errors import InputError
from geodapt.files import write_text
from geodapt.report import (
    chains,
    comparison,
    compression,
    contributions,
    curves,
    details,
    efficiency,
    polar,
    predictions,
)
from geodapt.report.section import Run, Section
from geodapt.report.words import listed
from geodapt.runs import RunFolder

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    chains.section,
    comparison.section,
    polar.section,
    efficiency.section,
    contributions.section,
    predictions.section,
    compression.layers,
    compression.errors,
    curves.section,
    details.section,
)
"""In the order of the page. A section gives None when the run has nothing for it."""

templates = Environment(
    loader=PackageLoader("geodapt.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    Reads ``results.json``, and ``metrics.jsonl`` and ``config.yaml`` where they are. Raises
    :class:`InputError` when the folder is missing, holds no finished run, or its results are
    not as documented; nothing is written then.
    """
    found = read_run(Path(run))
    path = Path(run) / "report.html"
    write_text(path, render(found))
    return path


def read_run(path: Path) -> Run:
    """Read what a run's folder holds."""
    if not path.is_dir():
        raise InputError(
            f"{path} is not a folder; give the folder that `geodapt run --out` wrote to"
        )
    folder = RunFolder(path)
    results = folder.results()
    if not isinstance(results, dict):
        raise InputError(f"{path / 'results.json'} holds no JSON object; run the recipe again")
    config = path / "config.yaml"
    return Run(
        results=results,
        metrics=folder.metrics(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
    )


def render(run: Run) -> str:
    """The whole page as HTML."""
    sections = [section for build in SECTIONS if (section := build(run)) is not None]
    return templates.get_template("page.html").render(
        title=run.results.get("title") or run.results.get("recipe") or "geodapt run",
        lede=lede(run.results),
        sections=sections,
        plotlyjs=get_plotlyjs(),
    )


def lede(results: dict[str, Any]) -> str:
    """What was run, in a sentence or two."""
    said = []
    sources = [str(source) for source in results.get("sources") or ()]
    if results.get("target"):
        base = f"the frozen base model {results['base']}" if results.get("base") else ""
        if sources:
            server = f"The adapters of {listed(sources)}" + (f", on {base}," if base else "")
            said.append(f"{server} serve the domain {results['target']}.")
        elif base:
            said.append(f"{base.capitalize()} serves the domain {results['target']}.")
    if results.get("task") == "hierarchy" and results.get("base"):
        said.append(f"What {results['base']} knows of a hierarchy, untuned and tuned.")
    data = results.get("data") or {}
    if data.get("train") is not None and data.get("test") is not None:
        cases = {"classification": "texts", "hierarchy": "chains"}
        case = cases.get(str(results.get("task")), "sequences")
        sentence = f"Trained on {data['train']:,} {case} and tested on {data['test']:,}"
        if data.get("candidates"):
            sentence += f", with {data['candidates']:,} candidates to rank for each"
        said.append(sentence + ".")
    return " ".join(said)
