"""Tiny models of each family, their inputs, and moments of them."""

import torch

from tests.tiny_models import tiny_bert, tiny_gpt2, tiny_helm, tiny_llama, tiny_t5

METHODS = ("svd", "int8", "int4", "int", "lowrank_plus_int4", "lowrank_plus_int")
TARGET = {"int8": {}, "int4": {}}  # the others get bits


def target(method):
    return TARGET.get(method, {"bits_per_weight": 6.0})


FAMILIES = {
    "bert": tiny_bert,
    "llama": tiny_llama,
    "t5": tiny_t5,
    "gpt2": tiny_gpt2,
    "helm": tiny_helm,
}


def seeded(family):
    torch.manual_seed(7)
    return FAMILIES[family]()


def inputs(family, rows=4, tokens=12, seed=0):
    ids = torch.randint(3, 100, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["attention_mask"][0, tokens // 2 :] = 0
    if family == "t5":
        batch["decoder_input_ids"] = ids
    return batch


def batches(family, count=4):
    return [inputs(family, seed=seed) for seed in range(count)]


@torch.no_grad()
def output(model, batch):
    return model(**batch)[0]
