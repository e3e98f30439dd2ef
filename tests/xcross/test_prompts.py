"""What a prompt holds, and how prompts are padded."""

import pytest
import torch
from pydantic import ValidationError

from geodapt.xcross.prompts import ItemPrompts, PromptCollator, TextPrompts
from geodapt.xcross.settings import PromptSettings
from tests.xcross.small import tokenizer

NAMES = ["alpha", "beta", "gamma", "delta"]
TEXTS = ["the first letter", "the second letter", "the third letter", "the fourth letter"]
SETTINGS = PromptSettings(max_tokens=40, item_tokens=20)


def text_of(words, prompt) -> str:
    return words.decode(prompt[0] + prompt[1])


def test_an_encoders_prompt_has_its_special_tokens():
    words = tokenizer(NAMES + TEXTS)
    prompts = ItemPrompts(NAMES, TEXTS, words, SETTINGS)([2, 0], [1, 3])
    assert [text_of(words, prompt) for prompt in prompts] == [
        "[CLS]gamma, alpha[SEP]the second letter[SEP]",
        "[CLS]gamma, alpha[SEP]the fourth letter[SEP]",
    ]
    assert prompts[0][0] == prompts[1][0]  # the part to share


def test_a_decoders_prompt_has_a_newline_between():
    words = tokenizer(NAMES + TEXTS, decoder=True)
    (prompt,) = ItemPrompts(NAMES, TEXTS, words, SETTINGS)([2, 0], [1])
    assert text_of(words, prompt) == "<s>gamma, alpha\nthe second letter"


def test_a_long_history_loses_its_oldest_and_a_long_item_its_end():
    words = tokenizer(NAMES + TEXTS)
    settings = PromptSettings(max_tokens=16, item_tokens=2)
    prompts = ItemPrompts(NAMES, TEXTS, words, settings)
    (prompt,) = prompts([0, 1, 2, 3] * 10, [1])
    assert len(prompt[0] + prompt[1]) == 16
    assert text_of(words, prompt).split("[SEP]")[0].endswith("gamma, delta")
    assert words.decode(prompt[1][:-1]) == words.decode(prompts.texts[1])
    assert TEXTS[1].startswith(words.decode(prompts.texts[1]))


def test_an_empty_history_is_a_prompt_too():
    words = tokenizer(NAMES + TEXTS)
    (prompt,) = ItemPrompts(NAMES, TEXTS, words, SETTINGS)([], [0])
    assert text_of(words, prompt) == "[CLS][SEP]the first letter[SEP]"


def test_the_candidate_must_leave_room():
    with pytest.raises(ValidationError, match="item_tokens"):
        PromptSettings(max_tokens=20, item_tokens=20)


def test_texts_are_cut_to_the_longest_prompt():
    words = tokenizer(NAMES + TEXTS)
    short, long = TextPrompts(words, PromptSettings(max_tokens=8, item_tokens=4))(
        ["alpha", "alpha beta " * 20]
    )
    assert words.decode(short[1]) == "[CLS]alpha[SEP]"
    assert len(long[1]) == 8
    assert long[1][-1] == words.sep_token_id


def test_the_collator_pads_on_the_right_and_marks_the_candidate():
    words = tokenizer(NAMES + TEXTS)
    collate = PromptCollator(words)
    prompts = ItemPrompts(NAMES, TEXTS, words, SETTINGS)
    rows = [
        {"prompts": prompts([0], [1, 2]), "labels": 1},
        {"prompts": prompts([0, 1], [3, 0]), "labels": 0},
    ]
    batch = collate(rows)
    assert batch["labels"].tolist() == [1, 0]
    for row, one in enumerate(rows):
        for candidate, (shared, own) in enumerate(one["prompts"]):
            assert batch["shared"][row] == len(shared)
            length = len(shared) + len(own)
            ids = batch["input_ids"][row, candidate]
            mask = batch["attention_mask"][row, candidate]
            assert ids[:length].tolist() == shared + own
            assert (ids[length:] == words.pad_token_id).all()
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            if collate.with_types:
                types = batch["token_type_ids"][row, candidate]
                assert types.nonzero().flatten().tolist() == list(range(len(shared), length))
    longest = max(len(a) + len(b) for row in rows for a, b in row["prompts"])
    assert batch["input_ids"].shape == torch.Size([2, 2, longest])
