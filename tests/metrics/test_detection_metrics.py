"""Average precision: faster-coco-eval, our own matching, and a slow count by hand agree."""

import numpy as np
import pytest

from geodapt.errors import InputError
from geodapt.metrics import DetectionMetrics
from geodapt.metrics.detection import match_boxes, weighted_precision

NAMES = ["a", "b", "c", "never shown"]


def pictures(seed: int = 0, count: int = 12):
    """Found and true boxes of some pictures; many found ones are moved true ones."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        size = int(random.integers(0, 6))
        true = random.uniform(5, 40, (size, 4))
        labels = random.integers(0, 3, size)
        crowd = random.random(size) < 0.15
        copies = np.concatenate([true, true, random.uniform(5, 40, (2, 4))])
        found = copies * random.uniform(0.75, 1.3, copies.shape)
        own = np.concatenate([labels, labels, random.integers(0, 4, 2)])
        yield found, random.random(len(found)), own, true, labels, crowd


def iou(a, b, crowd):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - both)


def by_hand(data, label):
    """Average precision at 0.5 of one class, as one would count on paper."""
    marks, total = [], 0
    for found, scores, own, true, labels, crowd in data:
        here = [k for k in range(len(true)) if labels[k] == label]
        total += sum(not crowd[k] for k in here)
        taken = set()
        for n in sorted(
            (n for n in range(len(found)) if own[n] == label), key=lambda n: -scores[n]
        ):
            best, place = 0.5, None
            for k in here:
                if not crowd[k] and k not in taken and iou(found[n], true[k], False) >= best:
                    best, place = iou(found[n], true[k], False), k
            if place is not None:
                taken.add(place)
                marks.append((scores[n], True))
            elif not any(crowd[k] and iou(found[n], true[k], True) >= 0.5 for k in here):
                marks.append((scores[n], False))
    if not total:
        return None
    marks.sort(key=lambda mark: -mark[0])
    points = []
    for n in range(1, len(marks) + 1):
        hits = sum(right for _, right in marks[:n])
        points.append((hits / total, hits / n))
    return float(
        np.mean(
            [
                max((p for r, p in points if r >= recall), default=0.0)
                for recall in np.linspace(0, 1, 101)
            ]
        )
    )


@pytest.fixture(scope="module")
def data():
    return list(pictures())


@pytest.fixture(scope="module")
def metrics(data):
    metrics = DetectionMetrics(NAMES)
    for one in data:
        metrics.update(*one)
    return metrics


def test_average_precision_is_what_one_counts_by_hand(data, metrics):
    found = metrics.average_precision()
    assert found.shape == (10, 4)
    for label in range(3):
        assert found[0, label] == pytest.approx(by_hand(data, label), abs=1e-9)
    assert np.isnan(found[:, 3]).all()
    means = metrics.means()
    assert means["ap50"] == pytest.approx(found[0, :3].mean())
    assert means["ap"] == pytest.approx(found[:, :3].mean())
    assert means["classes"] == 3
    assert means["objects"] == sum((~crowd).sum() for *_, crowd in data)
    assert metrics.means([1, 3])["ap50"] == pytest.approx(found[0, 1])
    assert metrics.means([3]) == {"ap50": None, "ap": None, "classes": 0, "objects": 0}


def matched(data, label):
    """The pictures of a class's found boxes by score, whether each is right, and true boxes."""
    rows = []
    counts = np.zeros(len(data), dtype=int)
    for number, (found, scores, own, true, labels, crowd) in enumerate(data):
        some = np.flatnonzero(own == label)
        some = some[np.argsort(-scores[some], kind="stable")]
        here = labels == label
        counts[number] = (here & ~crowd).sum()
        marks = match_boxes(found[some], true[here], crowd[here])
        rows += [(scores[n], number, m) for n, m in zip(some, marks, strict=True) if m is not None]
    rows.sort(key=lambda row: -row[0])
    pictures, right = [number for _, number, _ in rows], [mark for *_, mark in rows]
    return np.array(pictures), np.array(right), counts


def test_our_own_matching_gives_the_same(data, metrics):
    for label in range(3):
        own = weighted_precision(*matched(data, label), np.ones(len(data), dtype=int))
        assert own == pytest.approx(metrics.average_precision()[0, label], abs=1e-9)


def test_a_weight_stands_for_as_many_copies_of_a_picture(data):
    twice = DetectionMetrics(NAMES)
    for number, one in enumerate(data):
        for _ in range(2 if number % 2 else 1):
            twice.update(*one)
    weights = np.array([2 if number % 2 else 1 for number in range(len(data))])
    for label in range(3):
        own = weighted_precision(*matched(data, label), weights)
        assert own == pytest.approx(twice.average_precision()[0, label], abs=1e-9)


def test_the_interval_holds_the_figure_and_is_narrow_where_all_is_right(data, metrics):
    low, high = metrics.interval()
    assert low <= metrics.means()["ap50"] <= high
    assert high - low > 0.01
    assert metrics.interval([3]) is None
    perfect = DetectionMetrics(NAMES)
    for _, _, _, true, labels, _ in data:
        perfect.update(true, np.ones(len(true)), labels, true, labels)
    assert perfect.means()["ap50"] == pytest.approx(1)
    assert perfect.interval() == pytest.approx((1, 1))


def test_nothing_found_is_zero_and_nothing_true_is_no_figure():
    metrics = DetectionMetrics(NAMES)
    box, none = np.array([[1.0, 1, 5, 5]]), np.zeros((0, 4))
    metrics.update(none, np.zeros(0), np.zeros(0, int), box, np.array([1]))
    assert metrics.means()["ap50"] == 0
    metrics = DetectionMetrics(NAMES)
    metrics.update(box, np.ones(1), np.array([1]), none, np.zeros(0, int))
    assert metrics.means()["ap50"] is None


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="no classes to measure"):
        DetectionMetrics([])
    box, one = np.array([[1.0, 1, 5, 5]]), np.array([1])
    metrics = DetectionMetrics(NAMES)
    with pytest.raises(InputError, match="a true box has the class 9, but there are 4"):
        metrics.update(box, np.ones(1), one, box, np.array([9]))
    with pytest.raises(InputError, match="no number"):
        metrics.update(box, np.array([np.nan]), one, box, one)
    for wrong in ([np.nan, 1, 5, 5], [1, 1, np.inf, 5], [1, 1, -5, -5]):
        for found, true in ((np.array([wrong]), box), (box, np.array([wrong]))):
            with pytest.raises(InputError, match="no side below 0"):
                metrics.update(found, np.ones(1), one, true, one)
    for scores, labels, crowd in (
        (np.ones(2), one, None),
        (np.ones(1), np.array([1, 1]), None),
        (np.ones(1), one, np.array([True, False])),
    ):
        with pytest.raises(InputError, match="1 found boxes come with"):
            metrics.update(box, scores, labels, box, one, crowd)
    assert metrics.pictures == 0
