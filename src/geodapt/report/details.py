"""Section: what is needed to repeat the run."""

from typing import Any

from geodapt.pages.formatting import duration, listed
from geodapt.pages.section import RunRecord, Section

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
    for key, name in (("recipe", "Recipe"), ("base", "Base model"), ("target", "Target domain")):
        if results.get(key):
            yield name, str(results[key])
    if results.get("sources"):
        yield "Source domains", listed([str(source) for source in results["sources"]])
    data = results.get("data") or {}
    sizes = [f"{data[key]:,} {name}" for key, name in DATA.items() if data.get(key) is not None]
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
