"""Training and measuring a detector by words."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.loss.loss_deformable_detr import (
    DeformableDetrHungarianMatcher,
    DeformableDetrImageLoss,
)

from geodapt.hyperclip.batches import asked_words, drawn_by
from geodapt.hyperclip.detector import OpenDetector
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.scenes import LEFT_OUT, PictureRows, SceneClasses, box_targets
from geodapt.hyperclip.tuned_towers import TowerTuner
from geodapt.hyperclip.tuning_settings import SceneSettings
from geodapt.metrics import DetectionMetrics
from geodapt.progress import track

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

    Each true box takes one found box, by the cheapest assignment; cost and loss have the weights 2,
    5 and 2 (Zhu et al. 2021, "Deformable DETR", appendix A.4). Each word is learned by itself.
    A target is ``class_labels``, numbers of words, and ``boxes``: middle x, y, width, height as
    shares of the picture, as ``boxes`` are. A picture may have none.
    """
    matcher = _Matcher(class_cost=CLASS, bbox_cost=BOX, giou_cost=OVERLAP)
    loss = DeformableDetrImageLoss(matcher, logits.shape[-1], FOCAL_ALPHA, ["labels", "boxes"])
    found = loss({"logits": logits.float(), "pred_boxes": boxes.float()}, targets)
    return CLASS * found["loss_ce"] + BOX * found["loss_bbox"] + OVERLAP * found["loss_giou"]


AT_ONCE = 4
HEADS = ("class_head", "box_head", "layer_norm")


class DetectionTuner(TowerTuner):
    """A detector: its heads train, and what a method chooses of its towers."""

    def __init__(
        self, detector: OpenDetector, method: TuningMethod, settings: SceneSettings
    ) -> None:
        super().__init__(detector.requires_grad_(False).clip, method, settings)
        self.detector = detector
        for name in HEADS:
            getattr(detector.model, name).requires_grad_(True)

    def forward(
        self, pixels: Tensor, targets: list[dict[str, Tensor]], **tokens: Tensor
    ) -> dict[str, Tensor]:
        """The loss of a batch of :class:`DetectionBatches`."""
        texts = self.detector.clip.text_vectors(tokens)
        logits, boxes = self.detector(pixels, texts)
        return {"loss": detection_loss(logits, boxes, targets)}

    def heads(self) -> list[nn.Parameter]:
        return [p for name in HEADS for p in getattr(self.detector.model, name).parameters()]


class DetectionBatches:
    """Training batches: pictures, the words that a batch is asked for, and its boxes by those.

    Boxes of classes that training must not show, of those left out, and crowds are no targets.
    """

    def __init__(
        self, rows: Any, classes: SceneClasses, detector: OpenDetector, asked: int
    ) -> None:
        self.rows = PictureRows(rows.select_columns(["image", "objects"]))
        self.classes, self.detector, self.asked = classes, detector, asked
        self.template = detector.settings.templates[0]

    def __len__(self) -> int:
        return len(self.rows)

    def collate(self, numbers: list[int]) -> dict[str, Any]:
        """What :class:`DetectionTuner` takes; the same rows give the same words."""
        rows = [self.rows[number] for number in numbers]
        seen = set(self.classes.seen)
        kept = [[one for one in true_boxes(row, self.classes) if one[1] in seen] for row in rows]
        shown = [label for some in kept for _, label, crowd in some if not crowd]
        words = asked_words(shown, self.classes.seen, self.asked, drawn_by(numbers))
        place = {word: number for number, word in enumerate(words)}
        images = [self.rows.image(row) for row in rows]
        targets = []
        for image, some in zip(images, kept, strict=True):
            own = [(box, place[label]) for box, label, crowd in some if not crowd]
            boxes, labels = [box for box, _ in own], [label for _, label in own]
            targets.append(box_targets(boxes, labels, self.detector.extent(image)))
        texts = [self.template.replace("{}", self.classes.names[word]) for word in words]
        return {
            "pixels": self.detector.pixels(images),
            "targets": targets,
            **self.detector.clip.tokens(texts),
        }


def true_boxes(row: dict[str, Any], classes: SceneClasses) -> list[tuple[list[float], int, bool]]:
    """The boxes of a row whose class is asked for: box, class, whether it is a crowd."""
    objects = row["objects"]
    labels = classes.of(objects["category"])
    crowd = objects.get("crowd") or [False] * len(labels)
    return [
        (box, label, bool(many))
        for box, label, many in zip(objects["bbox"], labels, crowd, strict=True)
        if label != LEFT_OUT
    ]


def evaluate_detection(
    detector: OpenDetector, rows: Any, classes: SceneClasses
) -> DetectionMetrics:
    """Average precision of pictures that are asked for all classes at once."""
    metrics = DetectionMetrics(classes.names)
    texts = detector.word_vectors(classes.names)
    opened = PictureRows(rows.select_columns(["image", "objects"]))
    for start in track(range(0, len(opened), AT_ONCE), "detecting objects"):
        some = [opened[number] for number in range(start, min(start + AT_ONCE, len(opened)))]
        found = detector.detect_all([opened.image(row) for row in some], texts)
        for row, one in zip(some, found, strict=True):
            true = true_boxes(row, classes)
            metrics.update(
                one.boxes.numpy().astype(np.float64),
                one.scores.numpy().astype(np.float64),
                one.labels.numpy(),
                np.array([box for box, _, _ in true], dtype=np.float64).reshape(-1, 4),
                np.array([label for _, label, _ in true], dtype=int),
                np.array([many for _, _, many in true], dtype=bool),
            )
    return metrics


def detection_figures(metrics: DetectionMetrics, classes: SceneClasses) -> dict[str, Any]:
    """AP50 of all, seen and new classes, each with its interval and its number of objects."""
    found: dict[str, Any] = {}
    for name, only in (("", None), ("_seen", classes.seen), ("_new", classes.new)):
        means = metrics.means(only)
        if means["ap50"] is None:
            continue
        found[f"ap50{name}"], found[f"objects{name}"] = means["ap50"], means["objects"]
        found[f"ap50{name}_interval"] = metrics.interval(only)
        if not name:
            found["ap"] = means["ap"]
    return found
