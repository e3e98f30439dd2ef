"""The one training loop: a thin layer over ``transformers.Trainer``.

Trainer brings devices, processes (``accelerate launch``), accumulation, schedules, checkpoints
and resumption. Here stand the settings that recipes share, checkpoints that hold only what
trains, a progress bar, and the refusal to go on from a NaN.
"""

from geodapt.training.loop import (
    Fit,
    Rows,
    fit,
    last_checkpoint,
    parameter_groups,
    predict,
    trainable_parameters,
)
from geodapt.training.settings import TrainingSettings

__all__ = [
    "Fit",
    "Rows",
    "TrainingSettings",
    "fit",
    "last_checkpoint",
    "parameter_groups",
    "predict",
    "trainable_parameters",
]
