"""From tokens to text that is certain: whole letters, and nothing that may become a stop text."""

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What decoding shows for a letter of which a token is missing."""


class TextStream:
    """The text of an answer, token by token.

    Stop texts are found wherever they lie, across the borders of tokens too; the first one ends
    the text right before it.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        """Without a tokenizer there is no text."""
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._tokens: list[int] = []
        self._from = self._read = 0  # a window, since a token's text depends on its neighbours
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that a token makes certain."""
        if self._tokenizer is None or self.stopped:
            return ""
        self._tokens.append(token)
        known, text = self._decode(self._from, self._read), self._decode(self._from)
        if len(text) <= len(known) or text.endswith(UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._tokens)
        return self._release(text[len(known) :])

    def flush(self) -> str:
        """What was held back, where no token follows."""
        if self._tokenizer is None or self.stopped:
            return ""
        known, text = self._decode(self._from, self._read), self._decode(self._from)
        certain = self._release(text[len(known) :])
        held, self._held = self._held, ""
        return certain if self.stopped else certain + held

    def _release(self, text: str) -> str:
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _decode(self, start: int, end: int | None = None) -> str:
        tokens = self._tokens[start:end]
        if not tokens:
            return ""
        return self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of the text is that begins the stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
