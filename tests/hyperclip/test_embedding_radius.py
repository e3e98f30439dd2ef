"""Norm and hyperbolic radius by group."""

import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry import poincare
from geodapt.hyperclip.radius import embedding_radius, radius_table


@pytest.mark.parametrize("c", [0.01, 0.1, 1.0])
def test_radius_is_the_balls_for_every_curvature(c):
    vectors = torch.randn(20, 8, dtype=torch.float64)
    through = poincare.radius(poincare.exp0(vectors, c), c)
    torch.testing.assert_close(embedding_radius(vectors), through, rtol=1e-9, atol=1e-9)


def test_table_has_a_row_per_group():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 7.0]])
    rows = radius_table(vectors, ["letter", "arrow", "letter"], "level")
    assert [row["level"] for row in rows] == ["letter", "arrow"]
    assert rows[0] == {
        "level": "letter",
        "count": 2,
        "norm": 6.0,
        "norm_std": 1.0,
        "radius": 12.0,
    }
    with pytest.raises(InputError, match="3 vectors and 1 groups"):
        radius_table(vectors, ["letter"])
