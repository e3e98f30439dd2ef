"""The page: a run's sections in one HTML file that opens without a network."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.files import write_text
from geodapt.pages.formatting import duration, listed
from geodapt.pages.rendering import render_sections
from geodapt.pages.results import as_documented
from geodapt.pages.section import RunRecord, Section
from geodapt.report.comparison import comparison_section
from geodapt.report.curves import curves_section
from geodapt.runs import RunFolder
from geodapt.systems import page_of


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


def read_run(path: Path) -> RunRecord:
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
    return RunRecord(
        results=results,
        metrics=folder.metrics(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        finished=f"{written:%Y-%m-%d %H:%M}",
    )


def render(run: RunRecord) -> str:
    """The whole page as HTML."""
    page = page_of(run.results.get("recipe"))
    built = [
        comparison_section(run, page),
        *(_built(section, run) for section in page.sections),
        curves_section(run, page),
        details_section(run),
    ]
    sections = [section for section in built if section is not None]
    title = run.results.get("title") or run.results.get("recipe") or "geodapt run"
    return render_sections(str(title), lede(run.results), sections)


def _built(section: Callable[[RunRecord], Section | None], run: RunRecord) -> Section | None:
    with as_documented(section.__name__.replace("_", " ")):
        return section(run)


def lede(results: dict[str, Any]) -> str:
    """What was run, in a sentence or two."""
    said = []
    sources = [str(source) for source in results.get("sources") or ()]
    if results.get("target"):
        base = f"frozen base model {results['base']}" if results.get("base") else ""
        if sources:
            server = f"The adapters of {listed(sources)}" + (f", on the {base}," if base else "")
            said.append(f"{server} serve the domain {results['target']}.")
        elif base:
            said.append(f"The {base} serves the domain {results['target']}.")
    if results.get("task") == "hierarchy" and results.get("base"):
        said.append(f"What {results['base']} knows of a hierarchy, untuned and tuned.")
    data = results.get("data") or {}
    if data.get("train") is not None and data.get("test") is not None:
        cases = {
            "classification": "texts",
            "hierarchy": "chains",
            "segmentation": "pages",
            "detection": "pictures",
            "panoptic": "pictures",
        }
        case = cases.get(str(results.get("task")), "sequences")
        sentence = f"{data['train']:,} {case} to train on, {data['test']:,} to test on"
        if data.get("candidates"):
            sentence += f", with {data['candidates']:,} candidates to rank for each"
        said.append(sentence + ".")
    return " ".join(said)


DATA = {
    "train": "training",
    "validation": "validation",
    "test": "test",
    "candidates": "candidates a case",
    "labels": "labels",
}


def details_section(run: RunRecord) -> Section | None:
    """The run's settings, machine and versions, as far as they are known."""
    facts = list(_facts(run.results))
    if run.finished:
        facts.append(("Finished", run.finished))
    if run.config:
        facts.append(("To repeat it", "geodapt run config.yaml --out FOLDER"))
    versions = run.results.get("versions") or {}
    if not (facts or versions or run.config):
        return None
    return Section(
        "Run details",
        "geodapt.report/details.html",
        {"facts": facts, "versions": versions, "config": run.config},
    )


def _facts(results: dict[str, Any]):
    named = {"recipe": "Recipe", "base": "Base model", "model": "Model", "target": "Target domain"}
    for key, name in named.items():
        if results.get(key):
            yield name, str(results[key])
    if results.get("sources"):
        yield "Source domains", listed([str(source) for source in results["sources"]])
    data = results.get("data") or {}
    names = DATA if "test" in data else {**DATA, "candidates": "candidates"}  # one set for all
    sizes = [f"{data[key]:,} {name}" for key, name in names.items() if data.get(key) is not None]
    if sizes:
        yield "Data", ", ".join(sizes)
    for note in results.get("notes") or ():
        yield "Note", str(note)
    if results.get("seed") is not None:
        yield "Seed", str(results["seed"])
    if results.get("seconds") is not None:
        yield "Time", duration(results["seconds"])
    if results.get("peak_memory_mb") is not None:
        yield "Peak memory", f"{results['peak_memory_mb']:,.0f} MB"
    for key, name in (("device", "Device"), ("python", "Python")):
        if results.get(key):
            yield name, str(results[key])
