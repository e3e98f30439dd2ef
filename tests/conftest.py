"""Shared fixtures: the command line, tiny random models of each family, and no network."""

import os
import signal
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GEODAPT_PROGRESS", "off")  # lines that a slow machine would print

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, T5Config, T5Model

from tests.commands import call

# A shell's background jobs ignore Ctrl-C and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def geodapt():
    """``geodapt(*arguments)``: the command line in this process and folder."""
    return partial(call, ".")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """An empty cache folder for a module of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny_bert() -> BertModel:
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def tiny_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def tiny_t5() -> T5Model:
    config = T5Config(
        vocab_size=100,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return T5Model(config).eval()


@pytest.fixture
def bert():
    return tiny_bert()


@pytest.fixture
def llama():
    return tiny_llama()


@pytest.fixture
def t5():
    return tiny_t5()
