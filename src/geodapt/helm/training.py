"""What training a HELM needs besides the loop: expert balance over processes, and curvatures to
log."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from geodapt.helm.config import HelmConfig
from geodapt.helm.experts import HelmMoE
from geodapt.helm.router import HelmRouter, expert_load
from geodapt.models import transformer_blocks
from geodapt.processes import several_processes

BIAS_SPEED = 0.001  # of DeepSeek-V3's balance, HelmConfig's default


@contextmanager
def seen_curvatures(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """The learned curvatures by name, as of the last forward pass; empty for other models.

    They are recorded where they are used: elsewhere a process may hold only its shard of them.
    """
    config, hooks, found = model.config, [], {}

    def see(scalar: nn.Module, inputs: Any, output: Tensor) -> None:
        found["curvature"] = output.detach()

    def see_experts(names: str, experts: HelmMoE, *_: Any) -> None:
        for expert, c_i in enumerate(experts.curvatures().detach()):
            found[f"{names}_{expert}_curvature"] = c_i

    if isinstance(config, HelmConfig) and config.learn_curvature:
        hooks.append(model.model.curvature.register_forward_hook(see))
    if isinstance(config, HelmConfig) and config.learn_expert_curvatures:
        for index, block in enumerate(transformer_blocks(model)):
            if isinstance(block.mlp, HelmMoE):
                hook = partial(see_experts, f"layer_{index}_expert")
                hooks.append(block.mlp.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def balanced_experts(model: PreTrainedModel) -> Iterator[None]:
    """Keep the experts evenly loaded over all processes within the block.

    A HELM balances itself by the load that its process saw; here the processes' loads are summed.
    transformers' DeepSeek-V3 has the bias for the balance but leaves it as it is; here it moves by
    the same rule, after each forward pass (DeepSeek-V3, section 2.1.2).
    """
    gates = [gate for gate in model.modules() if isinstance(gate, HelmRouter)]
    twins = [gate for gate in model.modules() if isinstance(gate, DeepseekV3TopkRouter)]
    hooks = []
    if gates and several_processes():
        hooks.append(model.register_forward_pre_hook(lambda *_: _share(model, gates)))
    chosen: dict[nn.Module, Tensor] = {}
    for gate in twins:
        hooks.append(gate.register_forward_hook(lambda g, _, out: chosen.__setitem__(g, out[2])))
    if twins:
        hooks.append(model.register_forward_hook(lambda *_: _balance(model, chosen)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _share(model: nn.Module, gates: list[HelmRouter]) -> None:
    if model.training:
        for gate in gates:
            _add_up(gate.load)


@torch.no_grad()
def _balance(model: nn.Module, chosen: dict[Any, Tensor]) -> None:
    if model.training:
        for gate, experts in chosen.items():
            loads = _add_up(expert_load(experts, gate.num_experts))
            gate.e_score_correction_bias += torch.sign(loads.mean() - loads) * BIAS_SPEED
    chosen.clear()


def _add_up(loads: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if several_processes():
        torch.distributed.all_reduce(loads)
    return loads
