"""Adapters train through the bank as they train in PEFT."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import Trainer

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route
from tests.adapters.made_by_peft import inputs, output, randomise, seeded
from tests.tiny_models import training_arguments

TARGETS = ["q_proj", "v_proj", "down_proj"]


def _trainer(model, folder, **options):
    ids = torch.randint(3, 100, (16, 6), generator=torch.Generator().manual_seed(1)).tolist()
    arguments = training_arguments(folder, per_device_train_batch_size=4, **options)
    data = Dataset.from_dict({"input_ids": ids, "labels": ids})
    return Trainer(model=model, args=arguments, train_dataset=data)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer_gives_the_factors_that_peft_gives(tmp_path, checkpointing):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM")
    reference = get_peft_model(seeded("llama"), config)
    randomise(reference)  # with B = 0 Adam would divide rounding by rounding
    reference.save_pretrained(tmp_path / "start")
    wanted = _trainer(reference, tmp_path).train().training_loss

    bank = AdapterBank(seeded("llama"))
    bank.load("new", tmp_path / "start")
    bank.train_only("new")
    bank.set(Mix({"new": 1.0}))
    run = _trainer(bank, tmp_path, gradient_checkpointing=checkpointing).train()
    assert run.training_loss == pytest.approx(wanted, rel=1e-5)

    state = {k: v for k, v in reference.state_dict().items() if "lora_" in k}
    trained = bank["new"].factors
    assert bank["new"].sha256 != Adapter.from_pretrained(tmp_path / "start").sha256
    assert len(state) == 2 * len(trained)
    for path, factors in trained.items():
        prefix = f"base_model.model.{path}"
        torch.testing.assert_close(
            factors.A, state[f"{prefix}.lora_A.default.weight"], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            factors.B, state[f"{prefix}.lora_B.default.weight"], atol=1e-5, rtol=1e-4
        )


def test_only_the_named_adapters_get_gradients():
    bank = _filled_bank()
    bank.train_only("books")
    with bank.use(Route(["toys", "books", {"toys": 0.5, "books": 0.5}])):
        output_of(bank).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bank.parameters_of("books"))
    assert all(p.grad is None for p in bank.parameters_of("toys"))
    assert all(p.grad is None and not p.requires_grad for p in bank.model.parameters())


def test_freezing_keeps_what_was_learned():
    bank = _filled_bank()
    bank.train_only("toys")
    with torch.no_grad():
        for parameter in bank.parameters_of("toys"):
            parameter.mul_(1.1)
    with bank.use(Mix({"toys": 1.0})):
        wanted = output(bank.model, inputs("llama", 2))
        bank.train_only()
        torch.testing.assert_close(output(bank.model, inputs("llama", 2)), wanted)
    assert not any(p.requires_grad for p in bank.parameters())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_under_the_gate_of_the_forward(reentrant):
    gradients = []
    for checkpointing in (False, True):
        bank = _filled_bank()
        bank.train_only("toys", "books")
        bank.train()
        if checkpointing:
            bank.gradient_checkpointing_enable({"use_reentrant": reentrant})
            bank.model.enable_input_require_grads()
        with bank.use(Route(["toys", "books", None])):
            loss = output_of(bank)
        loss.backward()  # outside of the gate
        gradients.append([p.grad for name in ("toys", "books") for p in bank.parameters_of(name)])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.slow
def test_a_bank_after_another_binds_checkpoints_once():
    model = seeded("llama")
    model.gradient_checkpointing_enable()
    model.train()
    gradients = []
    for _ in range(2):  # the second takes over
        torch.manual_seed(0)
        bank = AdapterBank(model)
        bank.create("new", rank=2, targets=TARGETS)
        bank.train_only("new")
        with bank.use("new"):
            losses = [model(**inputs("llama", 2)).logits.square().mean() for _ in range(2)]
        sum(losses).backward()
        gradients.append([p.grad for p in bank.parameters_of("new")])
    for again, once in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(again, once)


def test_bind_carries_the_gate_into_a_checkpoint():
    bank = _filled_bank()
    layer = bank.model.model.layers[0].mlp.down_proj
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)
    with bank.use(Route(["toys", "books"])):
        (wanted,) = torch.autograd.grad(layer(x).square().sum(), x)
        loss = checkpoint(bank.bind(layer), x, use_reentrant=False).square().sum()
    (found,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(found, wanted)


def test_dropout_acts_in_training_only_and_only_on_the_trained_adapter():
    bank = AdapterBank(seeded("llama"))
    bank.create("new", rank=4, targets=TARGETS, dropout=0.5)
    bank.train_only("new")
    with torch.no_grad():
        for parameter in bank.parameters_of("new"):
            parameter.normal_()
    batch = inputs("llama", 2)
    with bank.use(Mix({"new": 1.0})):
        bank.eval()
        torch.testing.assert_close(output(bank.model, batch), output(bank.model, batch))
        bank.train()
        assert not torch.allclose(output(bank.model, batch), output(bank.model, batch))
        bank.train_only()
        torch.testing.assert_close(output(bank.model, batch), output(bank.model, batch))


def test_the_adapters_dropout_acts_on_a_base_without_its_own():
    base = seeded("bert").train()  # with dropout of 0.1
    bank = AdapterBank(base)
    bank.create("new", rank=4, targets=["query", "value"], dropout=0.5)
    bank.train_only("new")
    with torch.no_grad():
        for parameter in bank.parameters_of("new"):
            parameter.normal_()
    batch = inputs("bert", 2)

    def repeats(gate) -> bool:
        with bank.use(gate):
            return torch.equal(output(base, batch), output(base, batch))

    assert not repeats(Off())
    base.eval()
    assert repeats(Mix({"new": 1.0}))
    bank.train_adapters()
    assert repeats(Off())
    assert not repeats(Mix({"new": 1.0}))
    bank.train_adapters(False)
    assert repeats(Mix({"new": 1.0}))


def test_a_new_adapter_changes_nothing():
    bank = AdapterBank(seeded("llama"))
    batch = inputs("llama", 2)
    wanted = output(bank.model, batch)
    bank.create("new", rank=4, alpha=8, targets="all-linear", rslora=True)
    assert "lm_head" not in {path for path in bank["new"].factors}
    with bank.use(Mix({"new": 1.0})):
        torch.testing.assert_close(output(bank.model, batch), wanted)


def _filled_bank() -> AdapterBank:
    bank = AdapterBank(seeded("llama"))
    for name, rank in (("toys", 4), ("books", 2)):
        bank.create(name, rank=rank, targets=TARGETS)
        for i, parameter in enumerate(bank.parameters_of(name)):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
        bank.train_only(name)  # takes the masters over
    bank.train_only()
    return bank


def output_of(bank):
    return bank.model(**inputs("llama", 3)).logits.square().mean()
