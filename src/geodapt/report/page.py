"""The page: a run's sections in one HTML file that opens without a network."""

import gzip
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
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
    written = datetime.fromtimestamp((path / "results.json").stat().st_mtime)
    return Run(
        results=results,
        metrics=folder.metrics(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        finished=f"{written:%Y-%m-%d %H:%M}",
    )


def render(run: Run) -> str:
    """The whole page as HTML."""
    sections = [section for build in SECTIONS if (section := build(run)) is not None]
    title = run.results.get("title") or run.results.get("recipe") or "geodapt run"
    return render_sections(str(title), lede(run.results), sections)


def render_sections(title: str, lede: str, sections: Sequence[Section]) -> str:
    """A page of sections as HTML; the library that draws is in it where there is a figure."""
    page = templates.get_template("page.html")
    drawn = any(has_figure(section.context) for section in sections)
    return page.render(
        title=title, lede=lede, sections=sections, library=packed_plotly() if drawn else ""
    )


def has_figure(context: Any) -> bool:
    """Whether a section's context holds a figure of :func:`geodapt.report.figures.style`."""
    if isinstance(context, Mapping):
        return {"data", "layout"} <= context.keys() or any(map(has_figure, context.values()))
    return isinstance(context, list) and any(map(has_figure, context))


@cache
def packed_plotly() -> str:
    """plotly.js by gzip, in base 64: 1.9 MB of a page where the plain library takes 4.8."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


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
