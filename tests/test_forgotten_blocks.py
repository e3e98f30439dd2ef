"""A forgotten ``with`` is told."""

import gc
import warnings

import pytest
import torch

from geodapt.adapters import AdapterBank
from geodapt.errors import InputWarning
from geodapt.vision.deep_prompts import Prompts, prompts_on
from tests.tiny_models import tiny_llama


def filled() -> AdapterBank:
    bank = AdapterBank(tiny_llama().eval())
    bank.create("toys", rank=2, targets=["q_proj"])
    for parameter in bank.parameters_of("toys"):
        torch.nn.init.normal_(parameter)
    return bank


def test_a_call_without_a_block_is_told():
    bank = filled()
    with pytest.warns(InputWarning, match=r"bank.use\(...\) was called without a block") as told:
        bank.use("toys")
    assert told[0].filename == __file__
    with pytest.warns(InputWarning, match=r"with prompts_on\(...\)"):
        prompts_on(bank.model, Prompts())


@torch.no_grad()
def test_blocks_and_decorated_functions_are_not():
    bank, ids = filled(), torch.arange(4)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with bank.use("toys"):
            inside = bank.model(ids).logits

        @bank.use("toys")
        def ask() -> torch.Tensor:
            return bank.model(ids).logits

        assert all(torch.equal(ask(), inside) for _ in range(2))
        outside = bank.model(ids).logits
        with pytest.raises(ZeroDivisionError), bank.use("toys"):
            raise ZeroDivisionError
        gc.collect()
    assert not torch.equal(inside, outside)
