"""Texts for a file of prompts, each under its own gate, by the engine."""

import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from geodapt.errors import InputError
from geodapt.serve.adapter_folder import AdapterFolder, Lease
from geodapt.serve.engine import Engine
from geodapt.serve.generation import Event, Full, Generation, Stopped
from geodapt.serve.protocol import DecodingBody, Tokens
from geodapt.serve.requested_gate import BASE
from geodapt.serve.text_tokens import TextTokens
from geodapt.serve.tickets import Ticket

TOKENS = 16
"""Tokens of an answer where a line does not say how many, as in ``/v1/completions``."""
ENDED = "the engine ended before a shard was answered; the same command goes on with that shard"


class GenerateRow(DecodingBody):
    """A line that asks for one text: what ``/v1/completions`` takes, of a single answer."""

    prompt: str | Tokens
    max_tokens: int = Field(TOKENS, ge=0, le=2**31)
    logprobs: Literal[True] | None = None
    """Whether the answer says each token's log probability."""


class Generating:
    """Completes prompts, a shard of them in one running batch.

    A line without a seed takes its own number for one, so that the answer is the same after a
    stop, and on whatever machine.
    """

    def __init__(self, engine: Engine, adapters: AdapterFolder, tokens: TextTokens) -> None:
        self.engine, self.adapters, self.tokens = engine, adapters, tokens

    def completed(
        self, rows: Sequence[GenerateRow], numbers: Sequence[int]
    ) -> list[dict[str, Any]]:
        """The answer of every row; ``numbers`` are those of their lines.

        A row that cannot be answered has ``error`` in place of ``text``; it stops no other. Raises
        :class:`InputError` where the engine ends before all are answered.
        """
        answers: list[dict[str, Any]] = [{} for _ in rows]
        asked: list[tuple[int, Ticket, Lease]] = []
        longest_first = sorted(range(len(rows)), key=lambda n: -rows[n].max_tokens)
        try:
            for place in longest_first:
                row = rows[place]
                try:
                    lease = self.adapters.lease(list(row.requested({BASE}).weights))
                except InputError as error:
                    answers[place] = {"error": str(error)}
                    continue
                try:
                    asked.append((place, self._ask(row, lease, numbers[place]), lease))
                except InputError as error:
                    lease.release()
                    answers[place] = {"error": str(error)}
            for place, ticket, _ in asked:
                answers[place] = _answer(list(ticket), bool(rows[place].logprobs))
        except Stopped as error:
            raise InputError(f"{ENDED} ({error})") from error
        finally:
            for _, ticket, lease in asked:
                ticket.cancel()
                lease.release()
        if not self.engine.alive:  # whose rows all say so, as if each had failed by itself
            raise InputError(ENDED)
        return answers

    def _ask(self, row: GenerateRow, lease: Lease, number: int) -> Ticket:
        """Into the engine's queue, as soon as that has a place."""
        seed = number if row.seed is None else row.seed
        sampling = row.sampling(row.max_tokens, seed, 0 if row.logprobs else None)
        gate = row.requested({BASE}).gate(lease.versions)
        generation = Generation(self.tokens.prompt(row.prompt), sampling, gate)
        while True:
            try:
                return self.engine.submit(generation)
            except Full:
                time.sleep(0.01)


def _answer(events: list[Event], logprobs: bool) -> dict[str, Any]:
    last = events[-1]
    if last.finish == "error":
        return {"error": last.error}
    if last.finish == "cancelled":
        raise InputError(ENDED)
    answer: dict[str, Any] = {
        "text": "".join(event.text for event in events),
        "finish_reason": last.finish,
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
    }
    if logprobs:
        answer["logprobs"] = [event.logprob for event in events if event.token is not None]
    return answer
