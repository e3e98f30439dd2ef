"""Figures of a classifier, by torchmetrics."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from geodapt.errors import Diverged, InputError


def classification_metrics(
    logits: Float[Tensor, "rows labels"], labels: Int[Tensor, " rows"]
) -> dict[str, float]:
    """``accuracy`` over rows and ``macro_f1`` over labels, each in 0..1.

    Raises :class:`Diverged` when a logit is NaN, :class:`InputError` when there are no rows, and
    for labels that are no column.
    """
    if logits.shape[0] == 0:
        raise InputError("no rows to evaluate")
    if len(labels) != len(logits) or ((labels < 0) | (labels >= logits.shape[1])).any():
        raise InputError(
            f"{len(logits)} rows of {logits.shape[1]} logits come with {len(labels)} labels up to "
            f"{int(labels.max()) if len(labels) else None}; expected one of the columns each"
        )
    if torch.isnan(logits).any():
        raise Diverged("logits hold NaN: the model diverged")
    classes = logits.shape[1]
    accuracy = multiclass_accuracy(logits, labels, classes, average="micro")
    f1 = multiclass_f1_score(logits, labels, classes, average="macro")
    return {"accuracy": float(accuracy), "macro_f1": float(f1)}
