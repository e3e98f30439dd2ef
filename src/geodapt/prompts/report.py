"""What a run of prompt learners adds to its page: base against new, accuracy against shots."""

from statistics import mean
from typing import Any

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict

from geodapt.pages.columns import ACCURACY, Column, as_percent
from geodapt.pages.plotly_style import plotly_text, style
from geodapt.pages.results import parse_part
from geodapt.pages.section import RunRecord, Section, SystemPage


class OneRun(BaseModel):
    """One learner of one seed."""

    model_config = ConfigDict(extra="ignore")

    host: str
    adapter: str
    set: str = ""
    """The pictures' title."""
    shots: int
    run_seed: int
    parts: dict[str, float] = {}

    @property
    def accuracy(self) -> float | None:
        """On all classes of the pictures that were tuned on."""
        return self.parts.get("all", self.parts.get("source"))

    @property
    def place(self) -> str:
        """What its point stands for."""
        return ", ".join(
            [*filter(None, [self.set]), f"{self.shots} shots", f"seed {self.run_seed}"]
        )

    @property
    def name(self) -> str:
        return self.host if self.adapter == "none" else f"{self.host} + {self.adapter}"


class AdapterDifference(BaseModel):
    """What an adapter adds to its host."""

    model_config = ConfigDict(extra="ignore")

    host: str
    adapter: str
    shots: int
    difference: float
    low: float
    high: float
    detectable: float = 0.0
    """The true difference that four of five such comparisons would find."""
    pairs: int


class PromptDetails(BaseModel):
    """The part ``prompts`` of a ``results.json``."""

    model_config = ConfigDict(extra="ignore")

    protocol: str
    runs: list[OneRun]
    differences: list[AdapterDifference] = []
    notes: list[str] = []


def halves_section(run: RunRecord) -> Section | None:
    """Each learner of each seed as a point: its accuracy on the base and on the new classes."""
    found = _details(run)
    points = [one for one in found.runs if "base" in one.parts] if found else []
    if not points or found is None:
        return None
    figure = go.Figure()
    for name in dict.fromkeys(one.name for one in points):
        own = [one for one in points if one.name == name]
        figure.add_scatter(
            x=[100 * one.parts["base"] for one in own],
            y=[100 * one.parts["new"] for one in own],
            mode="markers",
            name=plotly_text(name),
            text=[plotly_text(one.place) for one in own],
            hovertemplate="%{text}<br>base %{x:.1f} %, new %{y:.1f} %",
            marker={"size": 9},
        )
    figure.update_xaxes(title="Base classes, %")
    figure.update_yaxes(title="New classes, %")
    context = {"figure": style(figure, height=380), "notes": found.notes}
    return Section("Base against new", "geodapt.prompts/halves.html", context)


def shots_section(run: RunRecord) -> Section | None:
    """The mean accuracy over seeds against the number of shots; plain CLIP as a level."""
    found = _details(run)
    runs = [one for one in found.runs if one.accuracy is not None] if found else []
    shots = sorted({one.shots for one in runs if one.shots})
    if not runs or not shots:
        return None
    figure = go.Figure()
    for name in dict.fromkeys(one.name for one in runs):
        own: dict[int, list[float]] = {}
        for one in runs:
            if one.name == name and one.accuracy is not None:
                own.setdefault(one.shots, []).append(100 * one.accuracy)
        level = list(own) == [0]  # it sees no shots
        x = shots if level else sorted(own)
        figure.add_scatter(
            x=x,
            y=[mean(own[0 if level else each]) for each in x],
            mode="lines" if level else "lines+markers",
            line={"dash": "dot"} if level else {},
            name=plotly_text(name),
            hovertemplate="%{x} shots: %{y:.1f} %",
        )
    figure.update_xaxes(title="Pictures of each class", type="log", tickvals=shots)
    figure.update_yaxes(title="Accuracy, %")
    context = {"figure": style(figure, height=360)}
    return Section("Accuracy against shots", "geodapt.prompts/shots.html", context)


def sets_section(run: RunRecord) -> Section | None:
    """Accuracy on each of the other sets or domains, the mean over seeds."""
    found = _details(run)
    runs = found.runs if found and found.protocol in ("cross", "domain") else []
    if not runs:
        return None
    sets = [part for part in runs[0].parts if part != "source"]
    rows: list[dict[str, Any]] = []
    for name, shots in dict.fromkeys((one.name, one.shots) for one in runs):
        own = [one for one in runs if (one.name, one.shots) == (name, shots)]
        cells = [as_percent(mean(one.parts.get(each, 0.0) for one in own)) for each in sets]
        rows.append({"name": name, "shots": shots or "–", "cells": cells})
    return Section("Other pictures", "geodapt.prompts/sets.html", {"sets": sets, "rows": rows})


def adapter_section(run: RunRecord) -> Section | None:
    """What the adapter adds to each host, in points, with its interval."""
    found = _details(run)
    if found is None or not found.differences:
        return None
    rows = [
        {
            "name": f"{one.host} + {one.adapter}",
            "shots": one.shots,
            "pairs": one.pairs,
            "detectable": f"{100 * one.detectable:.2f}" if one.detectable else "–",
            "points": f"{100 * one.difference:+.2f}",
            "interval": f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
        }
        for one in found.differences
    ]
    context = {"rows": rows}
    return Section("What the adapter adds", "geodapt.prompts/differences.html", context)


def _details(run: RunRecord) -> PromptDetails | None:
    return parse_part(PromptDetails, run.results, "prompts")


PAGE = SystemPage(
    metrics=(
        Column("harmonic_mean", "Harmonic mean", as_percent, "%", short="HM"),
        Column("base", "Base classes", as_percent, "%", short="Base"),
        Column("new", "New classes", as_percent, "%", short="New"),
        ACCURACY,
        Column("others", "Other sets", as_percent, "%", short="Others"),
    ),
    sections=(halves_section, shots_section, sets_section, adapter_section),
)
