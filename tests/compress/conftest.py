"""Tiny models on disk with tokenizers and texts."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.compress.small import seeded
from tests.compress.zoo import ZOO, made


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A tiny Llama and a tiny BERT with tokenizers, and a file of texts."""
    folder = tmp_path_factory.mktemp("world")
    words = {f"w{i}": i + 3 for i in range(90)} | {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 93}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    for family in ("llama", "bert", "helm", "qwen3_moe"):
        model = made(family) if family in ZOO else seeded(family)
        model.save_pretrained(folder / family)
        fast.save_pretrained(folder / family)
    numbers = torch.randint(0, 90, (60, 14), generator=torch.Generator().manual_seed(0))
    texts = [" ".join(f"w{n}" for n in row) for row in numbers.tolist()]
    (folder / "texts.txt").write_text("\n\n".join(texts))
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return folder
