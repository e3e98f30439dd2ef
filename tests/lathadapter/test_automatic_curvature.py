"""`curvature: auto` of a LatHAdapter: candidates around the estimate, one of them kept."""

import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry.curvature import find_curvature
from geodapt.lathadapter import LatHAdapter
from geodapt.lathadapter.curvature import FACTORS, estimated_curvatures


@pytest.mark.slow
def test_an_adapter_keeps_what_was_chosen():
    """Pictures about their class texts, of unit length."""
    generator = torch.manual_seed(0)
    texts = torch.randn(4, 6, generator=generator)
    labels = torch.arange(4).repeat_interleave(5)
    images = texts[labels] + 0.8 * torch.randn(20, 6, generator=generator)
    images, texts = (torch.nn.functional.normalize(x, dim=-1) for x in (images, texts))
    candidates = estimated_curvatures(images, texts, seed=0)
    estimate = find_curvature(2 * torch.cat([images, texts])).c
    assert candidates == [estimate * factor for factor in FACTORS]

    adapter = LatHAdapter(6, attributes=3, curvature="auto")
    with pytest.raises(InputError, match="call start"):
        adapter.distances(images, texts)
    adapter.start(images, texts, 0, labels, torch.tensor(10.0))
    assert adapter.curvature in candidates
    again = LatHAdapter.from_configuration(adapter.configuration())
    assert again.curvature == adapter.curvature
