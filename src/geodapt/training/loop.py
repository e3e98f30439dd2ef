"""The one training loop: what a training needs besides ``transformers.Trainer``."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from geodapt.errors import InputError, reason_of
from geodapt.processes import is_main_process
from geodapt.training.checkpoints import last_checkpoint
from geodapt.training.settings import TrainingSettings
from geodapt.training.trainer import AfterEpochs, Log, StrictTrainer, TellEpoch, Watch


@dataclass(frozen=True)
class Fit:
    """The result of a training."""

    steps: int
    seconds: float
    best: float | None


class Rows(Protocol):
    """A map-style data set: anything with a length and rows by number.

    One with ``set_epoch`` is told each epoch before its rows are read, also after a resume: what it
    draws by epoch and row is then the same in an undisturbed training and a resumed one.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def fit(
    model: nn.Module,
    train: Rows,
    settings: TrainingSettings,
    *,
    work: Path,
    collate: Callable[[list[Any]], dict[str, Any]] | None = None,
    validation: Rows | None = None,
    metrics: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    best_by: str = "loss",
    groups: Sequence[dict[str, Any]] | None = None,
    log: Log | None = None,
    forget_after: Callable[[int], None] | None = None,
    label: str = "training",
    seed: int = 0,
    autocast: torch.dtype | None = None,
    tensorboard: Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> Fit:
    """Train what requires gradients in ``model``, in place; it ends with the best weights.

    ``model(**batch)`` gives an output with ``loss`` and ``logits``. ``work`` takes the
    checkpoints: where it holds a whole one, training continues from there and ends with the same
    weights as an undisturbed run. ``metrics(logits, labels)`` names figures of the validation
    rows; ``best_by`` is the one that chooses the best (the lowest for ``loss``, else the
    highest). ``groups`` are optimizer parameter groups; their ``lr`` overrides the setting's.
    ``forget_after(step)`` is called first, with the step after which training starts or continues.
    ``after_epoch(epoch)``, counted from 0, is called at the end of each of ``settings.epochs``;
    what it changes is kept in checkpoints if it trains, or is a buffer of a model that says
    ``resumes_buffers = True``.

    Raises :class:`InputError` when the training rows are empty, nothing trains, a batch does not
    fit into memory, the loss becomes NaN or infinite, or the checkpoint holds shards of other
    processes.
    """
    if len(train) == 0:
        raise InputError(f"{label}: there are no training rows")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{label}: the model has no parameter that trains")
    if after_epoch is not None and settings.epochs is None:
        raise InputError(f"{label}: something is to be done after each epoch; set training.epochs")
    if settings.drop_last and len(train) < settings.batch_size:
        raise InputError(
            f"{label}: {len(train)} rows are fewer than a batch of {settings.batch_size}, and "
            "drop_last leaves them out; lower training.batch_size"
        )
    set_seed(seed)
    evaluates = validation is not None and settings.evaluate_every is not None
    arguments = _arguments(settings, work, seed, autocast)
    if evaluates:
        arguments.eval_strategy = "steps"
        arguments.eval_steps = float(settings.evaluate_every or 0)
        arguments.metric_for_best_model = f"eval_{best_by}"
        arguments.greater_is_better = best_by != "loss"
        if settings.keep_best:
            arguments.load_best_model_at_end = True
            arguments.save_steps = float(settings.evaluate_every or 0)
    callbacks: list[Any] = [Watch(label, log)]
    if evaluates and settings.patience:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    if hasattr(train, "set_epoch"):
        callbacks.append(TellEpoch(train))
    if after_epoch is not None and settings.epochs is not None:
        callbacks.append(AfterEpochs(after_epoch, settings.epochs))
    if tensorboard is not None and settings.tensorboard and is_main_process():
        callbacks.append(_tensorboard(tensorboard))
    trainer = StrictTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=_on_arrays(metrics),
        callbacks=callbacks,
    )
    trainer.label = label
    trainer.settings = settings
    trainer.groups = groups or [{"params": list(model.parameters())}]
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(work)
    if checkpoint and any(checkpoint.glob("*_fsdp_*")) and not trainer.is_fsdp_enabled:
        raise InputError(
            f"{checkpoint} was written by several processes with a shard of the weights each "
            "(FSDP2); continue with the accelerate launch that the run began with"
        )
    if forget_after is not None:
        forget_after(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    started = time.perf_counter()
    if checkpoint is None or not trainer.finish_from(checkpoint):
        with _fitting_memory(label, settings):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    return Fit(trainer.state.global_step, round(seconds, 2), trainer.state.best_metric)


def predict(
    model: nn.Module,
    rows: Rows,
    *,
    collate: Callable[[list[Any]], dict[str, Any]] | None = None,
    batch_size: int = 8,
    work: Path,
    label: str = "evaluating",
    autocast: torch.dtype | None = None,
) -> Tensor:
    """The logits of all rows, in their order, gathered from all processes; shape (rows, k)."""
    settings = TrainingSettings(evaluation_batch_size=batch_size)
    trainer = StrictTrainer(
        model=model,
        args=_arguments(settings, work, 0, autocast),
        data_collator=collate,
        callbacks=[Watch(label, None)],
    )
    trainer.remove_callback(PrinterCallback)
    return torch.from_numpy(np.asarray(trainer.predict(rows).predictions))  # type: ignore[arg-type]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for :func:`fit`: matrices decay; biases, norms and scalars do not (GPT-3, CLIP)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers of a model train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@contextmanager
def _fitting_memory(label: str, settings: TrainingSettings) -> Iterator[None]:
    """Explains what to do where a batch is too large for the device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is the latter's
        # The CPU's allocator has no error of its own.
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise InputError(
            f"{label}: a batch of {settings.batch_size} rows does not fit into memory "
            f"({reason_of(error)}); lower training.batch_size, and raise "
            "training.gradient_accumulation by as much to train alike"
        ) from error


def _arguments(
    settings: TrainingSettings, work: Path, seed: int, autocast: torch.dtype | None
) -> TrainingArguments:
    by_epoch = settings.epochs is not None
    by_hand = settings.schedule == "cosine-by-epoch"  # StrictTrainer.create_scheduler
    # Trainer takes a save_steps below 1 as a share of all steps, which only it knows here.
    fifth = 0.2 if by_epoch else max(1, settings.steps // 5)
    return TrainingArguments(
        output_dir=str(work),
        max_steps=-1 if by_epoch else settings.steps,
        num_train_epochs=settings.epochs or 1,
        dataloader_drop_last=settings.drop_last,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.evaluation_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant" if by_hand else settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_every or fifth,
        save_total_limit=2,
        eval_strategy="no",
        seed=seed,
        bf16=autocast is torch.bfloat16,
        fp16=autocast is torch.float16,
        remove_unused_columns=False,
        label_names=["labels"],
        restore_callback_states_from_checkpoint=True,  # how much patience was left
        use_cpu=not torch.accelerator.is_available(),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # each process's own, such as the load of its experts
    )


def _on_arrays(metrics: Callable[[Tensor, Tensor], dict[str, float]] | None):
    if metrics is None:
        return None
    return lambda output: metrics(
        torch.from_numpy(output.predictions), torch.from_numpy(output.label_ids)
    )


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder)))
