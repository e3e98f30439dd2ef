"""The Python blocks of README and docs run as they stand, on a small base in place of a name."""

import re
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from geodapt.adapters import METHODS, AdapterBank
from geodapt.systems import SYSTEMS
from tests.vision.duals import dual

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "index",
            "adapters",
            "merging",
            "compress",
            "geometry",
            "helm",
            "extending",
            "vision",
            "prompts",
            "lathadapter",
        )
    ),
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A base with its tokenizer, and two adapters of it."""
    folder = tmp_path_factory.mktemp("shelf")
    words = Tokenizer(models.BPE(unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel()
    words.train_from_iterator(
        ["A train, a drill and a hose"],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "?", "<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="?", eos_token="<end>"
    )
    tokenizer.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    bank = AdapterBank(model)
    for name in ("toys", "tools"):
        bank.create(name, rank=4, targets=["q_proj", "v_proj"])
        for parameter in bank.parameters_of(name):
            torch.nn.init.normal_(parameter, std=0.1)
        bank.save(name, folder / name)
    clip = dual("clip")
    clip.model.save_pretrained(folder / "clip")
    clip.processor.save_pretrained(folder / "clip")
    return folder


@pytest.fixture
def own_registries():
    """What a page registers is gone after its test."""
    with patch.dict(METHODS), patch.dict(SYSTEMS), patch.object(sys, "path", [*sys.path]):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page, shelf, tmp_path, monkeypatch, own_cache, own_registries):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    lines = (f"A hose of {n} metres, a drill and {n} trains" for n in range(40))
    Path("texts.txt").write_text("\n".join(lines))
    names: dict = {}
    for block in blocks:
        for name, folder in (
            ("your/base", "base"),
            ("path/or/hub-id", "toys"),
            ("another/folder", "tools"),
            ("openai/clip-vit-base-patch32", "clip"),
        ):
            block = block.replace(f'"{name}"', repr(str(shelf / folder)))
        exec(compile(block, page, "exec"), names)
