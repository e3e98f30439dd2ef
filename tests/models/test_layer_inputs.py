"""What layers see: the sample beside all inputs. The second moments are held in tests/compress."""

import torch
from torch import nn

from geodapt.models import sample_inputs


def test_a_sample_is_uniform_over_the_tokens_that_count():
    layer = nn.Linear(1, 1)
    model = nn.ModuleDict({"layer": layer})
    model.forward = lambda x, attention_mask: layer(x)
    batches = [
        {
            "x": torch.arange(20 * b, 20 * b + 20.0).view(2, 10, 1),
            "attention_mask": torch.tensor([[1] * 10, [1] * 5 + [0] * 5]),
        }
        for b in range(20)
    ]
    counted = {20 * b + i for b in range(20) for i in range(15)}
    everything = sample_inputs(model, {"layer": layer}, batches, tokens=1000)["layer"]
    assert everything.flatten().tolist() == sorted(counted)
    some = sample_inputs(model, {"layer": layer}, batches, tokens=60)["layer"].flatten().tolist()
    assert len(set(some)) == 60
    assert set(some) <= counted
    early = sum(value < 200 for value in some)
    assert 15 < early < 45  # of 30 expected
    assert not layer._forward_pre_hooks
    assert sample_inputs(model, {"never": nn.Linear(1, 1)}, batches) == {}
