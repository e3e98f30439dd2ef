"""Progress bars: seen in a terminal, by one process, and nowhere else."""

import io

import pytest
from rich.console import Console

from geodapt import progress


@pytest.fixture
def screen(monkeypatch):
    """A terminal that keeps what it shows."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", console)
    return console.file


def test_items_come_through_in_order(screen):
    assert list(progress.track(iter("abc"), "letters")) == ["a", "b", "c"]
    assert list(progress.track([], "nothing")) == []
    assert "letters" in screen.getvalue()


def test_a_bar_counts_and_notes(screen):
    with progress.bar("training", total=4) as bar:
        bar.advance()
        bar.advance(2)
        bar.note("loss 0.25")
    shown = screen.getvalue()
    assert "training" in shown
    assert "3/4" in shown
    assert "loss 0.25" in shown


def test_the_length_is_known_where_it_can_be(screen):
    list(progress.track(range(3), "counting"))
    assert "3/3" in screen.getvalue()


def test_without_a_total_it_shows_no_count(screen):
    list(progress.track(iter("abc"), "letters"))
    assert "letters" in screen.getvalue()
    assert "/" not in screen.getvalue()


def test_nothing_shows_in_a_pipe(monkeypatch):
    console = Console(file=io.StringIO())
    monkeypatch.setattr(progress, "console", console)
    assert list(progress.track([1, 2], "counting")) == [1, 2]
    assert console.file.getvalue() == ""


def test_only_the_main_process_shows(screen, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert list(progress.track([1, 2], "counting")) == [1, 2]
    assert screen.getvalue() == ""


def test_an_error_in_the_block_comes_out(screen):
    with pytest.raises(ZeroDivisionError), progress.bar("dividing"):
        _ = 1 / 0
