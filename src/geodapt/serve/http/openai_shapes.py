"""Events as OpenAI's API writes them: choices, logprobs, usage."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from geodapt.serve.generation import Event
from geodapt.serve.text_tokens import TextTokens

Kind = Literal["text", "chat"]
FIRST = {"text": "cmpl", "chat": "chatcmpl"}
WHOLE = {"text": "text_completion", "chat": "chat.completion"}
CHUNK = {"text": "text_completion", "chat": "chat.completion.chunk"}


@dataclass
class AnswerSoFar:
    """What has come of one answer."""

    texts: list[str] = field(default_factory=list)
    tokens: list[Event] = field(default_factory=list)
    offset: int = 0
    """Characters before the next token, for ``text_offset``."""
    parts: list[int] = field(default_factory=list)
    """Tokens of a letter that is not whole yet."""
    last: Event | None = None

    def add(self, event: Event) -> None:
        self.texts.append(event.text)
        if event.token is not None:
            self.tokens.append(event)
        if event.finish is not None:
            self.last = event


class Shapes:
    """The frame of one request's answer, and what goes into it."""

    def __init__(
        self, kind: Kind, model: str, tokens: TextTokens, logprobs: bool, prompts: int
    ) -> None:
        """``prompts``: how many there are; their answers follow each other."""
        self.kind, self.tokens, self.logprobs, self.prompts = kind, tokens, logprobs, prompts
        self.frame: dict[str, Any] = {
            "id": f"{FIRST[kind]}-{uuid4().hex}",
            "object": WHOLE[kind],
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[AnswerSoFar]) -> dict[str, Any]:
        """An answer that is not streamed."""
        return self.frame | {
            "choices": [self._whole_choice(n, choice) for n, choice in enumerate(choices)],
            "usage": self.usage(choices),
        }

    def _whole_choice(self, number: int, choice: AnswerSoFar) -> dict[str, Any]:
        text, last = "".join(choice.texts), choice.last
        body: dict[str, Any] = {"index": number}
        if self.kind == "text":
            body["text"] = text
        else:
            body["message"] = {"role": "assistant", "content": text, "refusal": None}
        body["logprobs"] = self._logprobs(choice, choice.tokens)
        body["finish_reason"] = last.finish if last else None
        return body

    def chunk(self, number: int, choice: AnswerSoFar, event: Event, first: bool) -> dict[str, Any]:
        """One event of a stream; ``first`` is the answer's first."""
        tokens = [event] if event.token is not None else []
        body: dict[str, Any] = {"index": number}
        if self.kind == "text":
            body["text"] = event.text
        else:
            role = {"role": "assistant"} if first else {}
            body["delta"] = role | ({"content": event.text} if event.text or first else {})
        body["logprobs"] = self._logprobs(choice, tokens) if tokens else None
        body["finish_reason"] = event.finish
        return self.frame | {"object": CHUNK[self.kind], "choices": [body]}

    def usage_chunk(self, choices: Sequence[AnswerSoFar]) -> dict[str, Any]:
        """The last event of a stream that was asked for its usage."""
        rest = {"object": CHUNK[self.kind], "choices": [], "usage": self.usage(choices)}
        return self.frame | rest

    def usage(self, choices: Sequence[AnswerSoFar]) -> dict[str, int]:
        """Tokens read and made; a prompt with several answers is counted once."""
        each = max(1, len(choices) // self.prompts)
        ends = [choice.last for choice in choices]
        read = sum(end.prompt_tokens for end in ends[::each] if end)
        made = sum(end.completion_tokens for end in ends if end)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}

    def _logprobs(self, choice: AnswerSoFar, events: Sequence[Event]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.kind == "chat":
            return {"content": [self._chat_token(event) for event in events]}
        names, offsets = [self._name(event.token) for event in events], []
        for name, event in zip(names, events, strict=True):
            if name.startswith("token_id:"):
                choice.parts.append(event.token or 0)
                offsets.append(choice.offset)
                continue
            choice.offset += len(self.tokens.decode(choice.parts)) if choice.parts else 0
            choice.parts.clear()
            offsets.append(choice.offset)
            choice.offset += len(name)
        return {
            "tokens": names,
            "token_logprobs": [event.logprob for event in events],
            "top_logprobs": [self._alternatives(event) for event in events],
            "text_offset": offsets,
        }

    def _alternatives(self, event: Event) -> dict[str, float] | None:
        """The best tokens and the chosen one, as OpenAI has it; none at a prompt's first."""
        if event.logprob is None:
            return None
        found = {self._name(token): logprob for token, logprob in event.alternatives}
        return found | {self._name(event.token): event.logprob}

    def _chat_token(self, event: Event) -> dict[str, Any]:
        best = [self._named(token, logprob) for token, logprob in event.alternatives]
        return self._named(event.token, event.logprob) | {"top_logprobs": best}

    def _named(self, token: int | None, logprob: float | None) -> dict[str, Any]:
        name = self._name(token)
        spelled = None if name.startswith("token_id:") else list(name.encode())
        return {"token": name, "logprob": logprob, "bytes": spelled}

    def _name(self, token: int | None) -> str:
        return "" if token is None else self.tokens.name(token)
