"""The command line, with the tiny system, in processes of its own."""

import pytest
import tiny as tiny_module
from tiny import main_with_tiny, tiny

from tests import commands
from tests.forked import fork
from tests.held import held

__all__ = ["tiny"]


@pytest.fixture
def start():
    """``start(*arguments)``: the command line, with the tiny system, forked.

    ``ranks`` of them find each other; with ``launcher`` it is started as from a shell; it stays at
    a ``place`` of :mod:`tests.held`.
    """
    processes = []

    def call(
        *arguments: str,
        ranks: int = 1,
        launcher: tuple[str, ...] | None = None,
        place: str | None = None,
    ):
        if launcher is None:
            run = main_with_tiny if place is None else held(place, main_with_tiny)
            processes.append(fork(".", *arguments, run=run, ranks=ranks))
        else:
            command = (*launcher, tiny_module.__file__)
            processes.append(commands.start(".", *arguments, launcher=command))
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.communicate()
