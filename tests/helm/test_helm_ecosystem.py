"""HELM among transformers' tools: Auto classes, Trainer, PEFT, checkpointing, compile, autocast."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Trainer,
)

from geodapt.helm import HelmForCausalLM, HelmForSequenceClassification
from tests.helm import small
from tests.tiny_models import training_arguments

NAMES = ["mha", "relative", "mla-query-latent", "learned-curvature", "mixed"]


@pytest.mark.parametrize("kind", NAMES)
def test_saved_and_loaded(kind, tmp_path):
    helm, ids = small.model(kind), small.tokens()
    helm.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, HelmForCausalLM)
    torch.testing.assert_close(again(ids).logits, helm(ids).logits, rtol=0, atol=0)
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, helm.get_buffer(name)), name
    body = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(body(ids).last_hidden_state, helm.model(ids).last_hidden_state)


def test_sequence_classification(tmp_path):
    small.model().save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert isinstance(model, HelmForSequenceClassification)
    out = model(small.tokens(), labels=torch.tensor([0, 2]))
    assert out.logits.shape == (2, 3)
    out.loss.backward()


@pytest.mark.parametrize("kind", ["mha", "mla", "mixed", "learned-curvature"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_equal_gradients(kind, reentrant):
    plain = small.model(kind).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": reentrant})
    ids = small.tokens()
    for helm in (plain, checkpointed):
        for _ in range(2):  # the second step moves the experts' biases first
            helm(ids, labels=ids, use_cache=False).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("kind", ["mha", "mla", "mixed"])
def test_lora_trains_on_it(kind):
    helm, ids = small.model(kind), small.tokens()
    before = helm(ids).logits.detach()
    lora = get_peft_model(helm, LoraConfig(r=2, target_modules="all-linear"))
    optimizer = torch.optim.Adam([p for p in lora.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(8):
        loss = lora(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    trained = lora(input_ids=ids).logits
    with lora.disable_adapter():
        torch.testing.assert_close(lora(input_ids=ids).logits, before)
    torch.testing.assert_close(lora.merge_and_unload()(ids).logits, trained, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mha", "mixed"])
def test_trainer(kind, tmp_path):
    helm, ids = small.model(kind), small.tokens(rows=8)
    data = Dataset.from_list([{"input_ids": row, "labels": row} for row in ids.tolist()])
    args = training_arguments(tmp_path, 6, per_device_train_batch_size=4, logging_steps=1)
    trainer = Trainer(helm, args, train_dataset=data)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learned-curvature", "mixed"])
def test_compiles_without_graph_breaks(kind):
    helm = small.model(kind, num_hidden_layers=1, first_k_dense_replace=0).train()
    eager, ids = copy.deepcopy(helm), small.tokens()
    torch._dynamo.reset()
    compiled = torch.compile(helm, fullgraph=True, backend="aot_eager")
    for model in (eager, compiled):
        for _ in range(2):
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for (name, a), b in zip(eager.named_parameters(), helm.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["mha", "mixed"])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bfloat16(kind, way):
    helm, ids = small.model(kind), small.tokens()
    expected = helm(ids, labels=ids).loss
    if way == "weights":
        helm = helm.bfloat16()
        loss = helm(ids, labels=ids).loss
    else:
        with torch.autocast("cpu", torch.bfloat16):
            loss = helm(ids, labels=ids).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in helm.parameters() if p.grad is not None)


def test_weights_and_states_on_request():
    helm, ids = small.model("mla"), small.tokens()
    helm.set_attn_implementation("eager")
    out = helm(ids, output_attentions=True, output_hidden_states=True)
    assert len(out.attentions) == 2
    assert len(out.hidden_states) == 3
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 4, 9))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learned-curvature", "mixed"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_losses_stay_finite_at_a_high_learning_rate(kind, bfloat16):
    helm = small.model(kind).train()
    optimizer = torch.optim.AdamW(helm.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        ids = torch.randint(1, small.VOCABULARY, (2, 9), generator=torch.manual_seed(step % 4))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = helm(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert all(0 < c < math.inf for c in helm.model.curvatures().values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mice", "released-mice"])
def test_exported_with_any_number_of_rows_and_tokens(kind):
    """torch.export with both sizes free; the program gives the model's logits at other sizes."""

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.helm = small.model(kind)

        def forward(self, ids):
            return self.helm(ids, use_cache=False).logits

    model, free = Logits(), {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=64)}
    program = torch.export.export(
        model, (small.tokens(),), dynamic_shapes={"ids": free}, strict=False
    ).module()
    for rows, length in ((1, 17), (3, 5)):
        ids = small.tokens(rows, length)
        assert torch.equal(program(ids), model(ids))
