"""The passes that find out where rows are change nothing that a model keeps or is given."""

import copy
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from geodapt.adapters import Off, Route
from geodapt.errors import InputError
from tests.adapters.filled import filled

ROWS = ["toys", None, "books"]


class Remembers(nn.Module):
    """Adds what it saw before: how it keeps that is up to ``reset`` and ``remember``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.reset()

    def forward(self, x):
        y = self.inner(x)
        before = self.remember(y.detach())
        return y + before


class InAList(Remembers):
    def reset(self):
        self.memory = []

    def remember(self, y):
        self.memory.append(y)
        return torch.stack(self.memory).mean(0)


class InADeque(InAList):
    def reset(self):
        self.memory = deque(maxlen=3)

    def remember(self, y):
        self.memory.append(y)
        return torch.stack([*self.memory]).sum(0)


class InADictionary(InAList):
    def reset(self):
        self.memory = {"seen": {}}

    def remember(self, y):
        self.memory["seen"][len(self.memory["seen"])] = y
        return sum(self.memory["seen"].values())


class InANumber(InAList):
    def reset(self):
        self.calls = 0

    def remember(self, y):
        self.calls += 1
        return self.calls * y


class InANewTensor(InAList):
    def reset(self):
        self.register_buffer("mean", torch.zeros(6))

    def remember(self, y):
        self.mean = 0.9 * self.mean + y.mean(0)
        return self.mean


class InTheSameTensor(InAList):
    def reset(self):
        self.mean = torch.zeros(6)  # no buffer

    def remember(self, y):
        return self.mean.add_(y.mean(0))


class WhenFirstAsked(InAList):
    def reset(self):
        self.__dict__.pop("sum", None)

    def remember(self, y):
        self.sum = y.mean(0) if not hasattr(self, "sum") else self.sum + y.mean(0)
        return self.sum


class InALargeQueue(InAList):
    def reset(self):
        self.register_buffer("queue", torch.zeros(200_000, 6))
        self.at = 0

    def remember(self, y):
        self.queue[self.at : self.at + len(y)] = y
        self.at += len(y)
        return self.queue.sum(0)


KINDS = [InAList, InADeque, InADictionary, InANumber, InANewTensor, InTheSameTensor, WhenFirstAsked]


@pytest.mark.parametrize("kind", [*KINDS, InALargeQueue])
@torch.no_grad()
def test_what_a_model_remembers_is_not_what_the_trials_made_up(kind):
    model = kind()
    bank = filled(model, ["inner"])
    x = torch.randn(3, 6)
    said = []
    with bank.use(Route(ROWS)):
        for _ in range(2):  # no trial runs the second time
            model.reset()
            said.append([bank.model(x), bank.model(2 * x)])
    for first, second in zip(*said, strict=True):
        torch.testing.assert_close(first, second)


@torch.no_grad()
def test_a_memory_that_is_too_large_to_be_copied_is_refused(monkeypatch):
    monkeypatch.setattr("geodapt.adapters.execution.kept_state.LARGE", 1000)
    bank = filled(InALargeQueue(), ["inner"])
    with bank.use(Route(ROWS)), pytest.raises(InputError, match=r"a tensor of shape \(200000, 6\)"):
        bank.model(torch.randn(3, 6))


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    ("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (MistralForCausalLM, MistralConfig)]
)
def test_a_cache_that_gradients_reach_is_read_and_not_written(kind, config, trains):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    torch.manual_seed(0)
    model = kind(config(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    bank = filled(model, ["q_proj", "v_proj"])
    model.requires_grad_(trains)
    first, then = torch.randint(3, 50, (3, 5)), torch.randint(3, 50, (3, 4))
    alone = []
    for i, name in enumerate(ROWS):
        with bank.use(Off()):
            cache = model(first[i : i + 1], use_cache=True).past_key_values
        with bank.use(name or Off()):
            alone.append(model(then[i : i + 1], past_key_values=cache).logits)
    with bank.use(Off()):
        cache = model(first, use_cache=True).past_key_values
    with bank.use(Route(ROWS)):
        got = model(then, past_key_values=cache).logits
    assert cache.get_seq_length() == 9
    torch.testing.assert_close(got, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_batches_of_other_lengths_and_counts_need_no_other_trial(training):
    """As a training's and a generation's steps are."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).train(training)
    bank, trials = filled(model, ["q_proj", "v_proj"]), []
    model.model.layers[0].register_forward_pre_hook(lambda *_: trials.append(bank.probing))
    with bank.use(Route(ROWS)):
        for step in range(4):
            ids = torch.randint(3, 50, (3, 5 + step))
            if step == 1:
                trials.clear()
            model(input_ids=ids, labels=ids, num_items_in_batch=17 + step)
            model(input_ids=ids, logits_to_keep=3 + step)
        assert not any(trials)
        model.eval().generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
        trials.clear()
        model.generate(ids[:, 2:], max_new_tokens=6, do_sample=False, pad_token_id=0)
        assert len(trials) == 6
        assert not any(trials)


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_weights_that_a_model_rescales_once_are_rescaled_once(training):
    """RWKV divides those of its later blocks when it is first called in evaluation."""
    config = RwkvConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=4, rescale_every=2, context_length=32
    )
    torch.manual_seed(0)
    model = RwkvForCausalLM(config)
    for name, weight in model.named_parameters():
        if name.endswith("value.weight") or name.endswith("output.weight"):
            weight.normal_(std=0.3)
    wanted, ids = copy.deepcopy(model).eval(), torch.randint(3, 50, (3, 6))
    plain = wanted(ids).logits
    bank = filled(model.train(training), ["key", "receptance"])
    with bank.use(Route(ROWS)):
        model(ids)
        got = model.eval()(ids).logits
    for i, name in enumerate(ROWS):
        with bank.use(name or Off()):
            torch.testing.assert_close(got[i], model(ids[i : i + 1]).logits[0])
    with bank.use(Off()):
        torch.testing.assert_close(model(ids).logits, plain)


@torch.no_grad()
def test_what_numpy_draws_inside_of_a_model_is_drawn_as_without_trials():
    """The masks of a spectrogram in training."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    sound = {"conv_dim": (16, 16), "conv_kernel": (4, 4), "conv_stride": (4, 4)}
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=20, num_attention_heads=2, mask_time_prob=0.3, mask_time_length=2, layerdrop=0.0,
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
        activation_dropout=0.0, **sizes, **sound,
    )  # fmt: skip
    bank = filled(Wav2Vec2ForCTC(config).train(), ["q_proj", "v_proj"])
    bank.add("again", bank["toys"])
    x, said = torch.randn(2, 400), []
    for gate in (Route(["toys", "again"]), "toys"):
        np.random.seed(0)
        with bank.use(gate):
            said.append(bank.model(x).logits)
        said.append(torch.tensor(np.random.random()))
    torch.testing.assert_close(said[0], said[2])
    assert said[1] == said[3]


@torch.no_grad()
def test_static_caches_of_other_lengths_need_no_other_trial():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).eval()
    bank, trials = filled(model, ["q_proj"]), []
    model.model.layers[0].register_forward_pre_hook(lambda *_: trials.append(bank.probing))
    ids = torch.randint(3, 50, (3, 5))
    with bank.use(Route(ROWS)):
        for count in range(3, 7):
            model.generate(
                ids, max_new_tokens=count, do_sample=False, pad_token_id=0,
                cache_implementation="static", disable_compile=True,
            )  # fmt: skip
            if count == 3:
                assert any(trials)
                trials.clear()
    assert trials
    assert not any(trials)
