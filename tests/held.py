"""Commands that stay at one place of their work, so that a test can end them exactly there.

The place is after a line of the log (``log:STAGE:STEP``), after a stage (``stage:NAME``), or after
a shard of ``geodapt score`` (``shard:NUMBER``). :func:`held` makes what :func:`tests.forked.fork`
runs; ``python tests/held.py PLACE script.py run my.yaml`` holds a script.
"""

import runpy
import sys
import time
from collections.abc import Callable
from functools import partial

from geodapt.cli import main
from geodapt.runs import RunFolder

HERE = "the command is held"


def held(place: str, run: Callable[[], None] = main) -> Callable[[], None]:
    """What runs until a place, says so on standard output, and waits for a signal."""
    return partial(_held, place, run)


def wait_until_held(process) -> None:
    """Until a command, forked or started, is there; it must not have ended before."""
    end = time.monotonic() + 600
    said = ""
    while HERE not in said:
        ended = process.poll() is not None
        said = process.stdout.readline() if hasattr(process, "stdout") else process.said()
        if HERE not in said:
            assert not ended, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)


def _held(place: str, run: Callable[[], None]) -> None:
    kind, *at = place.split(":")
    if kind == "log":
        _hold_after(RunFolder, "log", lambda self, stage, step: [stage, str(step)] == at)
    elif kind == "stage":
        _hold_after(RunFolder, "stage", lambda self, name, compute: [name] == at)
    else:
        from geodapt.serve.bulk import ScoringJob

        _hold_after(ScoringJob, "answer", lambda self, shard, answer: [str(shard.number)] == at)
    run()


def _hold_after(owner: type, name: str, ours: Callable[..., bool]) -> None:
    """Wait after a call of a method whose arguments are ours."""
    method = getattr(owner, name)

    def holding(*given, **more):
        found = method(*given, **more)
        if ours(*given):
            print(HERE, flush=True)
            time.sleep(600)
        return found

    setattr(owner, name, holding)


if __name__ == "__main__":
    where, script = sys.argv[1:3]
    del sys.argv[1:3]
    _held(where, lambda: runpy.run_path(script, run_name="__main__"))
