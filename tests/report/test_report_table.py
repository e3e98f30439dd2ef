"""The table in the terminal."""

import re

import pytest
from invented_run import METHODS, classification_results, ranking_results

from geodapt.errors import InputError
from geodapt.report import print_table
from geodapt.systems import page_of


@pytest.fixture
def printed(monkeypatch, capsys):
    """What print_table prints on a terminal 80 characters wide, with its ANSI codes."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def run(results):
        print_table(results)
        captured = capsys.readouterr()
        assert not captured.err
        return captured.out

    return run


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_fits_80_columns_with_every_figure_whole(printed):
    lines = plain(printed(ranking_results())).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert lines[0].strip() == ranking_results()["title"]
    xcross = next(line for line in lines if line.startswith("X-Cross"))
    assert xcross.split()[1:] == [
        *("52.2", "67.2", "74.2", "83.2", "0.632", "0.682", "157,313", "114", "1,058")
    ]
    for _, label, *_ in METHODS:
        assert label.split()[0] in text


def test_more_than_ten_columns_stand_in_several_tables(printed):
    keys = [column.key for column in page_of("radial").metrics[:11]]
    row = {"method": "a", "label": "Radial, several roots", "seconds": 61.2}
    lines = plain(printed({"title": "Many", "rows": [row | dict.fromkeys(keys, 0.5)]})).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "Many"
    assert "…" not in "".join(lines)
    figures = [line.split()[3:] for line in lines if line.startswith("Radial, several roots")]
    assert [len(part) for part in figures] == [6, 6]
    assert figures[1][-1] == "61.2"


def test_heads_have_units(printed):
    lines = plain(printed(classification_results())).splitlines()
    assert lines[1].split() == ["Accuracy", "Macro", "F1"]
    assert lines[2].split() == ["Method", "%", "%"]


def test_best_is_bold(printed):
    bold = re.findall(r"\x1b\[1m\s*([\d.,]+)", printed(classification_results()))
    assert bold == ["80.0", "84.0"]


def test_markup_in_names_is_text(printed):
    results = {
        "title": "[bold]title[/bold]",
        "rows": [{"method": "a", "label": "[red]a[/red]", "mrr": 0.5}],
    }
    text = plain(printed(results))
    assert "[bold]title[/bold]" in text
    assert "[red]a[/red]" in text


def test_a_missing_figure_is_a_dash(printed):
    rows = [{"method": "a", "mrr": 0.25}, {"method": "b", "mrr": None}]
    lines = plain(printed({"rows": rows})).splitlines()
    assert lines[-2].split() == ["a", "0.250"]
    assert lines[-1].split() == ["b", "–"]


def test_rows_of_another_shape(printed):
    with pytest.raises(InputError, match=r"results\.json: rows\.0\.method"):
        printed({"rows": [{}]})
