"""Paired bootstrap intervals over groups: beside formulas, and their coverage."""

import math

import numpy as np
import pytest

from geodapt.errors import InputError
from geodapt.metrics.resampling import paired_bootstrap


def test_independent_questions_have_the_formulas_interval():
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((2, 900)) < [[0.6], [0.5]]
    found = paired_bootstrap(ours, theirs)
    gaps = ours.astype(float) - theirs
    assert found.difference == pytest.approx(gaps.mean())
    half = 1.96 * gaps.std(ddof=1) / math.sqrt(900)
    assert found.low == pytest.approx(gaps.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gaps.mean() + half, abs=0.1 * half)
    assert found.visible == pytest.approx(half, rel=0.1)


def test_questions_of_one_group_are_drawn_together():
    """Of 50 files with 8 equal answers each there are 50 answers, not 400."""
    generator = np.random.default_rng(1)
    files = np.repeat(np.arange(50), 8)
    gaps = generator.choice([-1.0, 0.0, 1.0], size=50)[files]
    grouped = paired_bootstrap(gaps, np.zeros(400), files.tolist())
    alone = paired_bootstrap(gaps, np.zeros(400))
    assert grouped.visible == pytest.approx(alone.visible * math.sqrt(8), rel=0.15)
    single = paired_bootstrap(gaps[::8], np.zeros(50))
    assert grouped.visible == pytest.approx(single.visible, rel=0.1)


def test_equal_answers_differ_by_nothing_and_misfits_are_refused():
    same = paired_bootstrap([1, 0, 1], [1, 0, 1], ["a", "a", "b"])
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    with pytest.raises(InputError, match="3 and 2 answers"):
        paired_bootstrap([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="no answers"):
        paired_bootstrap([], [])
