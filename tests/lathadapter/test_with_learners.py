"""LatHAdapter in every prompt learner: fitted, saved, and asked for other names."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from geodapt.data.vision import LABELLED
from geodapt.files import hash_tensors
from geodapt.lathadapter import LatHAdapter
from geodapt.prompts import CoOp, MaPLe, PlainClip, PromptKD, PromptLearner, PromptSRC
from geodapt.training import TrainingSettings
from geodapt.vision import load_clip
from tests.vision.duals import dual, pictures

NAMES = ("cat", "small bird", "red car")
DEEP = {"length": 2, "depth": 2}
HOSTS = {
    "none": PlainClip(),
    "coop": CoOp(length=2),
    "maple": MaPLe(**DEEP),
    "promptsrc": PromptSRC(**DEEP, frozen_templates=["a {}."], average_mean=2, average_std=1),
    "promptkd": PromptKD(**DEEP),
}
TRAINING = TrainingSettings(epochs=3, batch_size=3, optimizer="sgd", learning_rate=0.01)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    made = dual("clip")
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return load_clip(str(folder))


@pytest.fixture(scope="module")
def shown():
    rows = {"image": pictures(6), "label": [0, 1, 2, 0, 1, 2]}
    return SimpleNamespace(names=NAMES, splits={"train": Dataset.from_dict(rows, LABELLED)})


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_fitted_saved_and_asked_for_other_names(host, clip, shown, tmp_path):
    width = clip.model.config.projection_dim
    teacher = PromptLearner(clip, PlainClip()) if host == "promptkd" else None
    adapter = LatHAdapter(width, attributes="auto")
    learner = PromptLearner(clip, HOSTS[host], adapter=adapter, teacher=teacher)
    before = hash_tensors(clip.model.state_dict())
    learner.fit(shown, TRAINING, seed=1)
    assert hash_tensors(clip.model.state_dict()) == before
    started = LatHAdapter(width, attributes="auto")
    assert adapter.first_number is not None
    assert 1 <= adapter.number <= 2 * adapter.first_number
    assert started.number == 0
    learner.save(tmp_path / "tuned")
    loaded = PromptLearner.load(tmp_path / "tuned", clip)
    images, names = pictures(3), ["tabby cat", "lynx"]
    logits = learner.logits(images, names)
    assert logits.shape == (3, 2)
    assert torch.equal(loaded.logits(images, names), logits)
    assert set(learner.predict(images, names)) <= set(names)
    bare = PromptLearner(clip, HOSTS[host], teacher=teacher)
    bare.fit(shown, TRAINING, seed=1) if host != "none" else None
    assert not torch.allclose(bare.logits(images, names), logits)
