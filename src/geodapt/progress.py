"""Progress of running work: bars in a terminal or notebook, plain lines elsewhere.

A batch job's log gets a line such as ::

    [3/9] method-lora: 40/200, 1:52 left, loss 1.234; about 14 min left in all

at most one every ten seconds. ``GEODAPT_PROGRESS=off`` turns it off.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geodapt.console import Console
from geodapt.processes import is_main_process

T = TypeVar("T")

# Progress and messages go to standard error, so that standard output stays the result.
console = Console(stderr=True)

FIRST_LINE, BETWEEN_LINES = 2.0, 10.0
"""Seconds until a log's first line, and between two lines."""


class Stages:
    """Which of a run's stages is running, and how long the others will take.

    ``weights`` are the stages' expected costs in any unit, in their order. The time left is
    that of the work done so far in this process, scaled by the weights; none is known before
    some of it is done.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        self.done: set[str] = set()
        self.current: str | None = None
        self._seconds = self._worked = 0.0
        self._started = time.monotonic()

    def begin(self, name: str) -> None:
        """A stage's computation starts."""
        self.current, self._started = name, time.monotonic()
        if self.label and _shown() and not _shows_bars():
            _Lines.say(f"{self.label}{name}")

    def end(self, name: str, computed: bool = True) -> None:
        """A stage is done, by computing it or because an earlier process had."""
        self.done.add(name)
        if computed and name == self.current:
            self._seconds += time.monotonic() - self._started
            self._worked += self.weights.get(name, 0.0)
        self.current = None

    @property
    def label(self) -> str:
        """``[3/9] `` for the third of nine stages; empty outside of stages."""
        if self.current not in self.weights:
            return ""
        return f"[{len(self.done & self.weights.keys()) + 1}/{len(self.weights)}] "

    def left(self, share: float) -> float | None:
        """Seconds until all stages are done, when ``share`` of the current one is."""
        weight = self.weights.get(self.current or "", 0.0)
        worked = self._worked + share * weight
        seconds = self._seconds + (time.monotonic() - self._started if self.current else 0.0)
        if worked <= 0 or seconds < FIRST_LINE:
            return None
        waiting = sum(w for name, w in self.weights.items() if name not in self.done)
        return (waiting - share * weight) * seconds / worked


stages = Stages({})
"""The running run's stages."""


def schedule(weights: Mapping[str, float]) -> None:
    """Announce a run's stages and their expected costs; see :class:`Stages`."""
    global stages
    stages = Stages(weights)


class Bar:
    """The handle that :func:`bar` yields."""

    def advance(self, amount: float = 1) -> None:
        """Count more work as done."""

    def note(self, text: str) -> None:
        """Show a short text after the bar (the loss, the best value so far)."""


class _Drawn(Bar):
    def __init__(self, progress: Progress, label: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, note="")

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)


class _Lines(Bar):
    """Progress as lines of a log, at most one every :data:`BETWEEN_LINES` seconds."""

    next_line: float | None = None  # of all bars together

    def __init__(self, label: str, total: float | None) -> None:
        self._label, self._total = label, total
        self._done, self._note = 0.0, ""
        self._began = time.monotonic()
        if _Lines.next_line is None:
            _Lines.next_line = self._began + FIRST_LINE

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        if time.monotonic() >= (_Lines.next_line or 0.0):
            _Lines.say(self._line())

    @staticmethod
    def say(line: str) -> None:
        """Print a line, unless the one before is too recent."""
        now = time.monotonic()
        if _Lines.next_line is None:
            _Lines.next_line = now + FIRST_LINE
        elif now >= _Lines.next_line:
            _Lines.next_line = now + BETWEEN_LINES
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._note = text

    def _line(self) -> str:
        parts, spent, share = [], time.monotonic() - self._began, 0.0
        if self._total:
            share = min(self._done / self._total, 1.0)
            parts = [f"{self._done:,.0f}/{self._total:,.0f}"]
            if self._done:  # before, nobody knows
                left = spent * (self._total - self._done) / self._done
                parts.append(f"{_clock(left)} left")
        else:
            parts = [f"{self._done:,.0f} done", f"{_clock(spent)} so far"]
        line = f"{self._label}: {', '.join([*parts, *filter(None, [self._note])])}"
        in_all = stages.left(share)
        return line if in_all is None else f"{line}; about {_in_words(in_all)} left in all"


class _InAll(ProgressColumn):
    """The time left for all of a run's stages."""

    def render(self, task) -> str:
        left = stages.left(task.percentage / 100 if task.total else 0.0)
        return "" if left is None else f"about {_in_words(left)} left in all"


@contextmanager
def bar(label: str, total: float | None = None) -> Iterator[Bar]:
    """Show the progress of the block: a bar that vanishes at its end, or lines of a log.

    Without a total it only shows that something is running, and for how long. Only the main
    process of several shows anything.
    """
    label = stages.label + label
    if not _shown():
        yield Bar()
    elif not _shows_bars():
        yield _Lines(label, total)
    else:
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        if total is not None:
            columns += [MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
        else:
            columns += [TimeElapsedColumn()]
        columns += [TextColumn("{task.fields[note]}"), _InAll()]
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Drawn(progress, label, total)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar counts them."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


def _shown() -> bool:
    """Whether progress is shown: in the main process, unless it is turned off."""
    return is_main_process() and os.environ.get("GEODAPT_PROGRESS", "").lower() != "off"


def _shows_bars() -> bool:
    """Whether the output is a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


def _clock(seconds: float) -> str:
    """``1:05`` or ``2:03:04``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _in_words(seconds: float) -> str:
    """A rough duration: ``40 s``, ``14 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
