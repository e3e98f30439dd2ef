"""Heads: CAT-Seg's parameter counts, more classes than it takes, grids of any size."""

import pytest
import torch
from torch.nn.functional import normalize

from geodapt.errors import InputError
from geodapt.hyperclip.aggregation import SpatialBlock, linear_attention
from geodapt.hyperclip.heads import OUT, CosineHead, CostAggregation
from geodapt.hyperclip.settings import CostSettings
from geodapt.hyperclip.tuning import pixel_loss

SMALL = CostSettings(
    width=8,
    window=4,
    classes=6,
    decoder=(8, 6),
    decoder_guidance=(6, 5),
    heads=2,
    decoder_guidance_projected=(3, 2),
)


def inputs(images=2, classes=3, grid=(4, 4)):
    features = torch.randn(images, 16, *grid)
    return features, torch.randn(classes, 16), [torch.randn(images, 12, *grid) for _ in range(2)]


@pytest.mark.parametrize(
    ("embedding", "width", "head", "upsamplers"),
    [(512, 768, 2_308_961, 2_359_680), (768, 1024, 2_636_641, 3_146_112)],
    ids=["ViT-B/16", "ViT-L/14"],
)
def test_parameters_are_those_of_cat_seg(embedding, width, head, upsamplers):
    with torch.device("meta"):
        made = CostAggregation(embedding, width)
    own = sum(p.numel() for p in made.upsamplers.parameters())
    assert own == upsamplers
    assert sum(p.numel() for p in made.parameters()) == head + upsamplers


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (5, 7), (3, 9), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_any_grid(grid, training):
    head = CostAggregation(16, 12, SMALL).train(training)
    features, texts, levels = inputs(grid=grid)
    logits = head(features, texts, levels)
    assert logits.shape == (2, 3, 4 * grid[0], 4 * grid[1])
    logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_images_do_not_see_each_other():
    head = CostAggregation(16, 12, SMALL).eval()
    features, texts, levels = inputs(classes=9)
    both = head(features, texts, levels)
    for image in range(2):
        row = slice(image, image + 1)
        alone = head(features[row], texts, [level[row] for level in levels])
        torch.testing.assert_close(alone, both[row])


def test_the_order_of_classes_does_not_matter():
    head = CostAggregation(16, 12, SMALL).eval()
    features, texts, levels = inputs(classes=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        head(features, texts[order], levels),
        head(features, texts, levels)[:, order],
        rtol=1e-4,
        atol=1e-5,
    )


def test_of_300_classes_256_are_refined():
    settings = SMALL.model_copy(update={"classes": 256})
    head = CostAggregation(16, 12, settings).eval()
    features, texts, levels = inputs(classes=300, grid=(2, 2))
    with torch.no_grad():
        logits = head(features, texts, levels)
    kept = (logits != OUT).flatten(2).all(2)
    assert kept.sum(1).tolist() == [256, 256]
    cosine = torch.einsum("idhw,cd->ichw", normalize(features, dim=1), normalize(texts, dim=1))
    best = cosine.flatten(2).amax(2)
    for image in range(2):
        assert best[image][kept[image]].min() >= best[image][~kept[image]].max()
        with torch.no_grad():
            row = slice(image, image + 1)
            alone = head(features[row], texts[kept[image]], [level[row] for level in levels])
        torch.testing.assert_close(logits[row][:, kept[image]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("grid", "shift"), [((8, 8), 2), ((6, 7), 2), ((6, 7), 0), ((3, 8), 2)])
def test_window_attention_equals_a_loop_over_places(grid, shift):
    """Each place attends to those that its window holds and the roll did not bring together."""
    torch.manual_seed(0)
    block = SpatialBlock(6, 2, 4, shift).double()
    x, guidance = torch.randn(2, 1, *grid, 6, dtype=torch.float64)
    found = block.attention(x, guidance)[0]
    window = [min(4, size) for size in grid]
    own = [shift if size > 4 else 0 for size in grid]

    def part(place):  # the window and the side of the seam along each axis
        moved = [
            (p - s) % (n + -n % w) for p, s, n, w in zip(place, own, grid, window, strict=True)
        ]
        front = [p < s for p, s in zip(place, own, strict=True)]
        return [m // w for m, w in zip(moved, window, strict=True)], front

    both = torch.cat([x, guidance], -1)[0]
    q, k, v = block.query(both), block.key(both), block.value(x[0])
    places = [(i, j) for i in range(grid[0]) for j in range(grid[1])]
    for place in places:
        others = [other for other in places if part(other) == part(place)]
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            keys = torch.stack([k[other][head] for other in others])
            values = torch.stack([v[other][head] for other in others])
            heads.append((keys @ q[place][head] / 3**0.5).softmax(0) @ values)
        expected = block.out(torch.cat(heads))
        torch.testing.assert_close(found[place], expected, rtol=1e-9, atol=1e-12)


def test_linear_attention_equals_weighted_means():
    q, k, v = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    weights = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).mT
    expected = weights / weights.sum(-1, keepdim=True) @ v
    torch.testing.assert_close(linear_attention(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_cosine_head():
    features, texts, _ = inputs()
    head = CosineHead(scale=4.0, bias=-1.0)
    cosine = torch.nn.functional.cosine_similarity(
        features.unsqueeze(1), texts[None, :, :, None, None], dim=2
    )
    torch.testing.assert_close(head(features, texts), 4 * cosine - 1)
    assert sum(p.numel() for p in head.parameters()) == 2


def reference(logits, labels, ignored):
    total, count = 0.0, 0
    for image, row, column in torch.cartesian_prod(*map(torch.arange, labels.shape)):
        label = labels[image, row, column].item()
        if label == 255 and ignored == "left_out":
            continue
        for c, logit in enumerate(logits[image, :, row, column].tolist()):
            p = 1 / (1 + torch.exp(-torch.tensor(logit, dtype=torch.float64)))
            total -= torch.log(p if c == label else 1 - p).item()
            count += 1
    return total / count


@pytest.mark.parametrize("ignored", ["left_out", "negative"])
def test_loss_equals_a_loop_over_pixels(ignored):
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = 255
    found = pixel_loss(logits, labels, ignored=ignored)
    assert found.item() == pytest.approx(reference(logits, labels, ignored), rel=1e-12)


def test_loss_resizes_logits_and_leaves_void_pages_out():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    void = torch.full((1, 8, 8), 255)
    loss = pixel_loss(logits, void)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    assert pixel_loss(logits, void, ignored="negative") > 0
    with pytest.raises(InputError, match="label 2; expected 0 to 1, or 255"):
        pixel_loss(logits, torch.full((1, 8, 8), 2))


def test_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="3 heads do not divide a width of 8"):
        CostAggregation(16, 12, SMALL.model_copy(update={"heads": 3}))
