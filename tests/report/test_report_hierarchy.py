"""Chains around their root, and chains retrieved for queries, on the page and in the terminal."""

import math

import pytest
from html_page import read_html

from geodapt.errors import InputError
from geodapt.pages.section import RunRecord
from geodapt.report import print_table
from geodapt.report.page import render

PICTURE = {
    "texts": ["animal", "goat", "a goat <b>eats</b>", "car"],
    "chains": [[0, 1, 2], [0, 3]],
    "radii": [0.6, 0.8, 1.1, 0.9],
    "angles": [0.0, math.pi / 2, 2.0, 4.0],
    "angle_error": 12.5,
}
RESULTS = {
    "recipe": "radial",
    "title": "Chains",
    "task": "hierarchy",
    "base": "minilm",
    "rows": [
        {"method": "untuned", "label": "Untuned", "tau_d": 0.72, "recall": 0.4},
        {"method": "radial", "label": "Radial embeddings", "tau_d": 0.97, "recall": 0.5},
    ],
    "pictures": {"Untuned": PICTURE, "Radial embeddings": {**PICTURE, "angle_error": 9.0}},
    "data": {"train": 100, "test": 20},
    "notes": ["3 images skipped"],
}
CHAINS = {
    "recipe": "radial-query",
    "title": "Concepts",
    "base": "minilm",
    "chains": [
        {
            "query": "two <goats>",
            "steps": [
                {"text": "animal", "radius": 0.7, "similarity": 0.3},
                {"text": "a goat", "radius": 0.95, "similarity": 0.6},
            ],
        }
    ],
}


def page(results):
    return read_html(render(RunRecord(results, [], "")))


def test_pictures_stand_side_by_side():
    section = page(RESULTS).section("Around the root")
    assert [h.text for h in section.all("h3")] == ["Untuned", "Radial embeddings"]
    assert "12.5°" in section.text
    assert "2 held-out chains" in section.text
    assert len(section.figures) == 2


def test_a_point_is_at_its_radius_and_angle():
    figure = page(RESULTS).section("Around the root").figures[0]
    lines, points, root = figure["data"]
    for row, (radius, angle) in enumerate(zip(PICTURE["radii"], PICTURE["angles"], strict=True)):
        x, y = points["x"][row], points["y"][row]
        assert math.hypot(x, y) == pytest.approx(radius)
        assert math.atan2(y, x) % (2 * math.pi) == pytest.approx(angle)
    assert points["customdata"] == [[1, 0.6], [2, 0.8], [3, 1.1], [2, 0.9]]
    assert points["text"][2] == "a goat &lt;b&gt;eats&lt;/b&gt;"
    assert root["x"] == root["y"] == [0]
    assert lines["x"].count(None) == 2
    ranges = [figure["layout"][axis]["range"] for axis in ("xaxis", "yaxis")]
    assert ranges[0] == ranges[1]
    circles = [shape["x1"] for shape in figure["layout"]["shapes"]]
    assert 3 <= len(circles) <= 7
    assert max(circles) <= 1.1


def test_every_level_has_a_mark_of_its_own():
    deep = 60
    chain = {
        "texts": [f"text {level}" for level in range(deep)],
        "chains": [list(range(deep))],
        "radii": [0.1 + level / deep for level in range(deep)],
        "angles": [0.1 * level for level in range(deep)],
        "angle_error": 0.0,
    }
    section = page({**RESULTS, "pictures": {"Untuned": chain}}).section("Around the root")
    marker = section.figures[0]["data"][1]["marker"]
    assert len(set(marker["symbol"][:10])) == 10
    assert len(set(zip(marker["symbol"], marker["color"], strict=True))) == deep
    told = [level.text.split() for level in section.all("span") if "level" in level.text]
    assert [[mark, number] for mark, _, number in told[:2]] == [["●", "1"], ["■", "2"]]


def test_the_page_says_what_was_measured():
    read = page(RESULTS)
    assert "What minilm knows of a hierarchy" in read.text
    assert "100 chains to train on, 20 to test on." in read.text
    assert read.section("Comparison").table[1][1] == "0.720"
    assert "3 images skipped" in read.section("Run details").text


def test_retrieved_chains():
    section = page(CHAINS).section("From general to specific")
    assert section.all("h3")[0].text == "two <goats>"
    assert section.table[1:] == [["animal", "0.700", "0.300"], ["a goat", "0.950", "0.600"]]


def test_retrieved_chains_in_the_terminal(capsys):
    print_table(CHAINS)
    said = capsys.readouterr().out.splitlines()
    assert said[0].strip() == "two <goats>"
    assert said[1].split() == ["0.700", "animal"]
    assert said[2].split() == ["0.950", "a", "goat"]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({**RESULTS, "pictures": {"Untuned": {"texts": []}}}, r"pictures.Untuned.chains"),
        ({**CHAINS, "chains": [{"query": "a"}]}, r"chains.0.steps"),
    ],
)
def test_results_that_were_edited(results, said):
    with pytest.raises(InputError, match=said):
        render(RunRecord(results, [], ""))
