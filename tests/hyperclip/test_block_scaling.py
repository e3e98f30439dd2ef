"""One block scaling: its forms equal each other and a dense reference."""

import pytest
import torch

from geodapt.errors import InputError
from geodapt.hyperclip import BlockScaling
from geodapt.hyperclip.scaling import mobius_scaled

WIDTH, OUT, TOKENS = 24, 20, 7
SHAPES = [(1, False), (1, True), (4, False), (4, True), (24, False)]


@pytest.fixture(params=SHAPES, ids=str)
def scaling(request):
    block, shared = request.param
    made = BlockScaling(WIDTH, block, shared, torch.float64)
    with torch.no_grad():
        made.delta.normal_(std=0.3)
    return made


def dense(scaling) -> torch.Tensor:
    """S written out entry by entry."""
    n, matrix = scaling.block, torch.eye(WIDTH, dtype=torch.float64)
    for k in range(WIDTH // n):
        block = scaling.delta[0 if len(scaling.delta) == 1 else k]
        for i in range(n):
            for j in range(n):
                matrix[k * n + i, k * n + j] += block[i, j].item()
    return matrix


def test_forms_and_their_gradients_equal_a_dense_matrix(scaling):
    weight = torch.randn(OUT, WIDTH, dtype=torch.float64)
    h = torch.randn(3, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, TOKENS, OUT, dtype=torch.float64)

    def mobius(c):
        return h @ mobius_scaled(weight, scaling.matrix(), c, clamps=False).T

    forms = {
        "activation": scaling(h) @ weight.T,
        "weight": h @ scaling.weight(weight).T,
        "mobius, c = 0.01": mobius(0.01),
        "mobius, c = 0.1": mobius(0.1),
        "folded": h @ scaling.folded(weight).T,
    }
    expected = h @ (weight @ dense(scaling).T).T
    torch.testing.assert_close(scaling.matrix(), dense(scaling), rtol=0, atol=1e-15)
    gradients = {}
    for name, found in forms.items():
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=name)
        if name != "folded":
            loss = ((found - target) ** 2).sum()
            gradients[name] = torch.autograd.grad(loss, [scaling.delta, h])
    for name, found in gradients.items():
        for own, other in zip(found, gradients["activation"], strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-10, msg=name)


def test_clamped_mobius_form_differs_only_where_a_row_is_long():
    scaling = BlockScaling(WIDTH, 4, dtype=torch.float64)
    with torch.no_grad():
        scaling.delta.normal_(std=0.05)
    weight = torch.randn(OUT, WIDTH, dtype=torch.float64)
    short, long_ = weight / weight.norm(dim=1, keepdim=True), weight * 5
    for c, rows, equal in ((0.01, short, True), (0.01, long_, True), (1.0, long_, False)):
        found = mobius_scaled(rows, scaling.matrix(), c)
        assert torch.allclose(found, scaling.weight(rows), rtol=1e-10) == equal
    rows = torch.zeros(1, WIDTH, dtype=torch.float64)
    mobius_scaled(rows, scaling.matrix(), 1.0).sum().backward()
    assert torch.isfinite(scaling.delta.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("block", "shared"), SHAPES)
def test_starts_as_the_identity_bit_by_bit(dtype, block, shared):
    scaling = BlockScaling(WIDTH, block, shared)
    rows = torch.randn(5, WIDTH).to(dtype)
    for found in (scaling(rows), scaling.weight(rows), scaling.folded(rows)):
        assert found.dtype == dtype
        assert torch.equal(found, rows)


def test_parameters_are_counted_as_in_the_paper():
    """ViT-B/16: 12 layers of width 768 and 12 of width 512, three matrices, blocks of 128."""
    counts = [BlockScaling(width, 128).delta.numel() for width in (768, 512)]
    assert 12 * 3 * sum(counts) == 5_898_240  # 5.625 * 2^20
    assert BlockScaling(768, 128, shared=True).delta.numel() == 128**2
    assert BlockScaling(768, 1).delta.numel() == 768


def test_the_cheaper_form_is_chosen_by_shape():
    """As measured: the weight form pays once per layer, not per token."""
    assert BlockScaling(768, 128).cheaper_form(577, 768) == "activation"
    assert BlockScaling(768, 768).cheaper_form(577, 768) == "activation"
    assert BlockScaling(512, 128).cheaper_form(13167, 512) == "weight"
    assert BlockScaling(128, 128).cheaper_form(2056, 128) == "weight"


@pytest.mark.parametrize("block", [0, 5, 48])
def test_a_block_that_does_not_divide_the_width_is_refused(block):
    with pytest.raises(InputError, match=r"do not divide a width of 24; give one of 1, 2, 3, 4, 6"):
        BlockScaling(WIDTH, block)
