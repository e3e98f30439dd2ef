"""Windows cover every pixel, and their mean is that of a loop over pixels."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodapt.errors import InputError
from geodapt.vision import slide
from geodapt.vision.windows import window_starts


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_every_place_is_covered_and_none_lies_beyond(length, size, data):
    stride = data.draw(st.integers(1, size))
    starts = window_starts(length, size, stride)
    covered = {place for start in starts for place in range(start, start + size)}
    assert covered >= set(range(length))
    assert starts == sorted(set(starts))
    assert max(starts) == max(length - size, 0)
    assert all(later - first <= stride for first, later in pairwise(starts))


def test_the_mean_is_that_of_a_loop():
    picture = torch.randn(3, 21, 13, dtype=torch.float64)
    seen = []

    def compute(windows):
        seen.append(len(windows))
        place = torch.linspace(0, 1, 8, dtype=torch.float64)
        return torch.stack([windows[:, 0] * place, windows.sum(1) * place[:, None]], dim=1)

    found = slide(compute, picture, 8, 5, at_once=3)
    total, count = torch.zeros(2, 21, 13).double(), torch.zeros(21, 13).double()
    for y in (0, 5, 10, 13):
        for x in (0, 5):
            one = compute(picture[None, :, y : y + 8, x : x + 8])[0]
            total[:, y : y + 8, x : x + 8] += one
            count[y : y + 8, x : x + 8] += 1
    torch.testing.assert_close(found, total / count)
    assert seen[:3] == [3, 3, 2]


@pytest.mark.parametrize(("height", "width"), [(5, 9), (3, 3), (8, 8), (17, 2)])
def test_any_size_of_picture(height, width):
    picture = torch.randn(1, height, width)
    assert torch.equal(slide(lambda windows: windows, picture, 8), picture)


def test_the_far_side_of_a_small_picture_is_zero():
    def compute(windows):
        assert windows.shape == (1, 1, 8, 8)
        assert windows[0, 0, 5:].abs().sum() == 0
        return windows

    slide(compute, torch.ones(1, 5, 8), 8)


def test_what_cannot_be_slid():
    picture = torch.zeros(1, 9, 9)
    with pytest.raises(InputError, match="leave gaps"):
        slide(lambda windows: windows, picture, 4, 5)
    with pytest.raises(InputError, match="leave gaps"):
        slide(lambda windows: windows, picture, 4, 0)
    with pytest.raises(InputError, match=r"came out as \(4, 1, 2, 2\); expected a map of 4 x 4"):
        slide(lambda windows: windows[..., :2, :2], picture, 4)
    with pytest.raises(InputError, match="a side of 0 pixels"):
        slide(lambda windows: windows, torch.zeros(1, 0, 5), 4)
