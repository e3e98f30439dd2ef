"""Adapters as PEFT makes them, and inputs for each family of tiny models."""

from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.tiny_models import tiny_bert, tiny_deberta, tiny_llama, tiny_t5

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "bert": tiny_bert,
    "llama": tiny_llama,
    "t5": tiny_t5,
    "deberta": tiny_deberta,
}
# Different ranks, scales and targets: (rank, alpha, rsLoRA).
RECIPES = {
    "toys": (4, 8, False),
    "books": (2, 6, True),
    "tools": (3, 3, False),
}
TARGETS = {
    "bert": {"toys": ["query", "value"], "books": ["query", "dense"], "tools": ["key"]},
    "llama": {
        "toys": ["q_proj", "v_proj"],
        "books": "all-linear",
        "tools": ["q_proj", "down_proj"],
    },
    "t5": {"toys": ["q"], "books": ["q", "v", "wo"], "tools": ["k", "wi"]},
    "deberta": {
        "toys": ["query_proj", "value_proj"],
        "books": ["query_proj", "dense"],
        "tools": ["key_proj"],
    },
}


def seeded(family: str) -> nn.Module:
    """The same tiny model at every call."""
    torch.manual_seed(7)
    return FAMILIES[family]()


def inputs(family: str, rows: int, tokens: int = 5) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 100, (rows, tokens), generator=torch.Generator().manual_seed(rows))
    if family == "t5":
        return {"input_ids": ids, "decoder_input_ids": ids.flip(1)[:, :3]}
    return {"input_ids": ids}


def output(model: Callable, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch)[0].detach()


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give PEFT's fresh factors values that do something."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3


def peft_model(family: str, names: tuple[str, ...] = ("toys", "books", "tools")):
    """A PEFT model with the named adapters of RECIPES, filled with random numbers."""
    model = None
    for name in names:
        rank, alpha, rslora = RECIPES[name]
        config = LoraConfig(
            r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=TARGETS[family][name]
        )
        if model is None:
            model = get_peft_model(seeded(family), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    randomise(model)
    return model.eval()
