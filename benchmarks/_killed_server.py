"""A server that is killed under load and in the middle of puts, and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any

from _serving import Client, Shelf, in_threads, wait_until

from geodapt.adapters import Adapter

TROUBLE = (OSError, HTTPException, ValueError)
"""What a client meets when its server is killed."""


def started(*arguments: str) -> tuple[subprocess.Popen, str]:
    """``geodapt ARGUMENTS`` in a process of its own, and the first line of what it says."""
    run = subprocess.Popen(
        [sys.executable, "-m", "geodapt", *arguments],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.stderr is not None
    return run, run.stderr.readline()


@contextmanager
def process(
    shelf: Shelf, begin: Callable = started, *options: str
) -> Iterator[tuple[Any, int, float]]:
    """``geodapt serve`` in a process of its own, its port, and the seconds until it was ready."""
    begun = time.monotonic()
    command = ("serve", str(shelf.base), "--port", "0", "--adapters", str(shelf.adapters))
    run, said = begin(*command, "--dtype", "float32", *options)
    try:
        if not said.startswith("serving on "):
            raise RuntimeError(said + run.communicate()[1])
        port = int(said.rstrip("/\n").rpartition(":")[2])
        while not _ready(port):
            time.sleep(0.01)
        yield run, port, time.monotonic() - begun
    finally:
        run.kill()
        run.communicate()


def _ready(port: int) -> bool:
    try:
        return Client(port).ask("GET", "/ready")[0] == 200
    except OSError:
        return False


def kills(shelf: Shelf, times: int, load: float = 1.0, begin: Callable = started) -> dict[str, Any]:
    """Start, ask and put at once, kill; what is left must be whole, and answer as before.

    The name ``mine`` is put in turn from two adapters, so its answer must always be one of theirs.
    """
    draw, seconds, first, second = random.Random(0), [], *shelf.names[:2]
    wrong = puts = 0
    known = _aliases(shelf)
    for turn in range(times + 1):
        with process(shelf, begin) as (run, port, ready):
            seconds.append(round(ready, 2))
            wrong += _wrong(shelf, port, ["base", first, second], turn > 0)
            if turn == times:
                break
            end = threading.Event()

            def asking(number: int, port: int = port, end: threading.Event = end) -> None:
                with suppress(*TROUBLE):
                    while not end.is_set():
                        Client(port).complete(model=shelf.names[number % len(shelf.names)])

            def putting(_: int, port: int = port, end: threading.Event = end) -> None:
                nonlocal puts
                with suppress(*TROUBLE):
                    while not end.is_set():
                        for source in (first, second):
                            body = {"source": source}
                            puts += Client(port).ask("PUT", "/v1/adapters/mine", body)[0] == 200

            def killing(
                _: int, run: Any = run, end: threading.Event = end, before: int = puts
            ) -> None:
                try:
                    wait_until(lambda: puts > before)  # under load, however slow that is
                    time.sleep(load * draw.uniform(0.5, 1.5))
                finally:
                    run.send_signal(signal.SIGKILL)
                    end.set()

            in_threads(5, lambda n: (killing, putting, asking, asking, asking)[n](n))
        assert _aliases(shelf) == known | {"mine"}
        for place in (shelf.adapters / "sha256").iterdir():
            if place.is_dir() and not place.name.startswith("."):
                assert Adapter.from_pretrained(place).sha256 == place.name
    left = [p.name for p in shelf.adapters.rglob("*.unfinished")]
    return {"kills": times, "puts": puts, "wrong": wrong, "ready_seconds": seconds, "left": left}


def _aliases(shelf: Shelf) -> set[str]:
    """The names that the shelf's folder has for contents; other runs on it may have left some."""
    file = shelf.adapters / "aliases.json"
    return set(json.loads(file.read_text())) if file.exists() else set()


def _wrong(shelf: Shelf, port: int, names: list[str], put: bool) -> int:
    """How many answers are not those computed apart."""
    client = Client(port)
    wrong = sum(client.complete(model=name) != (200, shelf.answers[name]) for name in names)
    if put:
        either = [(200, shelf.answers[name]) for name in names[1:]]
        wrong += client.complete(model="mine") not in either
    client.close()
    return wrong
