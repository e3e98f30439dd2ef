"""The page as a whole: one file, every section that the run has something for, clear errors."""

import base64
import gzip
import json
import re
from urllib.parse import urlparse

import pytest
from html_page import read_html
from invented_run import CONFIG, classification_results, log_lines, ranking_results, write_run

from geodapt.errors import InputError
from geodapt.pages.section import RunRecord
from geodapt.report import write_report
from geodapt.report.page import details_section, lede, render

ALL = [
    "Comparison",
    "Data efficiency",
    "What each source domain gave",
    "Predictions explained",
    "Training",
    "Run details",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "demo")
    path = write_report(run)
    assert path == run / "report.html"
    return read_html(path.read_text(encoding="utf-8"))


def titles(page):
    return [section.all("h2")[0].text for section in page.all("section")]


def test_every_section_in_order(page):
    assert titles(page) == ALL
    assert page.all("title")[0].text == page.all("h1")[0].text == ranking_results()["title"]


def test_says_what_was_run(page):
    assert page.all("p", class_="lede")[0].text == (
        "The adapters of sympy, pandas and numpy, on the frozen base model minilm, serve the "
        "domain scikit-learn. 340 sequences to train on, 92 to test on, with 30 candidates to "
        "rank for each."
    )


def test_a_base_keeps_its_name():
    """Also where no sources stand before it."""
    results = {"target": "Toys", "base": "Qwen/Qwen3-0.6B"}
    assert lede(results) == "The frozen base model Qwen/Qwen3-0.6B serves the domain Toys."


def test_an_evaluated_model_is_named():
    results = {"recipe": "evaluate-lm", "model": "Qwen/Qwen3-0.6B"}
    details = details_section(RunRecord(results, [], ""))
    assert ("Model", "Qwen/Qwen3-0.6B") in details.context["facts"]


def test_loads_nothing_from_anywhere(page):
    """No element points outside, and the browser is told to refuse what a script might ask for."""
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]
    assert policy.attributes["content"].startswith("default-src 'none';")
    assert not re.search(r"https?:|\*", policy.attributes["content"] or "")
    everything = [page]
    while everything:
        element = everything.pop()
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert not urlparse(element.attributes.get(name) or "").geturl()
        everything += [child for child in element.children if not isinstance(child, str)]
    css = "".join(style.raw for style in page.all("style"))
    assert "url(" not in css
    assert "@import" not in css


def test_plotly_is_inside_once_and_whole(page):
    (packed,) = page.all("script", id="library")
    library = gzip.decompress(base64.b64decode(packed.raw)).decode()
    assert "plotly.js v" in library[:400]
    assert len(library) > 1_000_000
    assert not any("plotly.js v" in script.raw for script in page.all("script"))


def test_a_page_without_figures_is_small():
    chain = {"query": "a goat", "steps": [{"text": "animal", "radius": 0.1, "similarity": 0.5}]}
    results = {"recipe": "radial-query", "title": "Asked", "chains": [chain]}
    html = render(RunRecord(results, [], ""))
    assert len(html) < 500_000
    assert "plotly" not in html.lower()


def test_accessible(page):
    assert page.all("html")[0].attributes["lang"] == "en"
    ids = [heading.attributes["id"] for heading in page.all("h2")]
    assert [section.attributes["aria-labelledby"] for section in page.all("section")] == ids
    for plot in page.all("div", class_="plot"):
        assert plot.attributes["role"] == "img"
        assert plot.attributes["aria-label"]
    for table in page.all("table"):
        assert table.all("thead")
        assert all(head.attributes.get("scope") for head in table.all("th"))
    for region in page.all("div", class_="scroll"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "left_out"),
    [
        ("rows", "Comparison"),
        ("curve", "Data efficiency"),
        ("contributions", "What each source domain gave"),
        ("examples", "Predictions explained"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_part_that_the_run_lacks_is_left_out(missing, left_out, empty):
    results = ranking_results()
    if empty:
        results[missing] = type(results[missing])()
    else:
        del results[missing]
    page = read_html(render(RunRecord(results, log_lines(), CONFIG)))
    assert titles(page) == [title for title in ALL if title != left_out]


def test_a_bare_run_still_has_a_page(tmp_path):
    run = write_run(tmp_path, {"recipe": "compress", "figure": 3}, lines=[], config=None)
    page = read_html(write_report(run).read_text(encoding="utf-8"))
    assert page.all("h1")[0].text == "compress"
    assert titles(page) == ["Run details"]
    assert page.section("Run details").all("dd")[0].text == "compress"


def test_classification_has_its_own_metrics():
    page = read_html(render(RunRecord(classification_results(), [], "")))
    assert page.section("Comparison").table == [
        ["Method", "Accuracy %", "Macro F1 %"],
        ["LoRA", "81.0", "80.0"],
        ["X-Cross", "84.0", "79.0"],
    ]
    assert "800 texts to train on, 200 to test on." in page.all("p", class_="lede")[0].text
    (case,) = page.section("Predictions explained").all("article")
    assert case.all("blockquote")[0].text == "Arrived broken, and twice the price of the last one."
    assert [name.text for name in case.all("span", class_="name")] == [
        "negative target",
        "positive",
    ]


def test_details_show_config_and_versions(page):
    details = page.section("Run details")
    assert details.all("pre")[0].raw.strip() == CONFIG.strip()
    facts = dict(
        zip(
            [term.text for term in details.all("dt")],
            [value.text for value in details.all("dd")],
            strict=True,
        )
    )
    assert facts["Data"] == "340 training, 60 validation, 92 test, 30 candidates a case"
    queries = RunRecord({"data": {"candidates": 1680}}, [], "")  # the same candidates for all
    assert ("Data", "1,680 candidates") in details_section(queries).context["facts"]
    assert facts["Time"] == "5 min 18 s"
    assert facts["Peak memory"] == "1,577 MB"
    assert facts["Packages"] == "geodapt 0.1.0, torch 2.13.0, transformers 5.23.0"
    assert facts["Seed"] == "0"


def test_the_same_run_gives_the_same_page(tmp_path):
    run = write_run(tmp_path)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


class TestErrors:
    def test_no_folder(self, tmp_path):
        with pytest.raises(InputError, match="nowhere is not a folder"):
            write_report(tmp_path / "nowhere")

    def test_a_file(self, tmp_path):
        (tmp_path / "run").write_text("")
        with pytest.raises(InputError, match="not a folder"):
            write_report(tmp_path / "run")

    def test_not_finished(self, tmp_path):
        (tmp_path / "config.yaml").write_text("recipe: xcross\n")
        with pytest.raises(InputError, match=r"no results\.json"):
            write_report(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]

    @pytest.mark.parametrize("content", ["{", "[1]", "3"])
    def test_results_are_no_object(self, tmp_path, content):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(InputError, match=r"results\.json"):
            write_report(tmp_path)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"rows": 3}, "rows"),
            ({"rows": [{"label": "no method"}]}, "rows.0.method"),
            ({"curve": [{"method": "lora"}]}, "curve.0.fraction"),
            ({"contributions": {"streams": ["a"], "layers": [0]}}, "contributions.direct"),
            ({"examples": [{"candidates": [{"name": "x"}]}]}, "examples.0.candidates.0.score"),
        ],
    )
    def test_results_of_another_shape_keep_the_old_page(self, tmp_path, change, where):
        run = write_run(tmp_path)
        before = write_report(run).read_bytes()
        (run / "results.json").write_text(json.dumps(ranking_results() | change))
        with pytest.raises(InputError, match=rf"results\.json: {re.escape(where)}: "):
            write_report(run)
        assert (run / "report.html").read_bytes() == before
        assert sorted(path.name for path in run.iterdir()) == [
            "config.yaml",
            "metrics.jsonl",
            "report.html",
            "results.json",
        ]

    def test_contributions_that_do_not_fit_the_streams(self):
        results = ranking_results()
        results["contributions"]["streams"] = ["sympy", "pandas"]
        with pytest.raises(InputError, match="6 layers x 2 receivers x 2 givers"):
            render(RunRecord(results, [], ""))

    def test_an_example_that_does_not_fit_the_streams(self):
        results = ranking_results(layers=6)
        results["examples"][1]["interaction"] = ranking_results(layers=5)["examples"][1][
            "interaction"
        ]
        with pytest.raises(InputError, match="'interaction' is not 6 layers"):
            render(RunRecord(results, [], ""))
