"""Mean intersection over union of predicted masks, counted batch by batch.

Two rules of the mean are in use, and differ where a class is predicted that no mask shows:

- ``miou_truth``: over the classes that some true pixel has (detectron2 since commit f3c1bc19);
- ``miou_union``: over those that some true or predicted pixel has (detectron2 before, and
  torchmetrics' macro average); a class that is only predicted counts 0.

What is stored is the confusion matrix alone, so memory does not grow with the data set.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from geodapt.errors import InputError

RULES = {
    "miou_truth": "mIoU, classes in the truth",
    "miou_union": "mIoU, classes in the truth or the prediction",
}
"""Keys of the two means, and what tables call them."""


class SegmentationMetrics:
    """A streaming confusion matrix of labelled pixels.

    >>> metrics = SegmentationMetrics(["cat", "dog", "grass"])
    >>> metrics.update(torch.tensor([[0, 2]]), torch.tensor([[0, 255]]))
    >>> metrics.means()["miou_truth"]
    1.0
    """

    def __init__(self, classes: Sequence[str], ignore: int = 255) -> None:
        """``ignore``: the label of pixels that do not count.

        Raises :class:`InputError` for no classes, and for an ``ignore`` that is one.
        """
        if not classes:
            raise InputError("there are no classes to measure; give at least one")
        if 0 <= ignore < len(classes):
            raise InputError(
                f"ignore is {ignore}, which is class '{classes[ignore]}'; give a label that is none"
            )
        self.classes, self.ignore = list(classes), ignore
        # With one class, torchmetrics would take the task for a binary one.
        self._matrix = MulticlassConfusionMatrix(
            max(2, len(classes)), ignore_index=ignore, validate_args=False
        )

    def update(self, predicted: Int[Tensor, "*pixels"], labels: Int[Tensor, "*pixels"]) -> None:
        """Count some pixels.

        Raises :class:`InputError` for masks of two sizes, and for a label or prediction that is no
        class.
        """
        if predicted.shape != labels.shape:
            raise InputError(
                f"the predicted mask has shape {tuple(predicted.shape)}, the true one "
                f"{tuple(labels.shape)}"
            )
        counts = labels != self.ignore
        for name, values in (("true", labels[counts]), ("predicted", predicted[counts])):
            wrong = values[(values < 0) | (values >= len(self.classes))]
            if len(wrong):
                raise InputError(
                    f"a {name} mask has the label {int(wrong[0])}; expected 0 to "
                    f"{len(self.classes) - 1}, or {self.ignore} for pixels that do not count"
                )
        if counts.any():
            self._matrix.to(labels.device).update(predicted.flatten(), labels.flatten())

    def confusion(self) -> Int[Tensor, "classes classes"]:
        """Pixels by true (rows) and predicted class."""
        count = len(self.classes)
        return self._matrix.confmat[:count, :count]

    def per_class(self) -> list[dict[str, Any]]:
        """A row per class, in order: ``iou`` and ``accuracy`` (shares; None where not defined),
        true and predicted ``pixels``."""
        matrix = self.confusion().double()
        true, predicted, both = matrix.sum(1), matrix.sum(0), matrix.diagonal()
        union = true + predicted - both
        return [
            {
                "class": name,
                "iou": (both[k] / union[k]).item() if union[k] else None,
                "accuracy": (both[k] / true[k]).item() if true[k] else None,
                "pixels": int(true[k]),
                "predicted_pixels": int(predicted[k]),
            }
            for k, name in enumerate(self.classes)
        ]

    def means(self, only: Sequence[int] | None = None) -> dict[str, float | int | None]:
        """Both means (:data:`RULES`), the share of right pixels, and over how many classes.

        ``only``: classes to take the means over, of a confusion among all; ``pixel_accuracy`` is
        then of the pixels of those classes. None stands for a mean over nothing.
        """
        rows = self.per_class()
        for k in only or ():
            if not 0 <= k < len(rows):
                raise InputError(f"class {k} is none of the {len(rows)}")
        chosen = list(range(len(rows))) if only is None else list(only)
        part = [rows[k] for k in chosen]
        truth = [row["iou"] for row in part if row["pixels"]]
        union = [row["iou"] for row in part if row["iou"] is not None]
        pixels = sum(row["pixels"] for row in part)
        right = self.confusion().diagonal()[chosen].sum().item()
        return {
            "miou_truth": sum(truth) / len(truth) if truth else None,
            "miou_union": sum(union) / len(union) if union else None,
            "pixel_accuracy": right / pixels if pixels else None,
            "classes_in_truth": len(truth),
            "classes_in_union": len(union),
        }

    def confused(self, most: int = 10) -> list[dict[str, Any]]:
        """The pairs of classes that are taken for one another most often, by pixels."""
        matrix = self.confusion().clone()
        matrix.fill_diagonal_(0)
        values, places = matrix.flatten().topk(min(most, matrix.numel()))
        return [
            {
                "true": self.classes[place // len(self.classes)],
                "predicted": self.classes[place % len(self.classes)],
                "pixels": pixels,
            }
            for pixels, place in zip(values.tolist(), places.tolist(), strict=True)
            if pixels
        ]
