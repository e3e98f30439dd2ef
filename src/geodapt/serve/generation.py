"""What a request for text asks of the engine, and what the engine answers, event by event."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from geodapt.adapters.gates import Gate, Off, names_of
from geodapt.errors import InputError

MOST_ALTERNATIVES = 20
"""How many alternatives to a token may be asked for."""

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen.

    A token's logits pass, in this order, the penalties and the bias, the temperature, ``top_k``
    and ``top_p``. A request draws from a generator of its own, so that the answer to a seed does
    not depend on what else runs.

    Raises :class:`InputError` for a value outside of its range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """The smallest set of tokens whose probabilities sum to this (Holtzman et al. 2020)."""
    top_k: int = 0
    """So many of the most probable tokens; 0 for all."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Texts that end the answer, which does not hold them."""
    logprobs: int | None = None
    """How many alternatives each event names beside its own token; None for no logprobs."""
    ignore_eos: bool = False
    frequency_penalty: float = 0.0
    """What every earlier occurrence in the answer takes off a token's logit, as in OpenAI's API."""
    presence_penalty: float = 0.0
    """What having occurred in the answer takes off a token's logit."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of all earlier tokens (Keskar et al. 2019)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; give 0 or more")
        _check("temperature", self.temperature, self.temperature >= 0, "0 or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and up to 1")
        _check("top_k", self.top_k, self.top_k >= 0, "0 (all) or more")
        _check("frequency_penalty", self.frequency_penalty, True, "a finite number")
        _check("presence_penalty", self.presence_penalty, True, "a finite number")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, penalty > 0, "above 0")
        if not all(self.stop):
            raise InputError("stop holds an empty text, which would end every answer; leave it out")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_ALTERNATIVES:
            raise InputError(f"logprobs is {self.logprobs}; give 0 to {MOST_ALTERNATIVES}")
        for token, bias in self.logit_bias.items():
            _check(f"logit_bias of token {token}", bias, True, "a finite number")


@dataclass(frozen=True)
class Generation:
    """One answer that is asked for. Several answers to one prompt are several of these."""

    prompt: tuple[int, ...]
    """Token numbers; what an encoder-decoder's encoder reads."""
    sampling: Sampling
    gate: Gate | None = None
    """What acts on the answer's row: None or ``Off()`` is the base alone; else ``Mix`` or
    ``TopAtoms`` within a ``Mix``. A ``Route`` of one entry is taken as its ``Mix``."""
    echo: bool = False
    """Whether the prompt's tokens come first, one event each, with their logprobs if asked for."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that must be resident while it runs."""
        return tuple(sorted(names_of(self.gate or Off())))


@dataclass(frozen=True)
class Event:
    """What one step brought for one request.

    Text comes only when it is certain: what may become a stop text, or a letter of several
    tokens, is held back, so that ``text`` may be empty and may hold what earlier tokens began.
    The joined texts of all events are the answer. A ``finish`` is the last event's.
    """

    text: str = ""
    token: int | None = None
    """The token of this step; None where an event only ends the answer."""
    logprob: float | None = None
    """The token's log probability (natural logarithm) before temperature, top-k and top-p; None
    where not asked for, and for the first token of an echoed prompt."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The most probable tokens of the step with their log probabilities, best first."""
    finish: Finish | None = None
    error: str | None = None
    """One sentence for the one who asked, where ``finish`` is ``"error"``."""
    echoed: bool = False
    """Whether the token is the prompt's."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens made so far, this one counted."""
    seconds_queued: float = 0.0
    """How long the request waited for its first step."""


class Full(Exception):
    """The queue takes nothing more just now; ask again after :attr:`retry_after` seconds."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} requests are waiting; try again in {retry_after} s")
        self.waiting, self.retry_after = waiting, retry_after


class Stopped(Exception):
    """The engine takes nothing more at all: it drains, is closed, or its thread has died."""


@dataclass(frozen=True)
class EngineSettings:
    """How much an engine does at once.

    Raises :class:`InputError` for a value outside of its range.
    """

    slots: int = 16
    """Rows that run at once."""
    queue: int = 256
    """Requests that may wait."""
    kv_tokens: int = 65_536
    """Tokens that all rows' caches may hold together, padding among them; a request that could
    need more is refused."""
    prefill_tokens: int = 256
    """Tokens of prompts that are read between two steps, so that running answers do not stall."""
    overtaken_seconds: float = 2.0
    """How long a request whose adapter finds no place may be overtaken by others."""
    most_new_tokens: int = 4096
    """The largest ``max_new_tokens`` that is taken."""

    def __post_init__(self) -> None:
        for name in ("slots", "queue", "kv_tokens", "prefill_tokens", "most_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        if not self.overtaken_seconds >= 0:
            raise InputError(f"overtaken_seconds is {self.overtaken_seconds}; give 0 or more")


@dataclass(frozen=True)
class Statistics:
    """What an engine does now, and did since it began."""

    running: int
    """Rows that run."""
    queued: int
    """Requests that wait."""
    tokens: int
    """Tokens made since the start."""
    prompt_tokens: int
    """Tokens of prompts read since the start."""
    requests: int
    """Requests that ended since the start, however they ended."""
    failed: int
    """Those of them that ended with an error."""
    cancelled: int
    """Those of them that were cancelled."""
    steps: int
    step_seconds: float
    """Seconds that all steps took together."""
    kv_tokens: int
    """Tokens that the caches of the running rows hold, padding among them."""
    resident: tuple[str, ...]
    """The adapters on the device, least recently used first."""
    adapter_hits: int
    """Requests admitted whose adapters were all on the device."""
    adapter_misses: int
    evictions: int
    """Adapters that made room for others."""


def _check(name: str, value: float, holds: bool, expected: str) -> None:
    if not (math.isfinite(value) and holds):
        raise InputError(f"{name} is {value}; give {expected}")
