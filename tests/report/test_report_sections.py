"""What the sections say and draw, against figures worked out by hand."""

import math

import pytest
from html_page import read_html
from hypothesis import given as samples
from hypothesis import strategies as st
from invented_run import METHODS, SOURCES, ranking_results

from geodapt.pages.columns import (
    ACCURACY,
    MRR,
    PERPLEXITY,
    SECONDS,
    TRAINABLE,
    Column,
    as_percent,
)
from geodapt.pages.formatting import decimals, duration, listed, percent
from geodapt.pages.rendering import templates
from geodapt.pages.results import read_rows
from geodapt.pages.section import RunRecord
from geodapt.report.comparison import comparison_section, comparison_sentence
from geodapt.report.page import render
from geodapt.xcross.report import PAGE
from geodapt.xcross.report.contributions import contributions_section
from geodapt.xcross.report.efficiency import efficiency_section
from geodapt.xcross.report.predictions import Candidate, predictions_section, rank_of_target


def built(section, results=None, metrics=()):
    """A section of the invented run, as HTML."""
    made = section(RunRecord(ranking_results() if results is None else results, list(metrics), ""))
    return read_html(templates.get_template(made.template).render(part=made.context))


def with_page(section):
    """A section that needs the columns of the run's system."""
    return lambda run: section(run, PAGE)


class TestComparison:
    def test_table(self):
        table = built(with_page(comparison_section)).table
        assert table[0] == [
            "Method",
            *("Hit@1 %", "Hit@3 %", "Hit@5 %", "Hit@10 %", "MRR", "NDCG@10"),
            *("Trainable parameters", "Time s", "Memory MB"),
        ]
        assert [row[0] for row in table[1:]] == [method[1] for method in METHODS]
        assert table[-1][1:] == [
            *("52.2", "67.2", "74.2", "83.2", "0.632", "0.682"),
            *("157,313", "114", "1,058"),
        ]

    def test_best_of_each_column_is_bold(self):
        page = built(with_page(comparison_section))
        bold = {}
        for row in page.all("tbody")[0].all("tr"):
            bold[row.all("th")[0].text] = [cell.text for cell in row.all("strong")]
        assert bold["LoRA trained on scikit-learn"] == [
            *("55.4", "70.4", "77.4", "86.4", "0.664", "0.714")
        ]
        assert bold["X-Cross"] == ["157,313"]
        assert bold["Base, no adapter"] == ["3.2", "900"]

    def test_a_missing_figure_is_a_dash_and_never_the_best(self):
        results = ranking_results()
        results["rows"][0]["mrr"] = None
        del results["rows"][1]["seconds"]
        table = built(with_page(comparison_section), results).table
        assert table[1][5] == "–"
        assert table[2][8] == "–"

    def test_bars(self):
        (figure,) = built(with_page(comparison_section)).figures
        (bars,) = figure["data"]
        assert bars["x"] == [pytest.approx(100 * method[2]) for method in METHODS]
        assert figure["layout"]["yaxis"]["ticktext"][-1] == "X-Cross"
        assert bars["marker"]["color"].count("var(--accent)") == 1
        assert bars["marker"]["color"][-1] == "var(--accent)"
        share = METHODS[-1][2]
        assert bars["error_x"]["array"][-1] == pytest.approx(
            100 * math.sqrt(share * (1 - share) / 92)
        )

    @pytest.mark.parametrize(
        ("own", "rival", "said"),
        [
            (0.5, 0.4, "Highest Hit@1: X-Cross, 50.0 %; 10.0 points above the next, LoRA."),
            (0.4, 0.5, "Highest Hit@1: LoRA, 50.0 %; X-Cross has 40.0 %, 10.0 points less."),
            (0.5, 0.5, "Highest Hit@1: LoRA and X-Cross, 50.0 %."),
            (None, 0.5, "Highest Hit@1: LoRA, 50.0 %."),
            (0.5, None, "Highest Hit@1: X-Cross, 50.0 %."),
        ],
    )
    def test_verdict(self, own, rival, said):
        rows = read_rows(
            {
                "rows": [
                    {"method": "lora", "label": "LoRA", "hit_at_1": rival},
                    {"method": "xcross", "label": "X-Cross", "hit_at_1": own},
                ]
            }
        )
        assert comparison_sentence(rows, PAGE.metrics[0], "xcross").replace("\xa0", " ") == said

    def test_one_row_is_compared_with_nothing(self):
        rows = read_rows({"rows": [{"method": "text", "label": "a.txt", "perplexity": 23.75}]})
        assert comparison_sentence(rows, PERPLEXITY, "evaluate-lm") == "Perplexity of a.txt: 23.8."

    def test_many_equals_are_not_listed(self):
        rows = read_rows({"rows": [{"method": n, "label": n, "hit_at_1": 0.5} for n in "abc"]})
        said = comparison_sentence(rows, PAGE.metrics[0], "xcross").replace("\xa0", " ")
        assert said == "All have the same Hit@1, 50.0 %."

    def test_words_are_small_inside_of_a_sentence_and_names_are_not(self):
        columns = [PERPLEXITY, ACCURACY, MRR, Column("a", "mIoU, seen", as_percent)]
        columns += [Column("b", label, as_percent) for label in ("Zero-shot, new", "Class R@1")]
        assert [column.noun for column in columns] == [
            *("perplexity", "accuracy", "MRR", "mIoU, seen", "zero-shot, new", "class R@1")
        ]

    @pytest.mark.parametrize(
        ("tested", "points"), [(8, "12.5"), (92, "1.1"), (200, "0.5"), (4000, "0.025")]
    )
    def test_one_case_more_or_less(self, tested, points):
        results = ranking_results()
        results["data"]["test"] = tested
        text = built(with_page(comparison_section), results).all("p")[0].text
        assert text.endswith(f"one more or less is {points} points.")

    def test_equal_sizes_are_not_compared(self):
        rows = read_rows(
            {
                "rows": [
                    {"method": name, "label": name, "hit_at_1": 0.5, "trainable_parameters": 7}
                    for name in ("lora", "xcross")
                ]
            }
        )
        assert "parameters" not in comparison_sentence(rows, PAGE.metrics[0], "xcross")

    def test_sentence_compares_sizes_and_says_how_coarse_the_test_is(self):
        assert built(with_page(comparison_section)).all("p")[0].text == (
            "Highest Hit@1: LoRA trained on scikit-learn, 55.4 %; X-Cross has 52.2 %, "
            "3.3 points less. X-Cross has 157,313 trainable parameters, 23.3 % of the 676,352 of "
            "LoRA trained on scikit-learn. Of the 92 test cases, one more or less is 1.1 points."
        )


@samples(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=8),
    st.sampled_from(PAGE.metrics),
)
def test_best_metric_is_the_largest_as_shown(values, column):
    marked = [column.is_best(value, values) for value in values]
    shown = [None if value is None else float(column.show(value)) for value in values]
    largest = max((value for value in shown if value is not None), default=None)
    several = len({value for value in shown if value is not None}) > 1
    assert marked == [value is not None and value == largest and several for value in shown]


@samples(st.lists(st.integers(0, 10**7), min_size=1, max_size=8))
def test_best_cost_is_the_smallest_above_zero(values):
    marked = [TRAINABLE.is_best(value, values) for value in values]
    smallest = min((value for value in values if value), default=None)
    several = len({value for value in values if value}) > 1
    assert marked == [value == smallest and several for value in values]


class TestEfficiency:
    def test_curve_has_the_runs_figures(self):
        page = built(efficiency_section)
        xcross, lora = page.figures[0]["data"]
        assert xcross["name"] == "X-Cross"
        assert xcross["x"] == lora["x"] == [10, 25, 50, 75, 100]
        assert xcross["y"] == pytest.approx([40.22, 45.65, 50, 51.09, 52.17])
        assert lora["y"] == pytest.approx([35.87, 42.39, 48.91, 53.26, 55.43])
        assert page.table[1][:3] == ["X-Cross", "10 %", "40.2"]
        assert page.table[6][:3] == ["LoRA trained on scikit-learn", "10 %", "35.9"]

    def test_the_sentence_says_what_the_test_cases_can_tell(self):
        assert built(efficiency_section).all("p")[0].text == (
            "With 10 % of the target's training data, X-Cross reaches 40.2 % and LoRA trained on "
            "scikit-learn reaches 35.9 %. X-Cross is ahead of LoRA trained on scikit-learn by 4.3 "
            "points (95 % interval -9.7 to +18.4 points, which 92 test cases cannot tell from "
            "none)."
        )

    def test_a_difference_that_the_cases_can_tell(self):
        results = ranking_results()
        results["data"]["test"] = 5000
        text = built(efficiency_section, results).all("p")[0].text
        assert text.endswith("(95 % interval +2.4 to +6.3 points).")

    def test_without_the_number_of_cases_nothing_is_claimed(self):
        results = ranking_results()
        del results["data"]["test"]
        page = built(efficiency_section, results)
        assert "ahead" not in page.all("p")[0].text
        assert "error_y" not in page.figures[0]["data"][0]

    def test_whiskers_are_standard_errors(self):
        xcross, _ = built(efficiency_section).figures[0]["data"]
        assert xcross["error_y"]["array"][0] == pytest.approx(
            100 * math.sqrt(0.4022 * 0.5978 / 92), rel=1e-3
        )

    def test_shares_of_nothing_have_no_axis_below_zero(self):
        results = ranking_results()
        for point in results["curve"]:
            point["hit_at_1"] = 0.0
        (figure,) = built(efficiency_section, results).figures
        assert figure["layout"]["yaxis"]["rangemode"] == "nonnegative"

    def test_order_of_points_does_not_matter(self):
        results = ranking_results()
        results["curve"].reverse()
        assert built(efficiency_section, results).figures == built(efficiency_section).figures


class TestContributions:
    @pytest.mark.parametrize(("index", "kind"), [(0, "direct"), (1, "interaction")])
    def test_a_cell_sums_what_a_source_gave_to_all_others(self, index, kind):
        figure = built(contributions_section).figures[index]
        exchange = ranking_results()["contributions"][kind]
        for giver in range(3):
            for layer in range(6):
                expected = 0.0
                for receiver in range(3):
                    expected += exchange[layer][receiver][giver]
                assert figure["data"][0]["z"][giver][layer] == pytest.approx(expected)
        assert figure["layout"]["yaxis"]["ticktext"] == SOURCES
        assert figure["layout"]["xaxis"]["ticktext"] == [str(layer) for layer in range(6)]

    def test_both_pictures_share_a_scale(self):
        direct, interaction = (figure["data"][0] for figure in built(contributions_section).figures)
        assert direct["zmax"] == interaction["zmax"] == max(max(row) for row in direct["z"])

    def test_totals_shares_and_weights(self):
        found = ranking_results()["contributions"]
        table = built(contributions_section).table
        amounts = []
        for giver in range(3):
            direct = sum(row[giver] for layer in found["direct"] for row in layer)
            interaction = sum(row[giver] for layer in found["interaction"] for row in layer)
            assert float(table[giver + 1][1]) == pytest.approx(direct, abs=5.01e-4)
            assert float(table[giver + 1][2]) == pytest.approx(interaction, abs=5.01e-4)
            amounts.append(direct + interaction)
        assert [row[3] for row in table[1:]] == [f"{100 * a / sum(amounts):.0f} %" for a in amounts]
        assert [row[4] for row in table[1:]] == ["0.310", "0.290", "0.410"]

    def test_layers_show_receiver_and_giver(self):
        found = ranking_results()["contributions"]
        heats = built(contributions_section).all("table", class_="heat")
        assert len(heats) == 12
        assert heats[4].all("caption")[0].text == "Layer 2, direct"
        cells = [[cell.text for cell in row.all("td")] for row in heats[4].all("tr")[1:]]
        for m in range(3):
            for other in range(3):
                value = found["direct"][2][m][other]
                assert cells[m][other] == ("itself" if m == other else f"{value:.3f}")

    def test_without_weights(self):
        results = ranking_results()
        del results["contributions"]["weights"]
        assert built(contributions_section, results).table[0][-1] == "Share of both"

    def test_nothing_given_is_drawn_without_dividing_by_zero(self):
        results = ranking_results(layers=2)
        nothing = [[[0.0] * 3] * 3] * 2
        results["contributions"] |= {"direct": nothing, "interaction": nothing}
        page = built(contributions_section, results)
        assert [row[3] for row in page.table[1:]] == ["0 %"] * 3


class TestPredictions:
    def test_hit_and_miss(self):
        cases = built(predictions_section).all("article")
        assert cases[0].all("h3")[0].text == "Case 1 hit"
        assert cases[1].all("h3")[0].text == "Case 2 miss target ranked 8 of 30"

    def test_candidates_by_score_and_the_target_always_in_the_open(self):
        case = built(predictions_section).all("article")[1]
        shown, folded = case.all("ul", class_="candidates")
        ranks = [int(item.all("span", class_="rank")[0].text) for item in shown.all("li")]
        assert ranks == [1, 2, 3, 4, 5, 8]
        assert len(folded.all("li")) == 24
        assert shown.all("li", class_="target")[0] is shown.all("li")[-1]
        scores = [float(item.all("span", class_="score")[0].text) for item in shown.all("li")]
        assert scores == sorted(scores, reverse=True)
        widths = [item.attributes["style"] for item in shown.all("li")]
        assert widths[0] == "--width: 1.0"

    def test_history_in_order(self):
        case = built(predictions_section).all("article")[0]
        assert [item.text for item in case.all("ol")[0].all("li")] == (
            ranking_results()["examples"][0]["history"]
        )

    def test_what_each_source_gave_to_this_prediction(self):
        example = ranking_results()["examples"][0]
        heat = built(predictions_section).all("article")[0].all("table", class_="heat")[0]
        for giver, row in enumerate(heat.all("tr")[1:]):
            expected = [sum(receiver[giver] for receiver in layer) for layer in example["direct"]]
            assert [float(cell.text) for cell in row.all("td")] == pytest.approx(
                expected, abs=5.01e-4
            )

    def test_without_contributions(self):
        results = ranking_results()
        del results["contributions"]
        assert not built(predictions_section, results).all("table")

    @samples(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
    def test_rank_counts_ties_against_the_target(self, scores, data):
        target = data.draw(st.integers(0, len(scores) - 1))
        candidates = [
            Candidate(name="", score=score, is_target=number == target)
            for number, score in enumerate(scores)
        ]
        rank = rank_of_target(candidates)
        better = sum(score > scores[target] for score in scores)
        assert rank == better + scores.count(scores[target])


def test_words():
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        *("", "a", "a and b", "a, b and c")
    ]
    assert [percent(share) for share in (0.25, 0.005, 1, 12.345)] == [
        *("25\xa0%", "0.5\xa0%", "100\xa0%", "1,234\xa0%")
    ]
    assert [duration(seconds) for seconds in (4.217, 41.2, 60, 425, 7800)] == [
        *("4.22 s", "41 s", "1 min", "7 min 5 s", "2 h 10 min")
    ]
    assert [decimals(value) for value in (0, 0.0324, 0.5, 3.2, 1200)] == [0, 4, 3, 2, 0]


def test_small_quantities_keep_two_digits_and_perplexities_a_decimal():
    assert [SECONDS.show(value) for value in (0, 0.0098, 0.42, 1.04, 99.9, 1234)] == [
        *("0.0", "0.0098", "0.42", "1.0", "99.9", "1,234")
    ]
    assert [PERPLEXITY.show(value) for value in (8.25, 282.2, 281.58, 20345.6)] == [
        *("8.2", "282.2", "281.6", "20,346")
    ]


def test_a_model_of_many_layers_fits(tmp_path):
    page = read_html(render(RunRecord(ranking_results(layers=24), [], "")))
    heat = page.section("What each source domain gave").figures[0]
    assert len(heat["data"][0]["z"][0]) == 24
    assert heat["layout"]["xaxis"]["ticktext"] == [str(layer) for layer in range(0, 24, 2)]
