"""Small models of every kind that the engine serves, with adapters, and their answers alone."""

from functools import cache

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from geodapt.adapters import AdapterBank, Mix, TopAtoms
from tests.helm import small

VOCABULARY, END, NAMES = 50, 7, ("toys", "tools", "books", "films")
LIKE_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
T5_SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
KINDS = ["llama", "qwen", "t5", "helm-d", "helm-mice"]
GATES = [
    None,
    Mix({"toys": 1.0}),
    Mix({"toys": 0.5, "tools": -0.7, "books": 1.0}),
    Mix({"films": 1.5}),
    TopAtoms(3, Mix({"toys": 1.0, "tools": 1.0})),
    TopAtoms(0.5, Mix({"books": 1.0})),
    TopAtoms(3, Mix({"films": -1.0, "toys": 1.0})),
]
"""TopAtoms per sequence looks at all of a prompt, and so at other tokens under another reading."""


@cache
def served(kind: str, capacity: int | None = None) -> AdapterBank:
    """A bank of four adapters on a model whose answers change from token to token."""
    torch.manual_seed(3)
    if kind in ("helm-d", "helm-mice"):
        model = small.talker("mha" if kind == "helm-d" else "mice")
    else:
        makers = {
            "llama": lambda: LlamaForCausalLM(LlamaConfig(**LIKE_LLAMA)),
            "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**LIKE_LLAMA)),
            "t5": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES)),
        }
        model = makers[kind]()
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.data.normal_(std=0.6 / weight.shape[1] ** 0.5 if "embed" not in name else 1)
    model.eval()
    model.generation_config.eos_token_id = END
    bank = AdapterBank(model, capacity)
    for i, name in enumerate(NAMES):
        bank.create(name, rank=2 + i, alpha=2 * (2 + i), targets="all-linear")
        draw = torch.Generator().manual_seed(i)
        for parameter in bank.parameters_of(name):
            parameter.data.normal_(std=0.3, generator=draw)
    return bank


def prompt(length: int, seed: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(8, VOCABULARY, (length,), generator=draw).tolist())


@torch.no_grad()
def alone(bank: AdapterBank, ids: tuple[int, ...], gate, count: int) -> list[int]:
    """What ``generate`` answers to one prompt by itself, taking the most probable token."""
    with bank.use(gate if gate is not None else {}):
        out = bank.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=END,
        )
    found = out[0].tolist()
    return found[1:] if bank.model.config.is_encoder_decoder else found[len(ids) :]
