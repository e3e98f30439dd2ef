"""Texts to tokens and back, of prompts and of chats, for requests that arrive at once."""

import copy
import json
import threading
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.errors import InputError


class TextTokens:
    """A tokenizer of its own behind a lock: a fast tokenizer may not be changed while it is used.

    ``longest`` is how many tokens the model reads at once, None where it does not say.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, longest: int | None
    ) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self.vocabulary, self.longest = vocabulary, longest
        self._lock = threading.Lock()
        self._before = self.encode("a", special=False)[-1:]
        self._skip = str(self.tokenizer.decode(self._before))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """A text's tokens, with those that the tokenizer puts around a prompt if ``special``."""
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=special, verbose=False).input_ids)

    def prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """A prompt's tokens; an empty one begins as a text does.

        Raises :class:`InputError` for numbers that are no tokens, and for a prompt of none.
        """
        tokens = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        for token in tokens:
            if token >= self.vocabulary:
                raise InputError(
                    f"prompt: {token} is no token; the model has {self.vocabulary:,} of them"
                )
        if not tokens:
            start = self.tokenizer.bos_token_id
            if start is None:
                raise InputError("prompt: it has no tokens, and the model has none to begin with")
            tokens = [start]
        return tuple(tokens)

    def chat(self, messages: Sequence[dict[str, str]], generation_prompt: bool = True) -> list[int]:
        """A conversation's tokens by the template that the tokenizer brings.

        transformers runs it in Jinja's sandbox. Raises :class:`InputError` where there is no
        template, or it refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise InputError(
                "messages: this model's tokenizer has no chat template; use /v1/completions"
            )
        try:
            with self._lock:
                text = self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=generation_prompt
                )
        except TemplateError as error:
            raise InputError(f"messages: the model's chat template says: {error}") from error
        return self.encode(str(text), special=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens. Raises :class:`InputError` for numbers that are none."""
        for token in tokens:
            if token >= self.vocabulary:
                raise InputError(f"tokens: {token} is no token of {self.vocabulary:,}")
        with self._lock:
            return str(self.tokenizer.decode(list(tokens)))

    def name(self, token: int) -> str:
        """A token as logprobs name it: its text, or its number where it is part of a letter."""
        with self._lock:  # after another, as many decoders drop the space before the first
            text = str(self.tokenizer.decode([*self._before, token])).removeprefix(self._skip)
        return f"token_id:{token}" if "\ufffd" in text or not text else text

    def described(self) -> dict[str, Any]:
        """What a client that counts tokens itself has to know, as vLLM's ``/tokenizer_info``."""
        tokenizer = self.tokenizer
        special = {k: str(v) for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
        template = tokenizer.chat_template
        return {
            "tokenizer_class": type(tokenizer).__name__,
            "vocab_size": self.vocabulary,
            "model_max_length": self.longest,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **special,
            "chat_template": template if isinstance(template, str) else json.dumps(template),
        }
