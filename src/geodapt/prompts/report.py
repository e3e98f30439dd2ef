"""What a run of prompt learners adds to its page: base against new, accuracy against shots."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import plotly.graph_objects as go

from geodapt.pages.columns import ACCURACY, Column, as_percent
from geodapt.pages.plotly_style import LINES, plotly_text, style
from geodapt.pages.section import RunRecord, Section, SystemPage, table_section
from geodapt.prompts.recipe import LABELS, NONE

MARKS = {"": "circle", "□": "square-open", "▲": "triangle-up", "✚": "cross", "★": "star"}
"""What tells adapters apart: a mark in the legend -> a marker in the figure."""


def halves_section(run: RunRecord) -> Section | None:
    """Each learner of each seed as a point: its accuracy on the base and on the new classes."""
    found = run.part("prompts")
    points = [one for one in found.get("runs", []) if "base" in one["parts"]]
    if not points:
        return None
    looks = _looks(points)
    figure = go.Figure()
    for name in looks:
        own = [one for one in points if _name(one) == name]
        figure.add_scatter(
            x=[100 * one["parts"]["base"] for one in own],
            y=[100 * one["parts"]["new"] for one in own],
            mode="markers",
            name=plotly_text(name),
            text=[
                plotly_text(f"{one['set']}, shots: {one['shots']}, seed {one['run_seed']}")
                for one in own
            ],
            hovertemplate="%{text}<br>base %{x:.1f} %, new %{y:.1f} %",
            marker={"size": 9, **_marker(looks[name])},
        )
    figure.update_xaxes(title="Base classes, %")
    figure.update_yaxes(title="New classes, %")
    drawn = style(figure, height=380, showlegend=False)
    context = {"figure": drawn, "learners": looks.values(), "notes": found.get("notes", [])}
    return Section("Base against new", "geodapt.prompts/halves.html", context)


def shots_section(run: RunRecord) -> Section | None:
    """The mean accuracy over seeds against the number of shots; plain CLIP as a level."""
    means: dict[str, dict[int, list[float]]] = {}  # by learner and shots
    for one in run.part("prompts").get("runs", []):
        accuracy = one["parts"].get("all", one["parts"].get("source"))
        if accuracy is not None:
            of_shots = means.setdefault(_name(one), {})
            of_shots.setdefault(one["shots"], []).append(100 * accuracy)
    shots = sorted({number for own in means.values() for number in own if number})
    if not shots:
        return None
    looks = _looks(run.part("prompts")["runs"])
    figure = go.Figure()
    for name, own in means.items():
        level = list(own) == [0]  # it sees no shots
        x = shots if level else sorted(own)
        figure.add_scatter(
            x=x,
            y=[mean(own[0 if level else each]) for each in x],
            mode="lines" if level else "lines+markers",
            line={"dash": "dot" if level else "solid", "color": looks[name]["colour"]},
            marker=_marker(looks[name]),
            name=plotly_text(name),
            hovertemplate="%{x} shots: %{y:.1f} %",
        )
    figure.update_xaxes(title="Pictures of each class", type="log", tickvals=shots)
    figure.update_yaxes(title="Accuracy, %")
    context = {"figure": style(figure, height=360, showlegend=False), "learners": looks.values()}
    return Section("Accuracy against shots", "geodapt.prompts/shots.html", context)


def sets_section(run: RunRecord) -> Section | None:
    """Accuracy on each of the other sets or domains, the mean over seeds."""
    found = run.part("prompts")
    runs = found["runs"] if found.get("protocol") in ("cross", "domain") else []
    sets = [part for part in runs[0]["parts"] if part != "source"] if runs else []
    groups: dict[tuple[str, int], list[dict[str, float]]] = {}
    for one in runs:
        groups.setdefault((_name(one), one["shots"]), []).append(one["parts"])
    rows = [
        [name, shots or "–", *(as_percent(mean(parts.get(s, 0.0) for parts in own)) for s in sets)]
        for (name, shots), own in groups.items()
    ]
    heads = ["Learner", "Shots", *((name, "%") for name in sets)]
    return table_section("Other pictures", heads, rows, about="Accuracy on other sets")


def adapter_section(run: RunRecord) -> Section | None:
    """What the adapter adds to each host, in points, with its interval."""
    rows = [
        (
            f"{one['host']} + {one['adapter']}",
            one["shots"],
            f"{100 * one['difference']:+.2f}",
            f"{100 * one['low']:+.2f} to {100 * one['high']:+.2f}",
            one["pairs"],
            f"{100 * one['detectable']:.2f}" if one["detectable"] else "–",
        )
        for one in run.part("prompts").get("differences", [])
    ]
    said = (
        "Accuracy (the harmonic mean under base-to-new), paired by set and seed: the same "
        "shots, start and batches. The interval holds 95 % of the bootstrap resamples over "
        "pairs and pictures. A true difference of the size in the last column would be found in "
        "four of five such comparisons."
    )
    heads = [
        *("Learner", "Shots", ("Difference", "points"), ("Interval", "points"), "Pairs"),
        ("Detectable", "points"),
    ]
    return table_section("What the adapter adds", heads, rows, said)


def _name(one: dict[str, Any]) -> str:
    """What a learner is called."""
    named = [one["host"], *([] if one["adapter"] == NONE else [one["adapter"]])]
    return " + ".join(LABELS.get(name, name) for name in named)


def _looks(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Each learner by name: its host's colour, its adapter's mark."""
    hosts, adapters = (list(dict.fromkeys(one[key] for one in runs)) for key in ("host", "adapter"))
    return {
        _name(one): {
            "name": _name(one),
            "colour": LINES[hosts.index(one["host"]) % len(LINES)],
            "mark": [*MARKS][adapters.index(one["adapter"]) % len(MARKS)],
        }
        for one in runs
    }


def _marker(look: dict[str, str]) -> dict[str, Any]:
    return {"color": look["colour"], "symbol": MARKS[look["mark"]]}


HALVES = (
    Column("harmonic_mean", "Harmonic mean", as_percent, "%", short="HM"),
    Column("base", "Base classes", as_percent, "%", short="Base"),
    Column("new", "New classes", as_percent, "%", short="New"),
)
"""Of the protocol base-to-new."""
PAGE = SystemPage(
    metrics=(
        *HALVES,
        ACCURACY,
        Column("others", "Other sets", as_percent, "%", short="Others"),
    ),
    sections=(halves_section, shots_section, sets_section, adapter_section),
)
