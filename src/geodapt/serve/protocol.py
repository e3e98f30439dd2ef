"""Requests for text, as OpenAI's API has them, with a gate beside them.

Fields that are not known are refused, since an answer that disregards one would be another answer
than the one asked for; those that say nothing about the answer are taken and not used.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from geodapt.serve.generation import MOST_ALTERNATIVES, Sampling
from geodapt.serve.requested_gate import MOST_ADAPTERS, Atoms, RequestedGate, requested_gate

Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**31)]], Field(max_length=2**20)]
Weight = Annotated[float, Field(allow_inf_nan=False)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A request's body: unknown fields refused, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AtomsBody(Body):
    """Only the largest rank-one terms of the adapters act."""

    keep: Annotated[StrictInt, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None = None
    """A number of terms a layer, or a share of them; null: as many as one adapter has."""
    per: Literal["token", "sequence"] = "token"


class GatedBody(Body):
    """What chooses the adapters that act on an answer."""

    model: str | None = Field(None, max_length=4000)
    """The base, an adapter, or a mixture as ``toys:0.5+tools:-0.2``."""
    adapters: Annotated[dict[str, Weight], Field(max_length=MOST_ADAPTERS)] | None = None
    """Weights of adapters; ``model`` is then the base."""
    atoms: AtomsBody | None = None

    def requested(self, base: set[str]) -> RequestedGate:
        """Raises :class:`geodapt.errors.InputError` as :func:`requested_gate` does."""
        atoms = Atoms(self.atoms.keep, self.atoms.per) if self.atoms is not None else None
        return requested_gate(self.model, self.adapters, atoms, base)


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Taken and not used."""


class DecodingBody(GatedBody):
    """How tokens are chosen; what is left out is as in OpenAI's API."""

    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    """0 and -1 are all."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    logit_bias: Annotated[dict[str, Weight], Field(max_length=10_000)] | None = None
    """Added to logits, by the tokens' numbers."""
    ignore_eos: bool = False

    @field_validator("logit_bias")
    @classmethod
    def _numbers(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or ():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError(f"'{token[:40]}' is no token's number")
        return bias

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, most: int, seed: int | None, logprobs: int | None) -> Sampling:
        """What the engine is asked for, of ``most`` tokens, with so many alternatives to each."""
        return Sampling(
            max_new_tokens=most,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=max(self.top_k or 0, 0),
            seed=seed,
            stop=self.stops,
            logprobs=logprobs,
            ignore_eos=self.ignore_eos,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
        )


class SamplingBody(DecodingBody):
    """How a request's answers are chosen and sent."""

    n: int | None = Field(None, ge=1, le=128)
    """Answers to each prompt, whose seeds count up from ``seed``."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Taken and not used."""
    metadata: dict[str, Any] | None = None
    """Taken and not used."""


class CompletionBody(SamplingBody):
    """``POST /v1/completions``."""

    prompt: str | Tokens | Annotated[list[str | Tokens], Field(min_length=1, max_length=2048)]
    """A text, its tokens, or several of either."""
    max_tokens: int | None = Field(None, ge=0, le=2**31)
    """16 where it is left out."""
    echo: bool | None = None
    """Whether the prompt comes first."""
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    best_of: int | None = None
    """Only as ``n``."""
    suffix: None = None

    @model_validator(mode="after")
    def _together(self) -> "CompletionBody":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of: answers are not ranked here; leave it out")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt apart."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            return [[]]
        one = isinstance(self.prompt[0], int)
        return [self.prompt] if one else list(self.prompt)  # type: ignore[list-item, arg-type]


class TextPart(Body):
    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One message; pictures and tools are not taken."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatBody(SamplingBody):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=0, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=0, le=2**31)
    """256 where both are left out."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @model_validator(mode="after")
    def _together(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs: true")
        return self


class TokenizeBody(Body):
    """``POST /tokenize``."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either 'prompt' or 'messages'")
        return self


class DetokenizeBody(Body):
    """``POST /detokenize``."""

    model: str | None = None
    tokens: Tokens
