"""Training pictures that move and change their size, and when they begin to."""

import pytest
import torch

from geodapt.data.glyphs import load_glyphs
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.fitting import train_clip
from geodapt.tinyclip.model import train_caption_tokenizer
from geodapt.tinyclip.pairs import Pairs, normalised
from tests.tinyclip.small import SMALL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer():
    return train_caption_tokenizer(["Greek small letter alpha"], 300, 16)


def same(one, other) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_pictures_are_moved_and_zoomed_on_their_own_paper(tokenizer):
    """A dark square on grey paper keeps its form and its greys, elsewhere and in another size."""
    grey = torch.full((40, 64, 64), 200, dtype=torch.uint8)
    grey[:, 24:40, 24:40] = 20
    rows = list(range(40))

    def placed(moved, zoomed):
        pairs = Pairs(grey, [0] * 40, [["letter", "alpha"]], tokenizer, 0.0, moved, zoomed)
        found = pairs.collate(rows)["pixel_values"]
        assert torch.equal(found, pairs.collate(rows)["pixel_values"])
        return found

    assert torch.equal(placed(0, 0), normalised(grey))
    dark = (placed(0.25, 0) < 0).all(1)
    assert ((dark.sum((1, 2)) - 256).abs() < 40).all()  # of the same size
    middles = torch.stack([one.nonzero().float().mean(0) + 0.5 - 32 for one in dark])
    assert middles.abs().max() <= 16.5
    assert middles.abs().max(0).values.min() > 12  # of at most 16 pixels, either way
    sides = (placed(0, 1) < 0).all(1).sum((1, 2)).double().sqrt() / 16
    assert 0.45 < sides.min() < 0.65
    assert 1.6 < sides.max() < 2.1
    paper = normalised(grey)[0, 0, 0, 0]
    assert torch.allclose(placed(0.25, 1)[:, :, 0, 0], paper.expand(40, 3), atol=1e-5)


def test_pictures_move_in_the_later_epochs_alone(tokenizer):
    grey = torch.randint(0, 256, (8, 16, 16), dtype=torch.uint8)
    rows, chains = list(range(8)), [["letter", "alpha"]]
    pairs = Pairs(grey, [0] * 8, chains, tokenizer, 0.0, 0.25, 1.0, still=1.5)
    for epoch, moves in enumerate((False, False, True, True)):
        pairs.set_epoch(epoch)
        placed = pairs.collate(rows)["pixel_values"]
        assert torch.equal(placed, normalised(grey)) is not moves


def test_a_training_that_was_stopped_while_pictures_move_ends_alike(own_cache, tmp_path):
    small = TinyClipSettings.model_validate(SMALL)
    glyphs = load_glyphs(small.data)
    training = small.training.model_copy(update={"epochs": 4, "batch_size": 64, "save_every": 1})
    moved = {"moved": 0.25, "training": training}
    first, half, never = (
        small.model_copy(update=moved | {"still": still}) for still in (0.0, 0.5, 0.99)
    )
    steps = []
    undisturbed, _ = train_clip(
        half, glyphs, tmp_path / "a", log=lambda step, **_: steps.append(step)
    )

    def stop(step, **values):
        if step >= 0.75 * steps[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_clip(half, glyphs, tmp_path / "b", log=stop)
    again, _ = train_clip(half, glyphs, tmp_path / "b")
    assert same(again, undisturbed)
    # Two epochs of the four stand still: all or none would end elsewhere.
    for other in (first, never):
        model, _ = train_clip(other, glyphs, tmp_path / str(other.still))
        assert not same(model, undisturbed)
