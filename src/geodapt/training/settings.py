"""How long, how fast and how carefully recipes train."""

from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.settings import Settings


class TrainingSettings(Settings):
    """How long, how fast and how carefully to train."""

    steps: int = Field(default=200, ge=1)
    """Optimizer steps, where epochs are not given."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training rows, instead of steps."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with momentum."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last steps that sgd keeps."""
    drop_last: bool = False
    """Leave out the last rows of an epoch where they are fewer than a batch."""
    batch_size: int = Field(default=8, ge=1)
    """Rows per process and forward pass."""
    evaluation_batch_size: int = Field(default=8, ge=1)
    """Rows per process and forward pass when evaluating."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Forward passes per optimizer step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest step size."""
    schedule: Literal["linear", "cosine", "constant", "cosine-by-epoch"] = "linear"
    """How the step size falls; by epoch: first_rate for the first, then a cosine in steps."""
    first_rate: float = Field(default=1e-5, gt=0)
    """Step size of the first epoch under cosine-by-epoch."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the step size rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of weights."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0: they are not."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines in metrics.jsonl and TensorBoard."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the validation rows; none: no evaluation while training."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints for --resume; none: a fifth of the steps."""
    keep_best: bool = True
    """End with the weights of the best evaluation rather than the last ones."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better one."""
    tensorboard: bool = True
    """Write TensorBoard files beside the run."""

    @model_validator(mode="after")
    def _by_epoch(self) -> "TrainingSettings":
        if self.schedule == "cosine-by-epoch" and self.epochs is None:
            raise ValueError("schedule cosine-by-epoch needs epochs")
        return self

    def _smallest(self) -> dict[str, Any]:
        evaluated = None if self.evaluate_every is None else 2
        shorter = {} if self.epochs is None else {"epochs": min(self.epochs, 2)}
        return self._at_most(steps=2, gradient_accumulation=1) | {
            **shorter,
            "log_every": 1,
            "evaluate_every": evaluated,
        }
