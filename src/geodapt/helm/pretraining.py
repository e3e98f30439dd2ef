"""Training a language model from scratch on packed rows, and its perplexity afterwards."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from geodapt.data.corpus.packing import collate
from geodapt.helm.config import HelmConfig
from geodapt.helm.experts import HelmMoE, HelmRouter, load
from geodapt.models import transformer_blocks
from geodapt.models.perplexity import LanguageMetrics, perplexity
from geodapt.processes import process_number, processes, several_processes
from geodapt.progress import track
from geodapt.training import TrainingSettings, fit, parameter_groups

BETAS = (0.9, 0.95)  # of AdamW, as in GPT-3, Llama and DeepSeek-V3
BIAS_SPEED = 0.001  # of the twin's balance, HelmConfig's default

Log = Callable[..., None]


def pretrain(
    model: PreTrainedModel,
    train: Dataset,
    validation: Dataset,
    settings: TrainingSettings,
    *,
    log: Log,
    **options: Any,
) -> PreTrainedModel:
    """Train on rows of :func:`geodapt.data.corpus.packing.packed`; the trained model.

    It is the one given, or a copy with all weights in every process where these sharded them
    (FSDP2). ``log`` gets, beside the loss, the perplexity, tokens a second, the mean norm of the
    last block's states, and the curvatures that are learned. ``options`` go to
    :func:`geodapt.training.fit`.
    """
    groups = parameter_groups(model, settings.weight_decay)
    with _TrainingLog(model, settings, len(train[0]["input_ids"]), log) as told, balanced(model):
        fit(
            model,
            train,
            settings,
            collate=collate,
            validation=validation,
            groups=[{**group, "betas": BETAS} for group in groups],
            log=told,
            **options,
        )
    return _whole(model)


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    copied = AutoModelForCausalLM.from_config(model.config).to(model.device)
    copied.load_state_dict(weights)
    return copied


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    rows: Dataset,
    batch_size: int,
    label: str,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """``loss`` and ``perplexity`` on packed rows, each process reading its share of them."""
    metric = LanguageMetrics().to(model.device)
    share = range(process_number(), len(rows), processes())
    starts = range(0, len(share), batch_size)
    model.eval()
    with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
        for start in track(starts, label):
            batch = collate([rows[i] for i in share[start : start + batch_size]])
            labels = batch.pop("labels").to(model.device)
            batch = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            metric.update(model(**batch).logits, labels)
    return metric.compute()


# --- the log -----------------------------------------------------------------------------------


class _TrainingLog:
    """Adds to a training's log lines what a language model's training is judged by."""

    def __init__(
        self, model: PreTrainedModel, settings: TrainingSettings, length: int, log: Log
    ) -> None:
        self.model, self.log = model, log
        rows = settings.batch_size * settings.gradient_accumulation * processes()
        self.tokens = rows * length  # a step
        self.step: int | None = None  # of the last line; none: how long a step takes is unknown
        self.since = 0.0
        self.states: Tensor | None = None
        self.curvatures: dict[str, Tensor] = {}

    def __enter__(self) -> "_TrainingLog":
        self._hooks = [transformer_blocks(self.model)[-1].register_forward_hook(self._see_states)]
        config = self.model.config
        if isinstance(config, HelmConfig) and config.learn_curvature:
            scalar = self.model.model.curvature
            self._hooks.append(scalar.register_forward_hook(self._see_curvature))
        if isinstance(config, HelmConfig) and config.learn_expert_curvatures:
            for index, block in enumerate(transformer_blocks(self.model)):
                if isinstance(block.mlp, HelmMoE):
                    see = partial(self._see_experts, f"layer_{index}_expert")
                    self._hooks.append(block.mlp.register_forward_hook(see))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see_states(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.states = (output[0] if isinstance(output, tuple) else output).detach()

    # Curvatures are seen where they are used: elsewhere a process may hold but its shard of them.
    def _see_curvature(self, scalar: nn.Module, inputs: Any, output: Tensor) -> None:
        self.curvatures["curvature"] = output.detach()

    def _see_experts(self, names: str, experts: HelmMoE, *_: Any) -> None:
        for expert, c_i in enumerate(experts.curvatures().detach()):
            self.curvatures[f"{names}_{expert}_curvature"] = c_i

    def __call__(self, step: int, **values: float) -> None:
        if "loss" in values:
            values |= self._figures(step, values["loss"])
        elif "validation_loss" in values:
            values["validation_perplexity"] = perplexity(values["validation_loss"])
        self.log(step, **values)
        self.step, self.since = step, time.perf_counter()

    def _figures(self, step: int, loss: float) -> dict[str, float]:
        found = {"perplexity": perplexity(loss)}
        if self.step is not None and step > self.step:
            seconds = time.perf_counter() - self.since
            found["tokens_per_second"] = (step - self.step) * self.tokens / seconds
        if self.states is not None:
            found["state_norm"] = self.states.float().norm(dim=-1).mean().item()
        return found | {name: c.item() for name, c in self.curvatures.items()}


# --- the balance of experts --------------------------------------------------------------------


@contextmanager
def balanced(model: PreTrainedModel) -> Iterator[None]:
    """Experts chosen evenly while the block lasts, over all processes.

    A HELM balances itself by the load that its process saw; here the processes' loads are added
    up. transformers' DeepSeek-V3 has the bias for the balance but leaves it as it is; here it moves
    by the same rule, after each forward pass (DeepSeek-V3, section 2.1.2).
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
            loads = _add_up(load(experts, gate.num_experts))
            gate.e_score_correction_bias += torch.sign(loads.mean() - loads) * BIAS_SPEED
    chosen.clear()


def _add_up(loads: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if several_processes():
        torch.distributed.all_reduce(loads)
    return loads
