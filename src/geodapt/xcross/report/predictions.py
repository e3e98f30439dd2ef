"""Section: a few predictions, with what spoke for them."""

from typing import Any

import numpy as np

from geodapt.errors import InputError
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section
from geodapt.xcross.report.contributions import cells, given_by_source
from geodapt.xcross.results import KINDS, Candidate, Contributions, Example, check_shape

SHOWN = 5
"""How many of the best candidates are shown at once; the others are folded away."""


def predictions_section(run: RunRecord) -> Section | None:
    """The explained predictions, where the run kept some."""
    examples: list[Example] = parse_part(list[Example], run.results, "examples") or []
    examples = [example for example in examples if example.candidates]
    if not examples:
        return None
    model: Contributions | None = parse_part(Contributions, run.results, "contributions")
    return Section(
        "Predictions explained",
        "geodapt.xcross/predictions.html",
        {
            "ranking": run.results.get("task") != "classification",
            "examples": [_shown(example, model) for example in examples],
        },
    )


def _shown(example: Example, model: Contributions | None) -> dict[str, Any]:
    ranked = sorted(example.candidates, key=lambda candidate: -candidate.score)
    low, high = ranked[-1].score, ranked[0].score
    rows: list[dict[str, Any]] = [
        {
            "rank": rank,
            "name": candidate.name,
            "score": f"{candidate.score:.2f}",
            "width": round((candidate.score - low) / (high - low), 4) if high > low else 1.0,
            "target": candidate.is_target,
        }
        for rank, candidate in enumerate(ranked, start=1)
    ]
    return {
        "history": example.history,
        "text": example.text,
        "rank": rank_of_target(example.candidates),
        "of": len(rows),
        "open": [row for row in rows if row["rank"] <= SHOWN or row["target"]],
        "folded": [row for row in rows if row["rank"] > SHOWN and not row["target"]],
        "given": _given(example, model) if model else None,
    }


def rank_of_target(candidates: list[Candidate]) -> int | None:
    """The target's place; an equal score stands before it, so that a tie is no hit by luck."""
    target = next((candidate for candidate in candidates if candidate.is_target), None)
    if target is None:
        return None
    return 1 + sum(other.score >= target.score for other in candidates if other is not target)


def _given(example: Example, model: Contributions) -> dict[str, Any] | None:
    """How much each source gave for this very prediction, layer by layer."""
    if not (example.direct and example.interaction):
        return None
    try:
        for kind in KINDS:
            check_shape(kind, getattr(example, kind), len(model.layers), len(model.streams))
    except ValueError as error:
        raise InputError(f"results.json: examples: {error}; run the recipe again") from error
    by_source = {
        kind: given_by_source(np.asarray(getattr(example, kind), dtype=float)) for kind in KINDS
    }
    largest = max(float(values.max(initial=0)) for values in by_source.values())
    return {
        "streams": model.streams,
        "layers": model.layers,
        "kinds": [(name, cells(by_source[kind], largest)) for kind, name in KINDS.items()],
    }
