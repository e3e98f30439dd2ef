"""What trains by each method: names, targets of the radius, and whether tuning learns at all."""

import numpy as np
import pytest
import torch
from PIL import Image

from geodapt.errors import InputError
from geodapt.hyperclip import OpenSegmenter, SegmenterSettings
from geodapt.hyperclip.averaging import mean_over_seeds
from geodapt.hyperclip.batches import WordBatches
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.page_classes import VOID
from geodapt.hyperclip.tuning import (
    SegmentationTuner,
    mean_text_radius,
    radius_penalty,
    start_at_radius,
)
from geodapt.hyperclip.tuning_settings import TuningSettings
from tests.vision.duals import dual

WORDS = ["cat", "dog", "bird", "car"]


def tuner(method, **settings):
    torch.manual_seed(0)
    segmenter = OpenSegmenter(dual("clip"), SegmenterSettings(templates=["{}"], window=32))
    given = TuningSettings(**{"lora_rank": 2, **settings})
    return SegmentationTuner(segmenter, TuningMethod.parse(method), given)


def fetch(row):
    """A picture whose quarters have colours of their own, one for each word."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 3), dtype=np.uint8)
    words = np.roll(np.arange(4), row).reshape(2, 2).repeat(16, 0).repeat(16, 1)
    mask = words.copy()
    mask[:2] = VOID
    return Image.fromarray(colours[words]), mask


def batches(made):
    return WordBatches(4, fetch, WORDS, range(4), made.segmenter.clip, 4, 32)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("lora", "LoRA"),
        ("oft-8", "OFT, blocks of 8"),
        ("hyperclip-32", "HyperCLIP, blocks of 32"),
        ("hyperclip-8-shared-text", "HyperCLIP, blocks of 8, shared, texts only"),
        ("hyperclip-1-image-radius-6.5", "HyperCLIP, blocks of 1, images only, radius 6.5"),
        ("hyperclip-1-radius-auto", "HyperCLIP, blocks of 1, radius chosen"),
    ],
)
def test_names(name, label):
    assert TuningMethod.parse(name).label == label


@pytest.mark.parametrize(
    "name",
    ["", "oft", "oft-0", "hyperclip-", "hyperclip-8-text-shared", "lora-text", "hyperclip-8-"],
)
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=r"is unknown; there are frozen, full"):
        TuningMethod.parse(name)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hyperclip-8", "lora", "oft-8"])
def test_four_pictures_are_learnt_by_heart(method):
    rates = {"hyperclip": 5e-2, "lora": 5e-2, "oft": 5e-2}
    made = tuner(method, learning_rates=rates)
    batch = batches(made).collate([0, 1, 2, 3])
    made.calibrate(**batch)
    groups = made.groups()
    assert groups[1]["lr"] == rates[method.split("-")[0]]
    optimizer = torch.optim.Adam([{**group} for group in groups], lr=5e-2)
    first = None
    for _ in range(60):
        loss = made(**batch)["loss"]
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first
    tuned = made(**batch)["loss"]
    made.tuned.merge()  # what was tuned is in the model's own weights now
    torch.testing.assert_close(made(**batch)["loss"], tuned, rtol=1e-4, atol=1e-5)
    names = [name for name, _ in made.segmenter.named_modules()]
    assert all("lora" not in name and "oft" not in name for name in names)


@torch.no_grad()
def test_at_first_the_sigmoids_of_a_place_add_up_to_about_one():
    made = tuner("frozen")
    batch = batches(made).collate([0, 1, 2, 3])
    made.calibrate(**batch)
    assert made.segmenter.head.log_scale.exp().item() == pytest.approx(
        made.segmenter.clip.scale.item()
    )
    logits = made.segmenter(batch["pixels"], made.segmenter.word_vectors(WORDS))
    assert 0.5 < logits.sigmoid().sum(1).mean() < 1.5


def test_texts_are_brought_to_a_radius():
    made = tuner("hyperclip-8")
    clip = made.segmenter.clip
    before = mean_text_radius(clip, WORDS)
    with torch.no_grad():
        tokens = clip.tokens(WORDS)
        norms = 2 * clip.texts.vectors(tokens).norm(dim=1)
        assert before == pytest.approx(norms.mean().item())
        expected = ((norms / 3 - 1) ** 2).mean()
        torch.testing.assert_close(radius_penalty(clip.texts.vectors(tokens), 3.0), expected)
        directions = clip.text_vectors(tokens)
    target = 0.9 * before
    start_at_radius(made, WORDS, target, 40, 1e-2)
    assert abs(mean_text_radius(clip, WORDS) - target) < 0.8 * abs(before - target)
    with torch.no_grad():
        assert (clip.text_vectors(tokens) * directions).sum(1).min() > 0.9


def test_means_over_seeds():
    runs = [
        {"miou": 0.2, "n": 3, "peak_memory_mb": 5.0, "draws": {"miou": [0.1, 0.3]}, "other": 1.0},
        {"miou": 0.4, "n": 3, "peak_memory_mb": 7.0, "draws": {"miou": [0.3, 0.5]}},
    ]
    row = mean_over_seeds(runs)
    assert row["miou"] == pytest.approx(0.3)
    assert row["n"] == 3
    assert row["peak_memory_mb"] == 7.0
    assert "other" not in row
    assert row["miou_interval"] == pytest.approx([0.205, 0.395])
    assert row["miou_spread"] == pytest.approx(0.02**0.5)


def test_rotations_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="blocks of 5 do not divide a width of"):
        tuner("oft-5")
