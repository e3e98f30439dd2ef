"""Progress bars: seen in a terminal, by one process, and nowhere else."""

import io

import pytest
from rich.console import Console

from geodapt import progress


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    monkeypatch.delenv("GEODAPT_PROGRESS", raising=False)


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


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def log(monkeypatch):
    """A batch job's log, and the clock that its lines go by."""
    console, clock = Console(file=io.StringIO(), width=40), Clock()
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress._Lines, "next_line", None)
    monkeypatch.setattr(progress, "stages", progress.Stages({}))
    return console.file, clock


def test_a_log_gets_a_line_at_most_every_ten_seconds(log):
    file, clock = log
    with progress.bar("training", total=100) as bar:
        for step in range(100):
            clock.now += 1
            bar.note(f"loss {step / 100:.3f}")
            bar.advance()
    lines = file.getvalue().splitlines()
    assert lines[0] == "training: 2/100, 1:38 left, loss 0.010"
    assert lines[1] == "training: 12/100, 1:28 left, loss 0.110"
    assert len(lines) == 10


def test_a_log_names_no_time_left_before_anything_is_done(log):
    file, clock = log
    with progress.bar("search", total=300) as bar:
        clock.now += 30
        bar.advance(0)
    assert file.getvalue() == "search: 0/300\n"


def test_a_log_says_nothing_of_what_takes_a_moment(log):
    file, clock = log
    for _ in range(3):
        clock.now += 0.5
        assert list(progress.track(range(5), "counting")) == list(range(5))
    assert file.getvalue() == ""


def test_a_log_names_the_stage_and_the_time_left_in_all(log):
    file, clock = log
    progress.schedule({"sources": 1.0, "lora": 2.0, "xcross": 3.0})
    progress.stages.begin("sources")
    clock.now += 60
    progress.stages.end("sources")
    progress.stages.begin("lora")
    with progress.bar("lora", total=4) as bar:
        clock.now += 60
        bar.advance(2)
    # 2 of 6 units took 120 seconds.
    assert file.getvalue().splitlines() == [
        "[2/3] lora",
        "[2/3] lora: 2/4, 1:00 left; about 4 min left in all",
    ]


def test_stages_that_an_earlier_process_finished_cost_no_time(log):
    _, clock = log
    progress.schedule({"a": 1.0, "b": 1.0, "c": 1.0})
    progress.stages.end("a", computed=False)
    progress.stages.begin("b")
    clock.now += 50
    progress.stages.end("b")
    progress.stages.begin("c")
    assert progress.stages.label == "[3/3] "
    assert progress.stages.left(0.0) == 50


def test_a_bar_without_a_total_counts_in_a_log(log):
    file, clock = log
    with progress.bar("reading") as bar:
        clock.now += 3
        bar.advance(1500)
        clock.now += 30
        bar.advance(1500)
    assert file.getvalue().splitlines() == [
        "reading: 1,500 done, 0:03 so far",
        "reading: 3,000 done, 0:33 so far",
    ]


def test_a_user_can_keep_it_away(screen, monkeypatch):
    monkeypatch.setenv("GEODAPT_PROGRESS", "off")
    assert list(progress.track([1, 2], "counting")) == [1, 2]
    assert screen.getvalue() == ""
