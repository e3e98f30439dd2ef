"""The rows that run: prompts are read in pieces, and every step brings each row a token."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geodapt.adapters.bank import AdapterBank
from geodapt.errors import InputError
from geodapt.serve.generation import EngineSettings
from geodapt.serve.passes import Passes
from geodapt.serve.row_cache import RowCache
from geodapt.serve.rows import RunningRow
from geodapt.serve.sampling import Poisoned
from geodapt.serve.tickets import Kind, Ticket, rows_of

logger = logging.getLogger(__name__)


@dataclass
class Cohort:
    """Rows that run in one pass: their gates differ in adapters and weights alone."""

    rows: list[RunningRow]
    cache: RowCache


@dataclass
class Reading:
    """A prompt that is read piece by piece."""

    row: RunningRow
    cache: RowCache
    read: int = 0
    logits: list[Tensor] = field(default_factory=list)


class RowLoop:
    """Runs rows until they end. Nothing that fails in one row touches another."""

    def __init__(self, passes: Passes, bank: AdapterBank | None, settings: EngineSettings) -> None:
        self._passes, self._bank, self._settings = passes, bank, settings
        self._new: deque[RunningRow] = deque()
        self._reading: Reading | None = None
        self._cohorts: dict[Kind, Cohort] = {}
        self._ended: list[RunningRow] = []
        self.tokens = self.prompt_tokens = self.steps = 0
        self.step_seconds = 0.0

    @property
    def tickets(self) -> list[Ticket]:
        """Those of all rows that have a place."""
        return [row.ticket for row in self._rows()]

    @property
    def kv_tokens(self) -> int:
        """Places in the caches."""
        caches = [cohort.cache for cohort in list(self._cohorts.values())]
        return sum(c.tokens for c in caches) + (self._reading.cache.tokens if self._reading else 0)

    def add(self, row: RunningRow) -> None:
        """Give a row its place."""
        self._new.append(row)

    def clear(self) -> None:
        """Let go of all rows."""
        self._new.clear()
        self._cohorts.clear()
        self._reading = None

    def turn(self) -> list[RunningRow]:
        """Read a piece of prompts, and make a token for every row; the rows that ended."""
        begun = time.monotonic()
        self._drop_cancelled()
        self._read()
        for kind in list(self._cohorts):
            self._step(kind)
        self.steps += 1
        self.step_seconds += time.monotonic() - begun
        ended, self._ended = self._ended, []
        return ended

    def _rows(self) -> list[RunningRow]:
        reading = [self._reading.row] if self._reading else []
        return [*self._new, *reading, *(r for c in self._cohorts.values() for r in c.rows)]

    def _drop_cancelled(self) -> None:
        for row in self._rows():
            if row.ticket.cancelled and not row.done:
                row.end("cancelled")
        if self._reading is not None and self._reading.row.done:
            self._end(self._reading.row)
            self._reading = None
        for row in [row for row in self._new if row.done]:
            self._new.remove(row)
            self._end(row)
        for kind in list(self._cohorts):
            self._leave(kind)

    # Prompts

    def _read(self) -> None:
        if self._reading is None and self._new:
            together = self._together()
            if together:
                self._read_whole(together)
                return
            row = self._new.popleft()
            self._reading = Reading(row, self._passes.empty(1))
        if self._reading is not None:
            self._read_piece(self._reading)

    def _together(self) -> list[RunningRow]:
        """The next prompts that fit into one pass, padded to the longest; none where the first
        one must be read in pieces or by itself."""
        first, longest = self._new[0], 0
        chosen: list[RunningRow] = []
        if first.wants_prompt_logits:
            return []
        for row in self._new:
            if row.ticket.kind != first.ticket.kind or row.wants_prompt_logits:
                break
            longest = max(longest, len(row.ticket.generation.prompt))
            whole = self._passes.encodes and not chosen  # an encoder reads its prompt at once
            if not whole and longest * (len(chosen) + 1) > self._settings.prefill_tokens:
                break
            chosen.append(row)
        for _ in chosen:
            self._new.popleft()
        return chosen

    def _read_whole(self, rows: list[RunningRow]) -> None:
        cache = self._passes.empty(len(rows))
        prompts = [row.ticket.generation.prompt for row in rows]
        try:
            with self._under(rows):
                logits = self._passes.read(cache, prompts)
        except Exception as error:
            if len(rows) == 1:
                self._fail(rows[0], error)
            else:
                for row in rows:  # the one that fails, fails alone
                    self._read_whole([row])
            return
        self.prompt_tokens += sum(map(len, prompts))
        self._begin(rows, cache, logits[:, -1])

    def _read_piece(self, reading: Reading) -> None:
        prompt = reading.row.ticket.generation.prompt
        piece = prompt[reading.read : reading.read + self._settings.prefill_tokens]
        every = reading.row.wants_prompt_logits
        try:
            with self._under([reading.row]):
                logits = self._passes.read(reading.cache, [piece], every)
        except Exception as error:
            self._reading = None
            self._fail(reading.row, error)
            return
        self.prompt_tokens += len(piece)
        reading.read += len(piece)
        reading.logits.append(logits[0] if every else logits[0, -1:])
        if reading.read < len(prompt):
            return
        self._reading = None
        told = torch.cat(reading.logits) if every else None
        self._begin([reading.row], reading.cache, logits[:, -1], told)

    def _begin(
        self,
        rows: list[RunningRow],
        cache: RowCache,
        logits: Tensor,
        prompt_logits: Tensor | None = None,
    ) -> None:
        """Rows whose prompts are read join those that run."""
        for row in rows:
            if row.ticket.generation.echo:
                row.echo(prompt_logits)
        self._accept(rows, logits)
        kind = rows[0].ticket.kind
        staying = [i for i, row in enumerate(rows) if not row.done]
        for row in rows:
            if row.done:
                self._end(row)
        if not staying:
            return
        if len(staying) < len(rows):
            cache = cache.select(staying)
        joined = [rows[i] for i in staying]
        if kind in self._cohorts:
            self._cohorts[kind].rows += joined
            self._cohorts[kind].cache.join(cache)
        else:
            self._cohorts[kind] = Cohort(joined, cache)

    # Steps

    def _step(self, kind: Kind) -> None:
        cohort = self._cohorts[kind]
        try:
            logits = self._pass(cohort)
        except Exception:
            kept = self._one_by_one(cohort)
            if kept is None:
                del self._cohorts[kind]
                return
            self._cohorts[kind] = kept
        else:
            self._accept(cohort.rows, logits)
        self._leave(kind)

    def _pass(self, cohort: Cohort) -> Tensor:
        with self._under(cohort.rows):
            return self._passes.step(cohort.cache, [row.last for row in cohort.rows])[:, -1]

    def _one_by_one(self, cohort: Cohort) -> Cohort | None:
        """A pass that failed again, row by row: those that fail end, the others run on."""
        kept: Cohort | None = None
        for i, row in enumerate(cohort.rows):
            alone = Cohort([row], cohort.cache.select([i]))
            try:
                logits = self._pass(alone)
            except Exception as error:
                self._fail(row, error)
                continue
            self._accept([row], logits)
            if kept is None:
                kept = alone
            else:
                kept.rows.append(row)
                kept.cache.join(alone.cache)
        return kept

    def _accept(self, rows: Sequence[RunningRow], logits: Tensor) -> None:
        """Choose every row's token."""
        largest = logits.max(-1)
        tokens, finite = largest.indices.tolist(), torch.isfinite(largest.values).tolist()
        for row, token, good, own in zip(rows, tokens, finite, logits, strict=True):
            try:
                if not good:
                    raise Poisoned
                made = row.made
                row.accept(own, token if row.sampler.plain else None)
                self.tokens += row.made - made
            except Exception as error:
                self._tell(row, error)

    def _leave(self, kind: Kind) -> None:
        """Rows that ended give up their places."""
        cohort = self._cohorts[kind]
        staying = [i for i, row in enumerate(cohort.rows) if not row.done]
        if len(staying) == len(cohort.rows):
            return
        for row in cohort.rows:
            if row.done:
                self._end(row)
        if staying:
            rows = [cohort.rows[i] for i in staying]
            self._cohorts[kind] = Cohort(rows, cohort.cache.select(staying))
        else:
            del self._cohorts[kind]

    @contextmanager
    def _under(self, rows: Sequence[RunningRow]) -> Iterator[None]:
        gate = rows_of([row.ticket for row in rows], rows[0].ticket.kind)
        if gate is None or self._bank is None:
            yield
            return
        with self._bank.use(gate):
            yield

    def _fail(self, row: RunningRow, error: Exception) -> None:
        self._tell(row, error)
        self._end(row)

    def _tell(self, row: RunningRow, error: Exception) -> None:
        row.end("error", error=told_of(error))

    def _end(self, row: RunningRow) -> None:
        self._ended.append(row)


def told_of(error: Exception) -> str:
    """What the client is told: the reason where it is the request's, else that it is not."""
    if isinstance(error, InputError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return f"this request failed inside of the model ({type(error).__name__})"
