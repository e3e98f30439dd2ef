"""Gates against DeepSeek-V3's, balance, and that only chosen experts work."""

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from geodapt.helm import experts
from geodapt.helm.balance import sequence_balance_loss
from geodapt.helm.experts import HelmMoE
from geodapt.helm.lorentz_layers import Curvature, time_component
from geodapt.helm.router import HelmRouter
from tests.helm import small

GROUPS = {"n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2}
ONE = Curvature.of(1.0)


@pytest.mark.parametrize("norm", [True, False])
def test_gate_is_that_of_deepseek(norm):
    changes = {**GROUPS, "norm_topk_prob": norm, "routed_scaling_factor": 2.5}
    ours = HelmRouter(small.config(**changes)).eval()
    theirs = DeepseekV3TopkRouter(DeepseekV3Config(hidden_size=16, **changes))
    weight, bias = torch.randn(8, 16), 0.1 * torch.randn(8)
    for gate in (ours, theirs):
        gate.weight.data, gate.e_score_correction_bias = weight, bias
    x = torch.randn(40, 16)
    logits, weights, chosen = ours(x)
    their_logits, their_weights, their_chosen = theirs(x)
    torch.testing.assert_close(logits, their_logits)
    spread, their_spread = (
        torch.zeros(40, 8).scatter(-1, i, w)
        for i, w in ((chosen, weights), (their_chosen, their_weights))
    )
    torch.testing.assert_close(spread, their_spread)


def test_only_chosen_experts_work(monkeypatch):
    layer = HelmMoE(small.config(**small.MICE)).eval()
    rows = []
    product = experts.grouped_linear
    monkeypatch.setattr(
        experts, "grouped_linear", lambda x, *a: rows.append(len(x)) or product(x, *a)
    )
    x = torch.randn(2, 7, 16)
    layer(x, time_component(x, ONE), ONE)
    assert rows == [2 * 7 * 2] * 2


def test_an_expert_without_tokens_gets_no_gradient():
    layer = HelmMoE(small.config(**small.MICE)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer.gate.e_score_correction_bias[:] = torch.tensor([9.0, 0.0, 9.0, 0.0])
    x = torch.randn(1, 7, 16).double()
    layer(x, time_component(x, ONE), ONE)[0].square().sum().backward()
    used = layer.experts.gate_up_proj.grad.abs().amax((1, 2)) > 0
    assert used.tolist() == [True, False, True, False]
    assert (layer.curvature_offset.grad != 0).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("kind", ["mice", "mixed", "mice-groups"])
def test_gradients(kind):
    """Autograd against finite differences, in the input, the experts and their curvatures."""
    layer = small.model(kind, torch.float64).model.layers[1].mlp
    x = torch.randn(1, 3, 16, dtype=torch.float64, requires_grad=True)
    names = ["curvature_offset", "gate.weight", "experts.down_time", "experts.gate_up_time"]
    space = Curvature.of(0.7)
    inputs = [layer.get_parameter(name).detach().requires_grad_() for name in names]

    def run(x, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x, time_component(x, space), space))[0]

    assert torch.autograd.gradcheck(run, (x, *inputs), eps=1e-6, atol=1e-5, fast_mode=True)


def test_bias_evens_the_load():
    config = small.config(**{**small.MICE, "bias_update_speed": 0.01})
    gate = HelmRouter(config).train()
    torch.nn.init.normal_(gate.weight)
    x = torch.randn(400, 16) + 1
    shares = []
    for _ in range(200):
        gate(x)
        shares.append(gate.load / gate.load.sum())
        gate.balance()
    assert shares[0].max() > 0.35
    assert shares[-1].max() < 0.28
    assert shares[-1].min() > 0.22


def test_balance_moves_once_a_step_and_not_in_evaluation():
    helm, ids = small.model("mice"), small.tokens()
    bias = helm.model.layers[1].mlp.gate.e_score_correction_bias
    before = bias.clone()
    helm.train()
    helm(ids)
    assert torch.equal(bias, before)  # no load is known yet
    helm(ids)
    moved = (bias - before).abs()
    assert moved.max() == pytest.approx(helm.config.bias_update_speed, rel=1e-3)
    helm.eval()
    after = bias.clone()
    helm(ids)
    helm(ids)
    assert torch.equal(bias, after)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_padding_is_no_load(checkpointing):
    """A padded batch moves the balance as its rows do one by one, without their padding."""
    rows = [small.tokens(rows=1, length=n) for n in (9, 5)]
    loads = []
    for row in rows:
        helm = small.model("mice").train()
        helm(row)
        loads.append(helm.model.layers[1].mlp.gate.load.clone())
    padded, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, -row.shape[1] :], mask[i, -row.shape[1] :] = row[0], 1
    helm = small.model("mice").train()
    if checkpointing:
        helm.gradient_checkpointing_enable()
    helm(padded, attention_mask=mask)
    load = helm.model.layers[1].mlp.gate.load
    assert load.sum() == 2 * (9 + 5)
    torch.testing.assert_close(load, sum(loads))


def test_sequence_loss_by_loops():
    config = small.config(**small.MICE)
    logits = torch.randn(2, 3 * 5, 4)  # two layers, three rows of five tokens
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[1, :2] = 0
    total = 0.0
    for layer in logits:
        for row in range(3):
            kept = [t for t in range(5) if mask[row, t]]
            scores = [layer[row * 5 + t].sigmoid() for t in kept]
            for i in range(4):
                f = sum(int(i in s.topk(2).indices) for s in scores) * 4 / (2 * len(kept))
                p = sum(s[i] / s.sum() for s in scores) / len(kept)
                total += float(f * p) / 6
    got = sequence_balance_loss(tuple(logits), config, 3, mask)
    assert got.item() == pytest.approx(total, rel=1e-5)


def test_curvatures_for_logs():
    found = small.model("mice").model.curvatures()
    assert len(found) == 1 + 5
    assert all(c > 0 for c in found.values())
    fixed = small.model("mice-one-curvature").model.layers[1].mlp
    assert not fixed.curvature_offset.requires_grad
