"""One row that runs: from logits to events."""

import time

from torch import Tensor

from geodapt.serve.generation import Event, Finish
from geodapt.serve.passes import Passes
from geodapt.serve.sampling import Sampler, log_probability
from geodapt.serve.stops import TextStream
from geodapt.serve.tickets import Ticket

NOTHING: tuple[tuple[int, float], ...] = ()


class RunningRow:
    """A request that has its place: what it read, made, and says."""

    def __init__(self, ticket: Ticket, passes: Passes, tokenizer: object) -> None:
        self.ticket = ticket
        generation = ticket.generation
        self.sampler = Sampler(generation.sampling, generation.prompt, passes.vocabulary)
        self.last = 0
        """The token that the next step reads."""
        self.made = 0
        self.finish: Finish | None = None
        self._ends = frozenset() if generation.sampling.ignore_eos else passes.ends
        self._text = TextStream(tokenizer, generation.sampling.stop)
        self._echoed = TextStream(tokenizer)
        ticket.started = ticket.started or time.monotonic()

    @property
    def done(self) -> bool:
        """Whether its last event was told."""
        return self.finish is not None

    @property
    def wants_prompt_logits(self) -> bool:
        """Whether the prompt's own log probabilities are asked for."""
        generation = self.ticket.generation
        return generation.echo and generation.sampling.logprobs is not None

    def echo(self, logits: Tensor | None) -> None:
        """Tell the prompt's tokens; ``logits`` are those after each of them, where wanted."""
        generation = self.ticket.generation
        wanted = generation.sampling.logprobs
        for i, token in enumerate(generation.prompt):
            logprob, alternatives = None, NOTHING
            if i and logits is not None and wanted is not None:
                logprob, alternatives = log_probability(logits[i - 1], token, wanted)
            text = self._echoed.push(token)
            if i == len(generation.prompt) - 1:
                text += self._echoed.flush()
            self._put(text, token, logprob, alternatives, echoed=True)

    def accept(self, logits: Tensor, token: int | None = None) -> None:
        """Choose the next token, unless it is chosen already, and tell it."""
        sampling = self.ticket.generation.sampling
        if self.made >= sampling.max_new_tokens:
            self.end("length")
            return
        logprob, alternatives = None, NOTHING
        if token is None:
            token, logprob, alternatives = self.sampler.choose(logits)
        self.last, self.made = token, self.made + 1
        if token in self._ends:
            self.end("stop", token, logprob, alternatives)
            return
        text = self._text.push(token)
        if self._text.stopped:
            self._finish("stop", text, token, logprob, alternatives)
        elif self.made == sampling.max_new_tokens:
            text += self._text.flush()
            finish: Finish = "stop" if self._text.stopped else "length"
            self._finish(finish, text, token, logprob, alternatives)
        else:
            self._put(text, token, logprob, alternatives)

    def end(
        self,
        finish: Finish,
        token: int | None = None,
        logprob: float | None = None,
        alternatives: tuple[tuple[int, float], ...] = (),
        error: str | None = None,
    ) -> None:
        """The last event, with the text that was held back."""
        self._finish(finish, self._text.flush(), token, logprob, alternatives, error)

    def _finish(self, finish: Finish, text: str, *rest: object) -> None:
        self.finish = finish
        token, logprob, alternatives, *error = rest
        self._put(text, token, logprob, alternatives, finish=finish, error=next(iter(error), None))  # type: ignore[arg-type]

    def _put(
        self,
        text: str,
        token: int | None,
        logprob: float | None,
        alternatives: tuple[tuple[int, float], ...],
        finish: Finish | None = None,
        error: str | None = None,
        echoed: bool = False,
    ) -> None:
        ticket = self.ticket
        ticket.put(
            Event(
                text,
                token,
                logprob,
                alternatives,
                finish,
                error,
                echoed,
                prompt_tokens=len(ticket.generation.prompt),
                completion_tokens=self.made,
                seconds_queued=(ticket.started or ticket.submitted) - ticket.submitted,
            )
        )
