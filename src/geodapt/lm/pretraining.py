"""Training a language model from scratch on packed rows, and its perplexity afterwards."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from geodapt.data.corpus.packing import collate
from geodapt.models import transformer_blocks
from geodapt.models.perplexity import LanguageMetrics, perplexity
from geodapt.processes import process_number, processes
from geodapt.progress import track
from geodapt.training import TrainingSettings, fit, parameter_groups

BETAS = (0.9, 0.95)  # of AdamW, as in GPT-3, Llama and DeepSeek-V3

Log = Callable[..., None]


def pretrain(
    model: PreTrainedModel,
    train: Dataset,
    validation: Dataset,
    settings: TrainingSettings,
    *,
    log: Log,
    watched: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Train on rows of :func:`geodapt.data.corpus.packing.packed`; the trained model.

    It is the one given, or a copy with all weights in every process where these sharded them
    (FSDP2). ``log`` gets, beside the loss, the perplexity, tokens per second, the mean norm of the
    last block's states, and the scalars that ``watched`` holds at that step. ``options`` go to
    :func:`geodapt.training.fit`: a folder for checkpoints, from which a stopped training resumes
    with the same losses, among them.
    """
    groups = parameter_groups(model, settings.weight_decay)
    length = len(train[0]["input_ids"])
    with _TrainingLog(model, settings, length, {} if watched is None else watched, log) as extended:
        fit(
            model,
            train,
            settings,
            collate=collate,
            validation=validation,
            groups=[{**group, "betas": BETAS} for group in groups],
            log=extended,
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
def held_out_loss(
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
    """Adds perplexity, speed, the norm of states and the watched scalars to the log lines."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainingSettings,
        length: int,
        watched: Mapping[str, Tensor],
        log: Log,
    ) -> None:
        self.model, self.watched, self.log = model, watched, log
        rows = settings.batch_size * settings.gradient_accumulation * processes()
        self.tokens = rows * length  # a step
        self.step: int | None = None  # of the last line; none: how long a step takes is unknown
        self.since = 0.0
        self.states: Tensor | None = None

    def __enter__(self) -> "_TrainingLog":
        self._hook = transformer_blocks(self.model)[-1].register_forward_hook(self._see_states)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _see_states(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.states = (output[0] if isinstance(output, tuple) else output).detach()

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
        return found | {name: value.item() for name, value in self.watched.items()}
