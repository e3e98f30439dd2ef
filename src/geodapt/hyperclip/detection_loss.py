"""The training loss of a detector by words: transformers' own for Deformable DETR.

Each true box takes one found box, by the cheapest assignment; classes are learned by the focal
loss, each word by itself, boxes by L1 and generalized IoU. Weights of the cost and of the loss are
2, 5 and 2 (Zhu et al. 2021, appendix A.4).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.loss.loss_deformable_detr import (
    DeformableDetrHungarianMatcher,
    DeformableDetrImageLoss,
)

CLASS, BOX, OVERLAP = 2.0, 5.0, 2.0
FOCAL_ALPHA = 0.25


class _Matcher(DeformableDetrHungarianMatcher):
    """As transformers', but for batches without any true box, on which it fails."""

    def forward(self, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Any:
        if not any(len(target["boxes"]) for target in targets):
            empty = torch.zeros(0, dtype=torch.int64)
            return [(empty, empty) for _ in targets]
        return super().forward(outputs, targets)


def detection_loss(
    logits: Float[Tensor, "images patches words"],
    boxes: Float[Tensor, "images patches 4"],
    targets: list[dict[str, Tensor]],
) -> Float[Tensor, ""]:
    """The weighted sum of focal loss, L1 and generalized IoU, per true box of the batch.

    A target is ``class_labels``, numbers of words, and ``boxes``: middle x, y, width, height as
    shares of the picture, as ``boxes`` are. A picture may have none.
    """
    matcher = _Matcher(class_cost=CLASS, bbox_cost=BOX, giou_cost=OVERLAP)
    loss = DeformableDetrImageLoss(matcher, logits.shape[-1], FOCAL_ALPHA, ["labels", "boxes"])
    found = loss({"logits": logits.float(), "pred_boxes": boxes.float()}, targets)
    return CLASS * found["loss_ce"] + BOX * found["loss_bbox"] + OVERLAP * found["loss_giou"]
