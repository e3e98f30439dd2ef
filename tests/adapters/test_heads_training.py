"""Heads that are trained and their float types; a head leaves with its adapter."""

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer

from geodapt.adapters import AdapterBank, Mix
from geodapt.errors import InputError
from tests.adapters.heads import KINDS, batch_for, close, from_peft, out
from tests.tiny_models import build, training_arguments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama classifier", "vit classifier"])
def test_trainer_trains_a_classifiers_head_as_peft_does(name, tmp_path):
    kind, config, _ = KINDS[name]
    batch = batch_for(kind, 16)
    data = Dataset.from_dict(
        {key: value.tolist() for key, value in batch.items()} | {"labels": [0, 1, 2, 0] * 4}
    ).with_format("torch")

    def train(model):
        arguments = training_arguments(tmp_path / "out", per_device_train_batch_size=8)
        return Trainer(model=model, args=arguments, train_dataset=data).train().training_loss

    reference = from_peft(name, tmp_path / "start")
    for parameter_name, parameter in reference.named_parameters():
        parameter.requires_grad_("lora_" in parameter_name or "modules_to_save" in parameter_name)
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "start")
    bank.load("frozen", tmp_path / "start")
    bank.train_only("a")
    bank.set(Mix({"a": 1.0}))
    assert train(bank) == pytest.approx(train(reference), rel=1e-5)
    bank.model.eval()
    close(out(bank, batch), out(reference.eval(), batch))
    bank.train_only()
    close(out(bank, batch), out(reference, batch))
    bank.save("a", tmp_path / "trained")
    close(
        out(PeftModel.from_pretrained(build(kind, config), tmp_path / "trained"), batch),
        out(reference, batch),
    )
    with bank.use(Mix({"frozen": 1.0})):
        assert (out(bank, batch) - out(reference, batch)).abs().max() > 1e-3


def test_a_new_adapter_on_a_classifier_trains_its_head(tmp_path):
    for name, heads, task in (
        ("roberta classifier of two layers", {"classifier"}, "SEQ_CLS"),
        ("distilbert answers, and a norm", {"qa_outputs"}, "QUESTION_ANS"),
        ("vit classifier", {"classifier"}, None),
        ("mistral's embedding and norms", set(), "CAUSAL_LM"),
    ):
        kind, config, _ = KINDS[name]
        bank = AdapterBank(build(kind, config))
        bank.create("new", rank=2, targets="all-linear")
        batch = batch_for(kind)
        with bank.use(Mix({"new": 1.0})):
            close(out(bank, batch), out(build(kind, config), batch))
        assert set(bank["new"].heads) == heads
        assert bank["new"].config.task_type == task
        assert not any(path.startswith(tuple(heads or "-")) for path in bank["new"].factors)
        bank.train_only("new")
        for seed, parameter in enumerate(bank.parameters_of("new")):
            torch.manual_seed(seed)
            parameter.data.normal_(std=0.3)
        bank.set(Mix({"new": 1.0}))
        wanted = out(bank, batch)
        bank.save("new", tmp_path / "new")
        close(out(PeftModel.from_pretrained(build(kind, config), tmp_path / "new"), batch), wanted)
    bank.create("norms", rank=2, targets=["q_proj"], modules_to_save=["norm"])
    assert len(bank["norms"].heads) == 5
    with pytest.raises(InputError, match=r"modules_to_save \['score'\] match no module"):
        bank.create("wrong", modules_to_save=["score"])
    with pytest.raises(InputError, match="match only modules that train in full"):
        bank.create("wrong", targets=["lm_head"], modules_to_save=["lm_head"])


def test_masters_of_heads_are_float32_and_the_rest_takes_the_bases_type(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    bank = AdapterBank(build(kind, config).to(torch.bfloat16))
    bank.load("a", tmp_path / "a")
    bank.train_only("a")
    assert {p.dtype for p in bank.parameters_of("a")} == {torch.float32}
    reference = PeftModel.from_pretrained(
        build(kind, config).to(torch.bfloat16), tmp_path / "a", autocast_adapter_dtype=False
    )
    with bank.use(Mix({"a": 1.0})):
        found = bank(**batch_for(kind)).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, out(reference, batch_for(kind)), atol=0.1, rtol=0.1)
    found.sum().backward()
    assert all(p.grad is not None for p in bank.parameters_of("a"))
    bank.to(torch.float32)
    bank.train_only()
    with bank.use(Mix({"a": 1.0})):
        assert out(bank, batch_for(kind)).dtype == torch.float32


def test_removing_the_last_adapter_with_a_head_lets_go_of_the_module(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    bank = AdapterBank(build(kind, config), capacity=1)
    bank.load("a", tmp_path / "a")
    bank.load("b", tmp_path / "a")
    for name in "abab":  # one makes room for the other
        with bank.use(Mix({name: 1.0})):
            out(bank, batch_for(kind))
    for name in "ab":
        bank.remove(name)
    assert not any("forward" in module.__dict__ for module in bank.model.modules())
    close(out(bank, batch_for(kind)), out(build(kind, config), batch_for(kind)))
