"""Methods compared row by row: the same test rows for all, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from geodapt.metrics.resampling import paired_bootstrap

FIGURES = {"hit_at_1": lambda rank: float(rank == 1), "mrr": lambda rank: 1 / rank}
"""What is compared, from a row's rank."""


def answers_of(
    rows: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]], groups: list[str]
) -> dict[str, Any]:
    """Each row's rank under every method, curve points as ``lora@0.25``; and the rows' groups."""
    ranks = {row["method"]: row["answers"] for row in rows if "answers" in row}
    for point in curve:
        if point["fraction"] < 1 and "answers" in point:
            ranks[f"{point['method']}@{point['fraction']:g}"] = point["answers"]
    return {"groups": groups, "ranks": ranks}


def compared_rows(answers: Mapping[str, Any], against: str | None) -> dict[str, Any]:
    """``comparisons``: every method less ``against``, and curve points less that one's on the same
    share of the data; paired bootstrap intervals over groups of test rows."""
    if against is None:
        return {}
    ranks, found = answers["ranks"], []
    for name in ranks:
        method, at, share = name.partition("@")
        other = against + at + share
        if method == against or other not in ranks:
            continue
        line: dict[str, Any] = {"method": name, "against": other, "rows": len(ranks[name])}
        for figure, value in FIGURES.items():
            ours, theirs = ([value(rank) for rank in ranks[each]] for each in (name, other))
            interval = paired_bootstrap(ours, theirs, answers["groups"])
            line[figure] = {**asdict(interval), "visible": interval.visible}
        found.append(line)
    return {"comparisons": found}
