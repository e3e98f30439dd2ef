"""Prompts: a user's history with a candidate item, or a text to classify, as token ids.

Every item is tokenized once; prompts are then put together from ids. A history is cut from its
oldest side, an item's text from its end.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.xcross.settings import PromptSettings

Prompt = tuple[list[int], list[int]]
"""Token ids of the history part and of the candidate part."""


class ItemPrompts:
    """Prompts of one domain: ``[CLS] history [SEP] candidate [SEP]``, in the base's own special
    tokens.

    Decoders get ``BOS history newline candidate``: their summary is the last token.
    """

    def __init__(
        self,
        names: Sequence[str],
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        settings: PromptSettings,
    ) -> None:
        """``names`` stand for items in a history, ``texts`` for the same items as candidates."""

        def ids(texts: Sequence[str]) -> list[list[int]]:
            return tokenizer(list(texts), add_special_tokens=False)["input_ids"]

        self.settings = settings
        self.comma = ids([", "])[0]
        self.names = ids(names)
        self.texts = [text[: settings.item_tokens] for text in ids(texts)]
        if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
            self.before, self.between = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
            self.after = [tokenizer.sep_token_id]
        else:
            start = tokenizer.bos_token_id
            self.before = [] if start is None else [start]
            self.between, self.after = ids(["\n"])[0], []

    def __call__(self, history: Sequence[int], candidates: Sequence[int]) -> list[Prompt]:
        """One prompt per candidate, all with the same history part."""
        past: list[int] = []
        for item in history:
            past += self.comma * bool(past) + self.names[item]
        fixed = len(self.before) + len(self.between) + len(self.after)
        room = self.settings.max_tokens - self.settings.item_tokens - fixed
        shared = self.before + past[max(0, len(past) - room) :] + self.between
        return [(shared, self.texts[candidate] + self.after) for candidate in candidates]


class TextPrompts:
    """Prompts of plain texts, one per row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings

    def __call__(self, texts: Sequence[str]) -> list[Prompt]:
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.settings.max_tokens)
        return [([], ids) for ids in encoded["input_ids"]]


class PromptCollator:
    """Pads rows of prompts to ``(rows, candidates, tokens)`` tensors, padding on the right."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.padding = tokenizer.pad_token_id or 0
        self.with_types = "token_type_ids" in tokenizer.model_input_names

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        """``rows`` hold ``prompts`` (a list of :data:`Prompt`) and ``labels`` (an int)."""
        prompts = [prompt for row in rows for prompt in row["prompts"]]
        longest = max(len(shared) + len(own) for shared, own in prompts)
        shape = (len(prompts), longest)
        ids = torch.full(shape, self.padding)
        mask, types = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, (shared, own) in enumerate(prompts):
            length = len(shared) + len(own)
            ids[row, :length] = torch.tensor(shared + own)
            mask[row, :length] = 1
            types[row, len(shared) : length] = 1 if shared else 0
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.with_types:
            batch["token_type_ids"] = types
        batch = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in batch.items()}
        # Where the history ends, for encoders that can share it between candidates.
        batch["shared"] = torch.tensor([len(row["prompts"][0][0]) for row in rows])
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch
