"""Mean IoU by both rules, streamed, against a loop over pixels and torchmetrics' own."""

import pytest
import torch
from torchmetrics.functional import jaccard_index

from geodapt.errors import InputError
from geodapt.metrics import SegmentationMetrics

NAMES = list("abcde")


def masks(images=4):
    torch.manual_seed(3)
    labels = torch.randint(0, 3, (images, 6, 7))  # d and e are never true
    predicted = torch.randint(0, 4, labels.shape)  # e is never predicted
    labels[torch.rand(labels.shape) < 0.2] = 255
    return predicted, labels


@pytest.fixture
def counted():
    metrics = SegmentationMetrics(NAMES)
    for page in zip(*masks(), strict=True):
        metrics.update(*page)
    return metrics


def loop(members):
    """IoU of each class, by sets of pixels."""
    predicted, labels = (mask.flatten().tolist() for mask in masks())
    pixels = [(p, t) for p, t in zip(predicted, labels, strict=True) if t != 255]
    found = {}
    for k in members:
        both = sum(p == k and t == k for p, t in pixels)
        either = sum(k in (p, t) for p, t in pixels)
        found[k] = (both / either if either else None, sum(t == k for _, t in pixels))
    return found


@pytest.mark.parametrize("only", [None, [0, 1], [2, 3, 4], [3], [4]])
def test_both_means_equal_a_loop(counted, only):
    found = counted.means(only)
    rows = loop(range(5) if only is None else only)
    truth = [iou for iou, pixels in rows.values() if pixels]
    union = [iou for iou, _ in rows.values() if iou is not None]
    for key, ious in (("miou_truth", truth), ("miou_union", union)):
        expected = sum(ious) / len(ious) if ious else None
        assert found[key] == (pytest.approx(expected, rel=1e-12) if ious else None)
    assert (found["classes_in_truth"], found["classes_in_union"]) == (len(truth), len(union))


def test_the_union_rule_is_torchmetrics_macro_average(counted):
    predicted, labels = masks()
    macro = jaccard_index(predicted, labels, "multiclass", num_classes=5, ignore_index=255)
    assert counted.means()["miou_union"] == pytest.approx(macro.item(), rel=1e-6)
    assert counted.means()["miou_union"] < counted.means()["miou_truth"]


def test_table_and_confusion(counted):
    rows = {row["class"]: row for row in counted.per_class()}
    assert rows["d"]["iou"] == 0
    assert rows["d"]["accuracy"] is None
    assert rows["e"]["iou"] is None
    labels = masks()[1]
    assert sum(row["pixels"] for row in rows.values()) == (labels != 255).sum()
    worst = counted.confused(3)
    assert [row["pixels"] for row in worst] == sorted((r["pixels"] for r in worst), reverse=True)
    assert all(row["true"] != row["predicted"] for row in worst)


def test_pages_of_void_and_a_single_class():
    metrics = SegmentationMetrics(["a"])
    metrics.update(torch.zeros(2, 2, dtype=torch.long), torch.full((2, 2), 255))
    assert metrics.means()["miou_truth"] is None
    metrics.update(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long))
    assert metrics.means()["miou_truth"] == metrics.means()["pixel_accuracy"] == 1.0


def test_what_cannot_be_counted_is_refused():
    metrics, zeros = SegmentationMetrics(NAMES), torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(
        InputError, match=r"predicted mask has shape \(2, 2\), the true one \(4, 1\)"
    ):
        metrics.update(zeros, zeros.view(4, 1))
    with pytest.raises(InputError, match="true mask has the label 5; expected 0 to 4, or 255"):
        metrics.update(zeros, zeros + 5)
    with pytest.raises(InputError, match="predicted mask has the label -1"):
        metrics.update(zeros - 1, zeros)
    with pytest.raises(InputError, match="no classes"):
        SegmentationMetrics([])
    with pytest.raises(InputError, match="ignore is 1, which is class 'b'"):
        SegmentationMetrics(NAMES, ignore=1)
