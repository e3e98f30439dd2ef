"""Rows of vectors, and matrices of distances, as metric spaces."""

from dataclasses import replace

import numpy as np
import torch

from geodapt.errors import InputError
from geodapt.probe.source import Source, check_source, sample_rows
from geodapt.progress import track

THROUGH = 32  # points by which the triangle inequality is tried
BLOCK = 1 << 15  # rows that are checked at once


def from_vectors(
    name: str, vectors: np.ndarray, labels: list[str] | None, sample: int, generator
) -> Source:
    """The Euclidean distances of a sample of rows."""
    if vectors.ndim != 2:
        raise InputError(f"{name} has the shape {vectors.shape}; expected rows of vectors (n, d)")
    total = len(vectors)
    for start in track(range(0, total, BLOCK), f"reading {name}"):
        finite = np.isfinite(vectors[start : start + BLOCK]).all(1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise InputError(f"{name}: row {row} holds NaN or infinite values; leave it out")
    chosen, notes = sample_rows(name, total, sample, generator)
    rows = torch.from_numpy(np.asarray(vectors[chosen], dtype=np.float64))
    direct = "donot_use_mm_for_euclid_dist"  # the fast form loses close points
    distances = torch.cdist(rows, rows, compute_mode=direct)
    names = [labels[i] if labels else str(i) for i in chosen]
    return check_source(Source(name, "vectors", total, distances, names, notes=notes))


def from_distances(
    name: str, matrix: np.ndarray, labels: list[str] | None, sample: int, generator
) -> Source:
    """A sample of rows and columns of a distance matrix."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name}: a distance matrix is square; this has the shape {matrix.shape}")
    total = len(matrix)
    chosen, notes = sample_rows(name, total, sample, generator)
    rows = np.asarray(matrix[np.ix_(chosen, chosen)], dtype=np.float64)
    names = [labels[i] if labels else str(i) for i in chosen]
    found = check_source(
        Source(name, "distances", total, torch.from_numpy(rows), names, notes=notes)
    )
    return replace(found, notes=[*notes, *_no_metric(name, rows, generator)])


def _no_metric(name: str, d: np.ndarray, generator: np.random.Generator) -> list[str]:
    """A note where ``d(i, j) <= d(i, k) + d(k, j)`` does not hold, tried with 32 points k.

    Refused where two points coincide and lie at unlike distances from a third.
    """
    tolerance = 1e-5 * d.max()
    for i, j in np.argwhere(np.triu(d <= 0, 1)):
        gap = np.abs(d[i] - d[j])
        if gap.max() > tolerance:
            k = int(gap.argmax())
            raise InputError(
                f"{name}: distance [{i}, {j}] is 0, but [{i}, {k}] is {d[i, k]:g} and [{j}, {k}] "
                f"is {d[j, k]:g}; points that coincide have equal distances to every other point"
            )
    through = generator.choice(len(d), min(len(d), THROUGH), replace=False)
    broken, worst = 0, 1.0
    for k in through:
        detour = d[:, k, None] + d[k]
        longer = d > detour + tolerance
        broken += int(longer.sum())
        if longer.any():
            worst = max(worst, float((d[longer] / detour[longer]).max()))
    if not broken:
        return []
    share = broken / (len(through) * d.size)
    return [
        f"these are no distances of a metric: {100 * share:.2f} % of the triples tried break the "
        f"triangle inequality, one by a factor of {worst:.3g}; the figures suppose that it holds"
    ]
