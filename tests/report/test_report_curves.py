"""Training curves: what is drawn of a run's log lines, and how."""

import math

import pytest
from html_page import read_html
from invented_run import log_lines

from geodapt.pages.rendering import templates
from geodapt.pages.section import RunRecord
from geodapt.report.curves import curves_section
from geodapt.xcross.report import PAGE


def drawn(metrics):
    """The section as HTML."""
    section = curves_section(RunRecord({}, list(metrics), ""), PAGE)
    return read_html(templates.get_template(section.template).render(part=section.context))


def test_one_chart_a_quantity_with_all_stages_in_it():
    page = drawn(log_lines())
    heads = [head.text for head in page.all("h3")]
    assert heads[0] == "loss"
    assert sorted(heads) == sorted(["loss", "learning rate", "Hit@1 (%)", "MRR"])
    stages = ["source-sympy", "source-pandas", "source-numpy", "lora", "xcross"]
    losses = page.figures[0]["data"]
    assert [trace["name"] for trace in losses] == stages
    lines = [line for line in log_lines() if line["stage"] == "xcross"]
    assert losses[4]["x"] == [line["step"] for line in lines]
    assert losses[4]["y"] == pytest.approx([line["loss"] for line in lines])
    assert len({trace["line"]["color"] for trace in losses}) == len(stages)


def test_shares_are_percentages_as_in_the_table():
    lines = [{"stage": "a", "step": 1, "validation_hit_at_5": 0.25, "validation_mrr": 0.5}]
    page = drawn(lines)
    assert [head.text for head in page.all("h3")] == ["Hit@5 (%)", "MRR"]
    assert [figure["data"][0]["y"] for figure in page.figures] == [[25], [0.5]]


def test_no_tick_stands_between_two_steps():
    ticks = []
    for last in (2, 4000):
        lines = [{"stage": "a", "step": step, "loss": 1.0} for step in (1, last)]
        (figure,) = drawn(lines).figures
        ticks.append(figure["layout"]["xaxis"].get("dtick"))
    assert ticks == [1, None]


def test_validation_is_dashed_on_its_trainings_chart():
    lines = [{"stage": "a", "step": 1, "loss": 2.0, "validation_loss": 1.0, "validation_mrr": 0.5}]
    loss, mrr = drawn(lines).figures
    assert [trace["line"]["dash"] for trace in loss["data"]] == ["solid", "dash"]
    assert [trace["line"]["dash"] for trace in mrr["data"]] == ["dash"]


def test_many_curves_of_one_quantity_share_a_chart_and_no_legend():
    """Curvatures of experts: twenty curves leave the plot its room."""
    curvatures = {f"layer_0_expert_{n}_curvature": 1 + n / 10 for n in range(20)}
    lines = [{"stage": "helm", "step": step, **curvatures} for step in (1, 2)]
    page = drawn(lines)
    (figure,) = page.figures
    assert len(figure["data"]) == 20
    assert not figure["layout"]["showlegend"]
    assert len(page.all("li")) == 1


def test_more_stages_than_colours_are_told_apart_by_marks():
    lines = [
        {"stage": f"run-{number}", "step": step, "loss": 1.0, "validation_loss": 2.0}
        for number in range(20)
        for step in range(20)
    ]
    page = drawn(lines)
    traces = page.figures[0]["data"]
    looks = {
        (t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"], t["mode"]) for t in traces
    }
    assert len(looks) == len(traces) == 40
    legend = [item.text for item in page.all("ul", class_="legend")[0].all("li")]
    assert legend[:7] == [*(f"run-{number}" for number in range(6)), "■ run-6"]
    assert legend[12] == "▲ run-12"
    marked = [t for t in traces if t["name"].startswith("run-6")]
    assert all("markers" in t["mode"] for t in marked)


def test_values_that_are_no_numbers_are_gaps():
    lines = [
        {"stage": "a", "step": 2, "loss": math.nan},
        {"stage": "a", "step": 3, "loss": 1.0},
        {"stage": "a", "step": 1, "loss": 2.0, "validation_loss": None},
        {"stage": "b", "step": 1, "note": "text only"},
        ["not a line"],
    ]
    page = drawn(lines)
    (figure,) = page.figures
    assert [(trace["x"], trace["y"]) for trace in figure["data"]] == [([1, 3], [2.0, 1.0])]
