"""One row's next token out of its logits, with a generator of its own."""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError
from geodapt.serve.generation import Sampling

Chosen = tuple[int, float | None, tuple[tuple[int, float], ...]]
"""A token, its log probability where asked for, and the alternatives to it."""


class Poisoned(InputError):
    """A row's logits are no numbers: its adapters do not make a model with this base."""

    def __init__(self) -> None:
        super().__init__(
            "the model's output for this request is not finite (NaN or infinite), which its "
            "adapters, their weights or the base cause; ask with smaller weights"
        )


class Sampler:
    """Chooses the tokens of one answer; the same logits and seed give the same tokens."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocabulary: int) -> None:
        """Raises :class:`InputError` for a biased token that the vocabulary does not have."""
        self.sampling = sampling
        for token in sampling.logit_bias:
            if not 0 <= token < vocabulary:
                raise InputError(
                    f"logit_bias names token {token}; the vocabulary has 0 to {vocabulary - 1}"
                )
        self._bias = torch.tensor(list(sampling.logit_bias), dtype=torch.long)
        self._by = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)
        self._made: Counter[int] = Counter()
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._generator: torch.Generator | None = None

    @property
    def plain(self) -> bool:
        """Whether the largest logit is the answer."""
        s = self.sampling
        return s.temperature == 0 and s.logprobs is None and not self._changes

    @property
    def _changes(self) -> bool:
        s = self.sampling
        penalties = s.frequency_penalty or s.presence_penalty or s.repetition_penalty != 1
        return bool(penalties or len(self._bias))

    def choose(self, logits: Float[Tensor, " vocabulary"]) -> Chosen:
        """The next token.

        Raises :class:`Poisoned` for logits without a finite largest one.
        """
        sampling = self.sampling
        logits = logits.float()
        if not torch.isfinite(logits.max()):
            raise Poisoned
        changed = self._penalized(logits) if self._changes else logits
        if sampling.temperature == 0:
            token = int(changed.argmax())
        else:
            token = self._draw(changed / sampling.temperature)
        self._made[token] += 1
        if sampling.repetition_penalty != 1:
            self._seen.add(token)
        if sampling.logprobs is None:
            return token, None, ()
        return (token, *log_probability(logits, token, sampling.logprobs))

    def _penalized(self, logits: Tensor) -> Tensor:
        sampling, logits = self.sampling, logits.clone()
        if self._seen:
            seen = torch.tensor(sorted(self._seen), device=logits.device)
            old, by = logits[seen], sampling.repetition_penalty
            logits[seen] = torch.where(old > 0, old / by, old * by)
        if self._made:
            made = torch.tensor(list(self._made), device=logits.device)
            often = torch.tensor(list(self._made.values()), device=logits.device)
            logits[made] -= sampling.frequency_penalty * often + sampling.presence_penalty
        if len(self._bias):
            logits[self._bias.to(logits.device)] += self._by.to(logits.device)
        return logits

    def _draw(self, logits: Tensor) -> int:
        probabilities = kept(logits, self.sampling.top_k, self.sampling.top_p)
        if self._generator is None:
            self._generator = torch.Generator()
            if self.sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self.sampling.seed % 2**63)
        return int(torch.multinomial(probabilities.cpu(), 1, generator=self._generator))


def kept(
    logits: Float[Tensor, " vocabulary"], top_k: int, top_p: float
) -> Float[Tensor, " vocabulary"]:
    """Probabilities that sum to 1, zero for all but the ``top_k`` largest, and of these for all
    but the fewest largest that sum to ``top_p`` (Holtzman et al. 2020)."""
    if 0 < top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # the first is never beyond
        probabilities = probabilities.index_fill(0, order[beyond], 0)
        probabilities = probabilities / probabilities.sum()
    return probabilities


def log_probability(
    logits: Float[Tensor, " vocabulary"], token: int, alternatives: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """A token's natural log probability, and the most probable tokens with theirs."""
    logs = logits.float().log_softmax(-1)
    best = logs.topk(alternatives) if alternatives else None
    named = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else ()
    return logs[token].item(), named
