"""What all replicas do together, looked up every second."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from geodapt.serve.generation import Event, Generation, Statistics
from geodapt.serve.http.answers import NO_TEXT, NoText
from geodapt.serve.http.service import RECENT
from geodapt.serve.replicas.replica import ReplicaReport
from geodapt.serve.scoring import NotServed

NOW = {"running", "queued", "kv_tokens", "resident"}
"""Figures of the moment; the others count up from a replica's start."""


LOST = 30.0
"""Seconds without a word from the replicas, after which there are none."""
GIVEN_UP = 600.0
"""Seconds without a replica, after which none is expected: a new one has to load its models."""


class Reports:
    """Stands where a server of one process has its engine.

    A replica that is gone keeps its place in what was counted, so that no counter goes back.
    """

    def __init__(
        self,
        ask: Callable[[], list[ReplicaReport]],
        pause: float = 1.0,
        lost: float = LOST,
        given_up: float = GIVEN_UP,
        first_token: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """``ask`` gives what each replica says, and may fail.

        ``first_token`` is called with each answer's seconds to its first token.
        """
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._ask, self._pause, self._lost, self._given_up = ask, pause, lost, given_up
        self._last_seen = time.monotonic()
        self._first_token = first_token
        self._last: dict[tuple[str, int], Statistics] = {}
        self._present: list[tuple[str, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether there is a replica, or one is to be expected; the front ends where there is not.

        Ray starts a new one in place of one that died, unless Ray itself is gone.
        """
        waited = time.monotonic() - self._last_seen
        return self._thread.is_alive() and (bool(self._present) or waited < self._given_up)

    @property
    def ready(self) -> bool:
        """Whether at least one replica answers."""
        return bool(self._present)

    def check_room(self, beside: int = 0) -> None:
        """The replicas look at that."""

    def submit(
        self, generation: Generation, on_event: Callable[[Event], None] | None = None
    ) -> Any:
        """The front makes no text."""
        raise NotServed(NO_TEXT)

    def statistics(self) -> Statistics:
        """The sums of all replicas; ``resident`` is on the device of at least one of them."""
        present = set(self._present)
        last = dict(self._last)
        summed: dict[str, Any] = {"resident": ()}
        for field in fields(Statistics):
            if field.name == "resident":
                continue
            values = [
                getattr(said, field.name)
                for replica, said in last.items()
                if field.name not in NOW or replica in present
            ]
            summed[field.name] = sum(values)
        resident = {name for replica in present for name in last[replica].resident}
        return Statistics(**summed | {"resident": tuple(sorted(resident))}) if last else _nothing()

    def replicas(self) -> list[Mapping[str, Any]]:
        """Those that answer: their process, its host, and what it does."""
        return [
            {"process": process, "host": host, "running": now.running, "tokens": now.tokens}
            for host, process in self._present
            if (now := self._last[host, process])
        ]

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        heard = time.monotonic()
        while True:
            found: list[ReplicaReport] | None
            try:
                found = self._ask()
            except Exception:  # one has just died: those that are left answer the next time
                found = [] if time.monotonic() - heard >= self._lost else None
            else:
                heard = time.monotonic()
            if found is not None:
                for report in found:
                    self._last[report.host, report.process] = report.statistics
                    self.recent.extend(report.recent)
                    for first, _ in report.recent:
                        self._first_token(first)
                self._present = [(report.host, report.process) for report in found]
                if found:
                    self._last_seen = time.monotonic()
            if self._stop.wait(self._pause):
                return


def _nothing() -> Statistics:
    return NoText().statistics()
