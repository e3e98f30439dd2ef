"""A bank whose adapters are filled with random numbers."""

import torch
from torch import nn

from geodapt.adapters import AdapterBank

NAMES = ("toys", "books")


def filled(model: nn.Module, targets, names=NAMES, std=0.3, rank=2) -> AdapterBank:
    bank = AdapterBank(model)
    for i, name in enumerate(names):
        bank.create(name, rank=rank + i, targets=targets)
        for j, parameter in enumerate(bank.parameters_of(name)):
            generator = torch.Generator().manual_seed(100 * i + j)
            torch.nn.init.normal_(parameter, std=std, generator=generator)
        bank.train_only(name)
    bank.train_only()
    return bank
