"""Resampled mean IoU against counting the same sets one by one."""

import numpy as np
import pytest
import torch

from geodapt.errors import InputError
from geodapt.metrics import ResampledIoU, SegmentationMetrics, percentile_interval


def pictures(count=6):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        labels = torch.randint(0, 5, (4, 6), generator=generator)
        labels[labels == 4] = 255
        yield torch.randint(0, 4, (4, 6), generator=generator), labels


def test_each_set_is_a_confusion_of_pictures_drawn_with_repetition():
    resampled = ResampledIoU(4, sets=5, seed=3)
    for predicted, labels in pictures():
        resampled.update(predicted, labels)
    random = np.random.default_rng(3)
    counts = np.stack([random.poisson(1.0, 5) for _ in range(6)])
    for only in (None, [1, 3]):
        found = resampled.means(only)
        for k in range(5):
            metrics = SegmentationMetrics("abcd")
            for (predicted, labels), count in zip(pictures(), counts[:, k], strict=True):
                for _ in range(count):
                    metrics.update(predicted, labels)
            assert found[k].item() == pytest.approx(metrics.means(only)["miou_truth"], rel=1e-12)


def test_interval():
    assert percentile_interval(torch.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert percentile_interval(torch.tensor([1.0, torch.nan])) == (1, 1)
    assert percentile_interval(torch.tensor([torch.nan])) is None
    assert ResampledIoU(2, sets=3).means().isnan().all()
    with pytest.raises(InputError, match="0 classes in 200 sets"):
        ResampledIoU(0)
