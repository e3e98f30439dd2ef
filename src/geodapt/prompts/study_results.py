"""From the answers of learners to rows of a table and paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from geodapt.data.vision.pictures import Pictures, label_column
from geodapt.prompts.learner import PromptLearner
from geodapt.prompts.protocols import (
    MAIN_FIGURE,
    Protocol,
    average_of_sets,
    paired_difference,
    read_answers,
)
from geodapt.prompts.recipe import LABELS, NONE

TIMES_ERROR = 2.8
"""A true difference of so many standard errors is found in four of five comparisons."""


def right_answers(learner: PromptLearner, pictures: Pictures) -> Bool[np.ndarray, " pictures"]:
    """Whether each test picture's class comes first among these classes."""
    rows = pictures.splits["test"]
    found = learner.logits(rows["image"], pictures.names).argmax(-1).numpy()
    return found == label_column(rows)


def adapter_differences(
    protocol: Protocol, runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What each adapter adds to its host, with a bootstrap interval of 95 %.

    Paired by set and seed: the same shots, start and batches. A plain CLIP without an adapter sees
    no shots, and stands beside all of them.
    """
    without = {_pair(run): run for run in runs if run["adapter"] == NONE}
    groups: dict[tuple[str, str, int], list[tuple[Mapping, Mapping]]] = {}
    for run in runs:
        other = without.get(_pair(run)) or without.get((run["host"], run["set"], 0, 0))
        if run["adapter"] != NONE and other is not None:
            key = run["host"], run["adapter"], run["shots"]
            groups.setdefault(key, []).append((run, other))
    return [
        _difference(protocol, LABELS[host], adapter, shots, pairs)
        for (host, adapter, shots), pairs in groups.items()
    ]


def _pair(run: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return run["host"], run["set"], run["shots"], run["run_seed"]


def _difference(
    protocol: Protocol,
    host: str,
    adapter: str,
    shots: int,
    runs: Sequence[tuple[Mapping, Mapping]],
) -> dict[str, Any]:
    pairs = [(read_answers(one["right"]), read_answers(other["right"])) for one, other in runs]
    found = paired_difference(protocol, pairs, MAIN_FIGURE[protocol])
    error = (found.high - found.low) / (2 * 1.96)
    return {
        "host": host,
        "adapter": LABELS.get(adapter, adapter),
        "shots": shots,
        "figure": MAIN_FIGURE[protocol],
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "detectable": TIMES_ERROR * error,
        "pairs": found.pairs,
        "pictures": found.pictures,
    }


def learner_rows(
    protocol: Protocol, runs: Sequence[Mapping[str, Any]], transductive: bool
) -> list[dict[str, Any]]:
    """A row for each host, adapter and number of shots: means over sets and seeds.

    Of base and new it is the harmonic mean of the means, as published.
    """
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["host"], run["adapter"], run["shots"]), []).append(run)
    several = len({shots for *_, shots in groups if shots}) > 1
    return [_row(protocol, key, group, several, transductive) for key, group in groups.items()]


def _row(
    protocol: Protocol,
    key: tuple[str, str, int],
    group: Sequence[Mapping[str, Any]],
    several: bool,
    transductive: bool,
) -> dict[str, Any]:
    host, adapter, shots = key
    shown_new = " (shown the new classes)" if host == "promptkd" and transductive else ""
    named = [LABELS.get(name, name) for name in (host, adapter) if name != NONE]
    of = f", {shots} {'shot' if shots == 1 else 'shots'}" if several and shots else ""
    figures = average_of_sets(protocol, [run["parts"] for run in group])
    main = MAIN_FIGURE[protocol]
    shown: dict[str, float] = {
        name: figures[name] for name in ("base", "new", "harmonic_mean") if name in figures
    }
    if protocol != "base-to-new":
        shown = {"accuracy": figures.get("all", figures.get("source", figures[main]))}
    if "average" in figures:
        shown["others"] = figures["average"]
    return {
        "method": f"{host}-{adapter}-{shots}",
        "label": " + ".join(named) + shown_new + of,
        "trainable_parameters": group[0]["trainable_parameters"],
        "seconds": round(sum(run["seconds"] for run in group), 2),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in group),
        "seeds": len({run["run_seed"] for run in group}),
        **shown,
        "parts": figures,
    }
