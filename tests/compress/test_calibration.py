"""Second moments against all inputs collected and multiplied."""

import pytest
import torch
from torch import nn

from geodapt.compress.calibration import moments_by_group, passes
from geodapt.compress.layers import compressible
from geodapt.errors import InputError
from geodapt.models.layer_inputs import second_moments
from tests.compress import small
from tests.compress.small import batches, seeded


def collected(model, layers, given):
    """Every input row of every layer, in float64; padding left out."""
    rows = {path: [] for path in layers}
    mask = None

    def keep(path, x):
        flat = x[mask.bool()] if x.shape[:-1] == mask.shape else x.reshape(-1, x.shape[-1])
        rows[path].append(flat.double())

    handles = [
        layer.register_forward_pre_hook(lambda m, args, path=path: keep(path, args[0]))
        for path, layer in layers.items()
    ]
    with torch.no_grad():
        for batch in given:
            mask = batch["attention_mask"]
            model(**batch)
    for handle in handles:
        handle.remove()
    return {path: torch.cat(parts) for path, parts in rows.items()}


@pytest.mark.parametrize("family", small.FAMILIES)
def test_moments_are_those_of_all_inputs(family):
    model = seeded(family)
    layers = compressible(model)
    given = batches(family)
    wanted = collected(model, layers, given)
    found = {}
    for group in moments_by_group(model, layers, given):
        found |= group
    assert list(found) == list(layers)
    for path, x in wanted.items():
        assert found[path].tokens == len(x)
        S = x.T @ x / len(x)
        torch.testing.assert_close(
            found[path].matrix.double(), S, atol=1e-5 * S.abs().max(), rtol=1e-5
        )


def test_few_layers_at_a_time():
    layers = {str(i): nn.Linear(8, 8) for i in range(9)} | {"wide": nn.Linear(16, 8)}
    groups = passes(layers)
    assert [path for group in groups for path in group] == list(layers)
    for group in groups:
        assert sum(layers[path].in_features ** 2 for path in group) <= 2 * 16**2
    assert len(groups) == 2


def test_a_batch_is_left_when_its_layers_have_seen_it(bert):
    layers = compressible(bert)
    first = {path: layer for path, layer in layers.items() if ".0." in path}
    calls = []
    bert.encoder.layer[1].register_forward_pre_hook(lambda *_: calls.append(1))
    second_moments(bert, first, batches("bert", 5))
    assert len(calls) == 1  # over the first batch the calls are counted


def test_a_layer_that_is_called_several_times_sees_all_of_them():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(4, 4)

        def forward(self, x):
            return self.shared(self.shared(x))

    model = Twice()
    given = [{"x": torch.randn(6, 4)} for _ in range(3)]
    found = second_moments(model, {"shared": model.shared}, given)["shared"]
    assert found.tokens == 36
    with torch.no_grad():
        x = torch.cat([torch.cat([b["x"], model.shared(b["x"])]) for b in given])
    torch.testing.assert_close(found.matrix, x.T @ x / 36)


def test_too_few_tokens_and_nan(bert):
    layers = compressible(bert)
    with pytest.raises(InputError, match=r"too small: layer .*output.dense has 64 inputs"):
        second_moments(bert, layers, [small.inputs("bert", 2, 30)])
    with torch.no_grad():
        bert.embeddings.LayerNorm.weight[0] = torch.nan
    with pytest.raises(InputError, match="sees NaN"):
        second_moments(bert, layers, batches("bert"))
    assert not any(layer._forward_pre_hooks for layer in layers.values())
