"""What a person sees while something runs: one console, one look of progress bar."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geodapt.processes import is_main_process

T = TypeVar("T")

# Progress and messages go to standard error, so that standard output stays the result.
console = Console(stderr=True)


@contextmanager
def bar(label: str, total: float | None = None) -> Iterator["Bar"]:
    """A progress bar for the block; it vanishes at the end, and shows nothing in a pipe.

    Without a total it only shows that something goes on, and for how long.
    """
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    if total is not None:
        columns += [MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    else:
        columns += [TimeElapsedColumn()]
    progress = Progress(
        *columns,
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not (console.is_terminal and is_main_process()),
    )
    with progress:
        yield Bar(progress, progress.add_task(label, total=total, note=""))


class Bar:
    """The handle that :func:`bar` yields."""

    def __init__(self, progress: Progress, task) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Show a short text behind the bar (the loss, the best value so far)."""
        self._progress.update(self._task, note=text)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items behind a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(label, total) as progress:
        for item in items:
            yield item
            progress.advance()
