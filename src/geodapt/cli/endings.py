"""How a command ends: an error that the user can fix is one line, never a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from geodapt.errors import InputError, one_line, reason_of, visible
from geodapt.processes import is_main_process

NOTHING = "nothing was written"


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends like Ctrl-C, so that unfinished work is cleaned up."""


class Commands(TyperGroup):
    """All commands, ending by :func:`ending`."""

    def invoke(self, ctx: Any) -> Any:
        with ending():
            return super().invoke(ctx)


@contextmanager
def noting(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """When the block ends early, adds to the error what is there, and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        error.add_note(how_to_go_on())
        raise


def by_the_same_command(kept: Path) -> AbstractContextManager[None]:
    """:func:`noting`, for work that keeps its state in a folder or file and finds it again."""
    return noting(
        lambda: f"{kept} is kept; the same command continues" if kept.exists() else NOTHING
    )


@contextmanager
def ending() -> Iterator[None]:
    """Exit status 2 for errors that the user can fix, 130 after Ctrl-C, 143 after SIGTERM.

    Besides :class:`InputError` this is what the system refuses: a full disk, no permission.
    """
    try:
        with _stoppable() as stops:
            try:
                yield
            except typer.Exit:
                raise
            except Exception as error:
                if stops:  # a library that was stopped while it was imported makes another of it
                    for note in getattr(error, "__notes__", ()):
                        stops[0].add_note(note)
                    raise stops[0] from None
                raise
    except InputError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as error:
        note = "; ".join(["stopped", *getattr(error, "__notes__", ())])
        _end(f"\n{note}", 143 if isinstance(error, Terminated) else 130)
    except EOFError as error:  # which click would take for a closed terminal
        raise RuntimeError("an input ended too early") from error
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:
        reason = _refusal(error)
        if reason is None or "--debug" in sys.argv:
            raise
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        _end(f"error: {one_line(reason)}{notes}", 2)


def _refusal(error: OSError | RuntimeError) -> str | None:
    """What the operating system refused, in one line; None for a fault of the program."""
    if isinstance(error, OSError):
        reason = error.strerror or reason_of(error)
        return f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason
    if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
        return "a file could not be written to its end; is the disk full?"
    return None


def _end(text: str, status: int) -> NoReturn:
    if is_main_process():
        typer.echo(visible(text), err=True)
    raise typer.Exit(status) from None


@contextmanager
def _stoppable() -> Iterator[list[KeyboardInterrupt]]:
    """SIGTERM raises :class:`Terminated` in the block, Ctrl-C its own; those that were raised."""
    stops: list[KeyboardInterrupt] = []

    def stop(number: int, _: Any) -> NoReturn:
        stops.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise stops[-1]

    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
