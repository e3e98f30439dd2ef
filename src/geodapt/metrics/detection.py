"""Average precision of found boxes, as COCO measures it, of any part of the classes.

The figures are faster-coco-eval's. It does not say which box was matched in which picture, which
intervals need; so the matching at one threshold stands here as well (:func:`match_boxes`), and a
test holds both to one another.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from geodapt.errors import InputError
from geodapt.extras import require_box_metrics

MOST = 100
"""Boxes of a class and a picture that count, those with the largest scores; COCO's number."""
IOU = 0.5
RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision."""


class DetectionMetrics:
    """Average precision over pictures that come one after another.

    Boxes are x, y, width, height in pixels. Found boxes that lie on a crowd count for nothing.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Raises :class:`InputError` for no classes, and where faster-coco-eval is missing."""
        require_box_metrics()
        if not classes:
            raise InputError("there are no classes to measure; give at least one")
        self.classes = list(classes)
        self.pictures = 0
        self._true: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def update(
        self,
        boxes: Float[np.ndarray, "found 4"],
        scores: Float[np.ndarray, " found"],
        labels: Int[np.ndarray, " found"],
        true_boxes: Float[np.ndarray, "true 4"],
        true_labels: Int[np.ndarray, " true"],
        crowd: Bool[np.ndarray, " true"] | None = None,
    ) -> None:
        """Count one picture.

        Raises :class:`InputError` for a label that is no class, for a score or a box that is no
        number, for a side below 0, and for another number of labels or scores than boxes.
        """
        true = len(true_boxes)
        crowd = np.zeros(true, dtype=bool) if crowd is None else crowd
        found = {len(boxes), len(scores), len(labels)}
        if len(found) > 1 or {len(true_labels), len(crowd)} != {true}:
            raise InputError(
                f"{len(boxes)} found boxes come with {len(scores)} scores and {len(labels)} "
                f"labels, {true} true ones with {len(true_labels)} labels and {len(crowd)} marks "
                "of crowds"
            )
        for name, values in (("found", labels), ("true", true_labels)):
            wrong = [v for v in values if not 0 <= v < len(self.classes)]
            if wrong:
                raise InputError(
                    f"a {name} box has the class {wrong[0]}, but there are {len(self.classes)}"
                )
        if not np.isfinite(scores).all():
            raise InputError("the score of a found box is no number")
        for name, sides in (("found", boxes), ("true", true_boxes)):
            for box in sides:
                if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) < 0:
                    raise InputError(
                        f"a {name} box is {np.asarray(box).tolist()}; expected x, y, width and "
                        "height, no side below 0"
                    )
        self.pictures += 1
        for box, label, many in zip(true_boxes, true_labels, crowd, strict=True):
            self._true.append({**self._row(box, label, len(self._true)), "iscrowd": int(many)})
        for box, label, score in zip(boxes, labels, scores, strict=True):
            self._found.append({**self._row(box, label, len(self._found)), "score": float(score)})

    def _row(self, box: np.ndarray, label: int, number: int) -> dict[str, Any]:
        return {
            "id": number + 1,
            "image_id": self.pictures,
            "category_id": int(label),
            "bbox": [float(value) for value in box],
            "area": float(box[2] * box[3]),
        }

    def average_precision(self) -> Float[np.ndarray, "thresholds classes"]:
        """By IoU threshold (0.5 to 0.95 by 0.05) and class; NaN for classes without true boxes."""
        from faster_coco_eval import COCO, COCOeval_faster

        if not self._found or not self._true:
            shown = {row["category_id"] for row in self._true if not row["iscrowd"]}
            zero = [0.0 if label in shown else np.nan for label in range(len(self.classes))]
            return np.tile(zero, (10, 1))
        truth = COCO(
            {
                "images": [
                    {"id": number + 1, "width": 1, "height": 1} for number in range(self.pictures)
                ],
                "annotations": self._true,
                "categories": [{"id": k, "name": name} for k, name in enumerate(self.classes)],
            }
        )
        measured = COCOeval_faster(truth, truth.loadRes(self._found), iouType="bbox")
        measured.evaluate()
        measured.accumulate()
        precision = np.asarray(measured.eval["precision"])[:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
        return precision.mean(1)

    def means(self, only: Sequence[int] | None = None) -> dict[str, float | int | None]:
        """``ap50`` and ``ap`` (mean over thresholds) over the classes with true boxes, and counts.

        ``only``: classes to take the means over; boxes of others neither help nor harm them.
        """
        chosen = np.arange(len(self.classes)) if only is None else np.array(only, dtype=int)
        found = self.average_precision()[:, chosen]
        there = ~np.isnan(found[0])
        objects = sum(
            not row["iscrowd"] and row["category_id"] in set(chosen.tolist()) for row in self._true
        )
        return {
            "ap50": float(found[0][there].mean()) if there.any() else None,
            "ap": float(found[:, there].mean()) if there.any() else None,
            "classes": int(there.sum()),
            "objects": objects,
        }

    def interval(
        self, only: Sequence[int] | None = None, resamples: int = 200, seed: int = 0
    ) -> tuple[float, float] | None:
        """95 % of ``ap50`` over pictures drawn anew with replacement; None without true boxes."""
        chosen = range(len(self.classes)) if only is None else only
        matched = [one for one in map(self._matched, chosen) if one is not None]
        if not matched:
            return None
        random = np.random.default_rng(seed)
        means = []
        for _ in range(resamples):
            weights = np.bincount(
                random.integers(self.pictures, size=self.pictures), minlength=self.pictures
            )
            values = [weighted_precision(a, b, c, weights) for a, b, c in matched]
            if there := [value for value in values if value is not None]:
                means.append(sum(there) / len(there))
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)

    def _matched(self, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Of one class: the pictures of its found boxes by score, whether each is right, and the
        number of true boxes by picture."""
        true: dict[int, list[dict[str, Any]]] = defaultdict(list)
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for rows, by_picture in ((self._true, true), (self._found, found)):
            for row in rows:
                if row["category_id"] == label:
                    by_picture[row["image_id"]].append(row)
        counts = np.zeros(self.pictures, dtype=int)
        scores, right, pictures = [], [], []
        for picture in {*true, *found}:
            here = sorted(found[picture], key=lambda row: -row["score"])[:MOST]
            many = np.array([row["iscrowd"] for row in true[picture]]) > 0
            counts[picture - 1] = (~many).sum()
            marks = match_boxes(
                np.array([row["bbox"] for row in here]).reshape(-1, 4),
                np.array([row["bbox"] for row in true[picture]]).reshape(-1, 4),
                many,
            )
            for row, mark in zip(here, marks, strict=True):
                if mark is not None:
                    scores.append(row["score"])
                    right.append(mark)
                    pictures.append(picture - 1)
        if not counts.any():
            return None
        order = np.argsort(-np.array(scores), kind="stable")
        return np.array(pictures, dtype=int)[order], np.array(right, dtype=bool)[order], counts


def match_boxes(
    found: Float[np.ndarray, "found 4"],
    true: Float[np.ndarray, "true 4"],
    crowd: Bool[np.ndarray, " true"],
    threshold: float = IOU,
) -> list[bool | None]:
    """Whether each found box, the likeliest first, takes a true box that none before it took.

    It takes the one of largest IoU, at least ``threshold``. None: it takes no such box, but lies on
    a crowd by that share of its own area, and counts for nothing. Source: COCO's evaluation.
    """
    free = ~crowd
    marks: list[bool | None] = []
    for box in found:
        overlap = _intersections(box, true)
        own, others = box[2] * box[3], true[:, 2] * true[:, 3]
        union = np.where(crowd, own, own + others - overlap)
        share = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
        candidates = np.where(free, share, -1.0)
        if len(true) and candidates.max() >= threshold:
            # Of equal ones the last, as COCO's loop takes it.
            free[len(true) - 1 - int(candidates[::-1].argmax())] = False
            marks.append(True)
        else:
            marks.append(None if (share[crowd] >= threshold).any() else False)
    return marks


def weighted_precision(
    pictures: Int[np.ndarray, " found"],
    right: Bool[np.ndarray, " found"],
    counts: Int[np.ndarray, " pictures"],
    weights: Int[np.ndarray, " pictures"],
) -> float | None:
    """Average precision where each picture counts ``weights`` times; None without true boxes.

    ``pictures`` are those of the found boxes, from the likeliest on; ``counts`` are true boxes by
    picture. It is the mean of precision, made to fall, at 101 recalls.
    """
    total = (counts * weights).sum()
    if not total:
        return None
    times = weights[pictures]
    hits, tried = np.cumsum(times * right), np.cumsum(times)
    recall = hits / total
    precision = np.divide(hits, tried, out=np.zeros(len(hits)), where=tried > 0)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    read = [falling[place] if place < len(falling) else 0.0 for place in places]
    return float(np.mean(read))


def _intersections(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    return np.clip(high - low, 0, None).prod(1)
