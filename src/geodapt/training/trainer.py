"""transformers' Trainer as geodapt trains with it: watched, and strict about what is not finite."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState

from geodapt.errors import Diverged
from geodapt.files import read_tensors, write_tensors
from geodapt.processes import is_main_process, wait_for_everyone
from geodapt.progress import Bar, bar
from geodapt.training.checkpoints import STATE, seal
from geodapt.training.settings import TrainingSettings

WEIGHTS = "trainable.safetensors"
Log = Callable[..., None]
"""Called as ``log(step, **values)``."""


class StrictTrainer(Trainer):
    """Trainer whose checkpoints hold the weights that train, and that stops at a NaN."""

    label = "training"
    groups: Sequence[dict[str, Any]] = ()
    settings: TrainingSettings = TrainingSettings()

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = [
                {**group, "params": [p for p in group["params"] if p.requires_grad]}
                for group in self.groups
            ]
            shared: dict[str, Any] = {
                "lr": self.args.learning_rate,
                "weight_decay": self.args.weight_decay,
                "fused": True,  # one pass over the weights, on the CPU a seventh of the time
            }
            groups = [group for group in trained if group["params"]]
            if self.settings.optimizer == "sgd":
                self.optimizer = torch.optim.SGD(groups, momentum=self.settings.momentum, **shared)
            else:
                self.optimizer = torch.optim.AdamW(groups, **shared)
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        epochs = self.settings.epochs
        if self.settings.schedule != "cosine-by-epoch" or epochs is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            steps = max(1, num_training_steps // epochs)
            rate = epoch_rates(self.settings)
            self.lr_scheduler = LambdaLR(
                optimizer or self.create_optimizer(),
                lambda step: rate[min(step // steps, epochs - 1)] / self.settings.learning_rate,
            )
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and not torch.isfinite(loss):
            raise Diverged(
                f"{self.label}: the loss became {loss.item()} at step "
                f"{self.state.global_step + 1} of {self.state.max_steps}; lower the learning rate "
                f"(now {self.args.learning_rate:g}) or max_grad_norm (now "
                f"{self.args.max_grad_norm:g}), and look for NaN in the data"
            )
        return (loss, outputs) if return_outputs else loss

    def finish_from(self, checkpoint: Path) -> bool:
        """Whether a checkpoint is a training's last; then its state and weights are taken over.

        Trainer itself would take one more step.
        """
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        if not state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            return False
        self.state = state
        if self.args.load_best_model_at_end and state.best_model_checkpoint:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))
        return True

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        wait_for_everyone()  # each process writes its own, and perhaps a shard of the weights
        if is_main_process():
            seal(Path(output_dir))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if isinstance(self.model, PreTrainedModel):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir or ".")
            write_tensors(folder / WEIGHTS, dict(self._trainable()))
        return None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if isinstance(self.model, PreTrainedModel):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        return self._load_trainable(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if isinstance(self.model, PreTrainedModel):
            return super()._load_best_model()
        return self._load_trainable(Path(self.state.best_model_checkpoint or ""))

    def _trainable(self):
        """What checkpoints hold: what trains; of a model with ``resumes_buffers`` buffers too."""
        model = self.accelerator.unwrap_model(self.model)
        state = dict(model.named_parameters())
        kept = [name for name, value in state.items() if value.requires_grad]
        if getattr(model, "resumes_buffers", False):
            persistent = model.state_dict(keep_vars=True)
            kept += [name for name in persistent if name not in state]
            state = {**persistent, **state}
        return ((name, state[name]) for name in kept)

    def _load_trainable(self, folder: Path) -> None:
        saved = read_tensors(folder / WEIGHTS)
        with torch.no_grad():
            for name, value in self._trainable():
                value.copy_(saved[name])


def epoch_rates(settings: TrainingSettings) -> list[float]:
    """The step size of each epoch under ``cosine-by-epoch``.

    Epoch 0 has ``first_rate``, epoch e >= 1 of E has ``learning_rate / 2 (1 + cos(pi (e - 1)/E))``:
    what CoOp and its successors train with, whose cosine does not end at zero since the first
    epoch does not count.
    """
    epochs = settings.epochs or 1
    cosine = [
        settings.learning_rate / 2 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
        for epoch in range(1, epochs)
    ]
    return [settings.first_rate, *cosine]


class AfterEpochs(TrainerCallback):
    """Calls a function after the last step of each epoch, before that step's checkpoint.

    transformers' own event comes after the checkpoint, which would be resumed without it.
    """

    def __init__(self, function: Callable[[int], None], epochs: int) -> None:
        self.function, self.epochs = function, epochs

    def on_step_end(self, args, state, control, **kwargs):
        steps = state.max_steps // self.epochs
        if state.global_step % steps == 0:
            self.function(state.global_step // steps - 1)


class TellEpoch(TrainerCallback):
    """Tells the rows which epoch begins, or is gone on with: ``rows.set_epoch(epoch)``."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.rows.set_epoch(int((state.epoch or 0) + 1e-6))  # it is a sum of shares


class Watch(TrainerCallback):
    """Shows the progress bar and passes log lines on."""

    def __init__(self, label: str, log: Log | None) -> None:
        self.label, self.log = label, log
        self._context: AbstractContextManager[Bar] | None = None
        self._bar: Bar | None = None

    def _open(self, total: int | None, state) -> None:
        if self._context is None and state.is_world_process_zero:
            self._context = bar(self.label, total)
            self._bar = self._context.__enter__()

    def _close(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = self._bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._open(state.max_steps, state)
        if self._bar:
            self._bar.advance(state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        # Losses are averaged since the last line: a line with each checkpoint makes those that
        # follow the same whether the training was resumed there or not.
        control.should_log |= control.should_save
        if self._bar:
            self._bar.advance()

    def on_train_end(self, args, state, control, **kwargs):
        self._close()

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if state.max_steps == 0 or self._context is None:
            self._open(None if eval_dataloader is None else len(eval_dataloader), state)
            if self._bar:
                self._bar.advance()

    def on_predict(self, args, state, control, metrics=None, **kwargs):
        self._close()

    def on_log(self, args, state, control, logs=None, **kwargs):
        logs = dict(logs or {})
        if self._bar and "loss" in logs:
            self._bar.note(f"loss {float(logs['loss']):.3f}")
        if self.log is None or not state.is_world_process_zero or "train_runtime" in logs:
            return
        values = {
            name.replace("eval_", "validation_"): float(value)
            for name, value in logs.items()
            if not name.endswith(("_runtime", "_per_second")) and name != "epoch"
        }
        if values:
            self.log(state.global_step, **values)
