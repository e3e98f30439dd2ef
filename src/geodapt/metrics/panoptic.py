"""Panoptic quality: how well segments and their classes are found (Kirillov et al. 2019).

A found and a true segment of one class match where their intersection is more than half of their
union; then ``PQ = sum of IoU / (TP + FP / 2 + FN / 2) = SQ RQ`` per class. As in panopticapi,
pixels of no true segment are left out of unions; a found segment that lies by more than half on
them or on a crowd of its class counts for nothing, and so does a crowd. torchmetrics'
PanopticQuality knows no crowds, and leaves pixels of no found segment out of unions as well.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from geodapt.errors import InputError

IOU, TP, FP, FN = range(4)


class PanopticMetrics:
    """Panoptic quality over pictures that come one after another."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Raises :class:`InputError` for no classes."""
        if not classes:
            raise InputError("there are no classes to measure; give at least one")
        self.classes = list(classes)
        self._counts: list[Float[np.ndarray, "4 classes"]] = []

    def update(
        self,
        places: Int[np.ndarray, "h w"],
        categories: Int[np.ndarray, " found"],
        true_places: Int[np.ndarray, "h w"],
        true_categories: Int[np.ndarray, " true"],
        crowd: Bool[np.ndarray, " true"] | None = None,
    ) -> None:
        """Count one picture: the number of each pixel's segment, -1 for none, and their classes.

        Raises :class:`InputError` for pictures of two sizes, and for a class or a segment that does
        not exist.
        """
        crowd = np.zeros(len(true_categories), dtype=bool) if crowd is None else crowd
        if places.shape != true_places.shape:
            raise InputError(f"found segments are {places.shape}, true ones {true_places.shape}")
        for name, where, of in (
            ("found", places, categories),
            ("true", true_places, true_categories),
        ):
            if where.size and not -1 <= where.min() <= where.max() < len(of):
                raise InputError(f"a pixel is of a {name} segment that does not exist")
            if len(of) and not 0 <= np.min(of) <= np.max(of) < len(self.classes):
                raise InputError(
                    f"a {name} segment has a class that is none of {len(self.classes)}"
                )
        self._counts.append(self._counted(places, categories, true_places, true_categories, crowd))

    def _counted(
        self,
        places: np.ndarray,
        categories: np.ndarray,
        true_places: np.ndarray,
        true_categories: np.ndarray,
        crowd: np.ndarray,
    ) -> Float[np.ndarray, "4 classes"]:
        found, true = len(categories), len(true_categories)
        # Pixels by found (rows) and true segment; the last of each is none.
        pair = np.where(places < 0, found, places) * (true + 1)
        pair = pair + np.where(true_places < 0, true, true_places)
        pixels = np.bincount(pair.ravel(), minlength=(found + 1) * (true + 1))
        both = pixels.reshape(found + 1, true + 1).astype(float)
        area, true_area, void = both.sum(1)[:found], both.sum(0)[:true], both[:found, true]
        overlap = both[:found, :true]
        union = area[:, None] + true_area - overlap - void[:, None]
        alike = np.asarray(categories)[:, None] == np.asarray(true_categories)
        share = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
        # At most one of each row and column has more than half.
        matched = (share > 0.5) & alike & ~crowd
        counts = np.zeros((4, len(self.classes)))
        for row, column in zip(*np.nonzero(matched), strict=True):
            counts[IOU, categories[row]] += share[row, column]
            counts[TP, categories[row]] += 1
        excused = void + (overlap * (alike & crowd)).sum(1)
        for row in np.flatnonzero(~matched.any(1) & (area > 0)):
            counts[FP, categories[row]] += excused[row] <= 0.5 * area[row]
        for column in np.flatnonzero(~matched.any(0) & ~crowd & (true_area > 0)):
            counts[FN, true_categories[column]] += 1
        return counts

    def means(self, only: Sequence[int] | None = None) -> dict[str, float | int | None]:
        """``pq``, ``sq`` and ``rq`` over the classes that were found or there, and counts.

        ``only``: classes to take the means over. None stands for a mean over nothing.
        """
        total = sum(self._counts, np.zeros((4, len(self.classes))))
        values, segments = _qualities(total, only)
        if not len(values[0]):
            return {"pq": None, "sq": None, "rq": None, "classes": 0, "segments": 0}
        pq, sq, rq = (float(value.mean()) for value in values)
        return {"pq": pq, "sq": sq, "rq": rq, "classes": len(values[0]), "segments": segments}

    def interval(
        self, only: Sequence[int] | None = None, resamples: int = 200, seed: int = 0
    ) -> tuple[float, float] | None:
        """95 % of ``pq`` over pictures drawn anew with replacement; None for a mean of nothing."""
        if self.means(only)["pq"] is None:
            return None
        stacked, random = np.stack(self._counts), np.random.default_rng(seed)
        means = []
        for _ in range(resamples):
            drawn = random.integers(len(stacked), size=len(stacked))
            weights = np.bincount(drawn, minlength=len(stacked))
            values, _ = _qualities(np.tensordot(weights, stacked, 1), only)
            if len(values[0]):
                means.append(values[0].mean())
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)


def _qualities(
    counts: Float[np.ndarray, "4 classes"], only: Sequence[int] | None
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """PQ, SQ and RQ of the classes that were found or there, and the number of true segments."""
    part = counts if only is None else counts[:, list(only)]
    part = part[:, part[TP:].sum(0) > 0]
    half = part[TP] + (part[FP] + part[FN]) / 2
    segments = np.divide(part[IOU], part[TP], out=np.zeros(part.shape[1]), where=part[TP] > 0)
    return (part[IOU] / half, segments, part[TP] / half), int((part[TP] + part[FN]).sum())
