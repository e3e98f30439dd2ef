"""A learner fitted, resumed, saved, loaded and asked; the base stays as it is."""

import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from torch import nn

from geodapt.errors import InputError
from geodapt.files import hash_tensors
from geodapt.prompts import (
    ClassVectors,
    CoOp,
    MaPLe,
    PlainClip,
    PromptKD,
    PromptLearner,
    PromptSRC,
)
from geodapt.prompts.adapter import FEATURE_ADAPTERS, FeatureAdapter
from geodapt.prompts.rows import random_box
from geodapt.vision import load_clip
from tests.fitting import Log, Stopped
from tests.vision.duals import dual, pictures

NAMES = ("cat", "small bird", "red car")
SMALL = {"length": 2, "depth": 2}
HOSTS = {
    "coop": CoOp(length=2),
    "maple": MaPLe(**SMALL),
    "promptsrc": PromptSRC(**SMALL, frozen_templates=["a {}."], average_mean=2, average_std=1),
    "promptkd": PromptKD(**SMALL),
}


@dataclass(frozen=True)
class Shown:
    """Labelled pictures as learners take them."""

    names: tuple[str, ...]
    splits: dict[str, Dataset]


def shown(labels=(0, 1, 2, 0, 1, 2, 0), names=NAMES) -> Shown:
    features = Features({"image": Image(), "label": Value("int32")})
    rows = {"image": pictures(len(labels)), "label": list(labels)}
    return Shown(tuple(names), {"train": Dataset.from_dict(rows, features)})


class Shift(nn.Module):
    """An adapter that moves class vectors, with a buffer that counts epochs."""

    kind = "shift"

    def __init__(self, by: float = 0.1) -> None:
        super().__init__()
        self.by = by
        self.start_values = None
        self.moved: nn.Parameter | None = None

    def configuration(self) -> dict[str, Any]:
        return {"by": self.by, "width": self.moved.shape[0]}

    @classmethod
    def from_configuration(cls, configuration):
        made = cls(configuration["by"])
        made._make(torch.zeros(configuration["width"]))
        return made

    def _make(self, values):
        self.moved = nn.Parameter(values)
        self.register_buffer("epochs", torch.zeros(()))

    def start(self, images, texts, seed, labels=None, scale=None):
        self._make(self.by * (images.mean(0) - texts.mean(0)))

    def end_epoch(self, epoch, epochs):
        self.epochs += epoch + 1

    def refine(self, texts):
        return texts + self.moved

    def losses(self, images, texts, refined, labels, teacher, scale):
        logits = self.logits(images, refined, scale)
        if labels is None:
            return {"divergence": -(teacher.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()}
        return {"classification": nn.functional.cross_entropy(logits, labels)}

    def logits(self, images, refined, scale):
        unit = nn.functional.normalize
        return scale * unit(images, dim=-1) @ unit(refined, dim=-1).T


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(FEATURE_ADAPTERS, "shift", f"{__name__}:Shift")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved CLIP."""
    place = tmp_path_factory.mktemp("base")
    clip = dual("clip")
    clip.model.save_pretrained(place)
    clip.processor.save_pretrained(place)
    return place


def learner_of(clip, kind, adapter=True, seed=0):
    teacher = None
    if kind == "promptkd":
        teacher = PromptLearner(clip, MaPLe(length=1, depth=1), seed=4)
    return PromptLearner(
        clip, HOSTS[kind], Shift() if adapter else None, teacher=teacher, seed=seed
    )


def trained(learner, work=None, log=None, **changed):
    values = {"epochs": 3, "batch_size": 3, "learning_rate": 0.01, "save_every": 2, "log_every": 1}
    settings = learner.host.settings.training.model_copy(update={**values, **changed})
    log = log or Log()
    learner.fit(shown(), settings, work=work, log=log, forget_after=log.forget_after)
    return learner


def values_of(learner):
    return {name: value.clone() for name, value in learner.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTS)
def test_a_learner_is_fitted_saved_and_asked_for_other_names(folder, tmp_path, kind, monkeypatch):
    clip = load_clip(folder)
    base = hash_tensors(clip.model.state_dict())
    learner = learner_of(clip, kind)
    assert isinstance(learner.adapter, FeatureAdapter)
    before = values_of(PromptLearner(clip, HOSTS[kind], teacher=learner.teacher))
    log = Log()
    trained(learner, log=log)
    after = values_of(learner)
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    assert log.steps("loss") == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]  # seven rows, batches of three, the last left out
    assert after["adapter.epochs"] == 1 + 2 + 3
    assert hash_tensors(clip.model.state_dict()) == base

    learner.save(tmp_path / "tuned")
    found = PromptLearner.load(tmp_path / "tuned")
    assert values_of(found).keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in values_of(found).items())
    other = ["dog", "a bird", "car", "cat"]
    wanted = learner.logits(pictures(5), other)
    torch.testing.assert_close(found.logits(pictures(5), other), wanted)
    assert found.predict(pictures(5), other) == [other[i] for i in wanted.argmax(-1)]
    torch.testing.assert_close(found.embed(pictures(5)).norm(dim=-1), torch.ones(5))
    # Served without the text tower.
    found.export(other, tmp_path / "classes.safetensors")
    vectors = ClassVectors.load(tmp_path / "classes.safetensors")
    monkeypatch.setattr(found.clip.model, "get_text_features", None)  # it is not run
    torch.testing.assert_close(found.logits(pictures(5), vectors), wanted)
    # No name of a class stands in the weights.
    tensors = (tmp_path / "tuned" / "prompts.safetensors").read_bytes()
    assert not any(name.encode() in tensors for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["promptsrc", "promptkd"])
def test_a_resumed_learner_is_the_undisturbed_one(folder, tmp_path, kind):
    clip = load_clip(folder)
    calm = values_of(trained(learner_of(clip, kind), tmp_path / "calm"))
    log = Log()
    log.stop_at = 5  # the checkpoint before is that of the end of the second epoch
    with pytest.raises(Stopped):
        trained(learner_of(clip, kind), tmp_path / "work", log)
    log.stop_at = None
    found = values_of(trained(learner_of(clip, kind), tmp_path / "work", log))
    assert all(torch.equal(value, calm[name]) for name, value in found.items())
    assert any("running_mean" in name for name in calm) == (kind == "promptkd")


@pytest.mark.slow
def test_promptsrc_ends_with_the_average_of_its_epochs(folder):
    """Rates of about zero but in the last epoch: the average lies between start and end."""
    clip = load_clip(folder)
    start = values_of(learner_of(clip, "promptsrc", adapter=False))
    learner = learner_of(clip, "promptsrc", adapter=False)
    seen = []
    from geodapt.prompts import objective

    original = objective.Objective.after_epoch

    def watched(self, epoch):
        seen.append(values_of(self.learner))
        original(self, epoch)

    objective.Objective.after_epoch = watched
    try:
        trained(learner)
    finally:
        objective.Objective.after_epoch = original
    weights = torch.tensor([-0.5, 0.0, -0.5]).exp()  # epochs 1, 2, 3 around 2, one wide
    weights /= weights.sum()
    for name, value in values_of(learner).items():
        wanted = sum(weight * epoch[name] for weight, epoch in zip(weights, seen, strict=True))
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
        assert not torch.equal(value, start[name])


@pytest.mark.slow
def test_learners_on_one_base_do_not_disturb_each_other(folder):
    clip = load_clip(folder)
    kinds = ["coop", "maple", "promptsrc"]
    calm = values_of(trained(learner_of(clip, "maple")))
    learners = {kind: learner_of(clip, kind, adapter=False, seed=3) for kind in kinds}
    wanted = {kind: each.logits(pictures(4), NAMES) for kind, each in learners.items()}
    plain = clip.embed_images(pictures(4))
    wrong = []

    def ask(kind):
        for _ in range(6):
            learners[kind]._vectors.clear()
            if not torch.allclose(learners[kind].logits(pictures(4), NAMES), wanted[kind]):
                wrong.append(kind)
            if not torch.equal(clip.embed_images(pictures(4)), plain):
                wrong.append("plain")

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    again = values_of(trained(learner_of(clip, "maple")))
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(torch.equal(value, calm[name]) for name, value in again.items())


def test_class_vectors_follow_what_is_learned(folder):
    learner = PromptLearner(load_clip(folder), HOSTS["maple"])
    before = learner.class_vectors(NAMES)
    assert learner.class_vectors(NAMES) is before
    with torch.no_grad():
        learner.host.text[0].add_(torch.randn(learner.host.text[0].shape))
    assert (learner.class_vectors(NAMES) - before).abs().max() > 1e-3


def test_another_base_and_broken_folders_are_refused(folder, tmp_path):
    clip = load_clip(folder)
    PromptLearner(clip, HOSTS["maple"]).save(tmp_path / "tuned")
    with pytest.raises(InputError, match="has other configuration"):
        PromptLearner.load(tmp_path / "tuned", dual("siglip"))
    other = load_clip(folder)
    with torch.no_grad():
        other.model.text_projection.weight[0, 0] += 1e-3
    with pytest.raises(InputError, match="has other weights"):
        PromptLearner.load(tmp_path / "tuned", other)
    half = load_clip(folder, torch.bfloat16)
    with pytest.raises(InputError, match="other dtype: float32 then, bfloat16 now"):
        PromptLearner.load(tmp_path / "tuned", half)
    with pytest.raises(InputError, match=r"no prompts\.json"):
        PromptLearner.load(folder)
    path = tmp_path / "tuned" / "prompts.json"
    content = json.loads(path.read_text())
    for change, match in (
        ({"host": {"kind": "nobody"}}, "prompts.json: host: .*another version of geodapt"),
        ({"host": {**content["host"], "length": 3}}, "do not belong together"),
        ({"adapter": {"kind": "nobody", "configuration": {}}}, "'nobody' is unknown"),
        ({"format": 99}, "prompts.json: format: "),
        ({"base": {**content["base"], "dtype": "manual_seed"}}, "is no type"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=match):
            PromptLearner.load(tmp_path / "tuned")


def test_pictures_that_cannot_be_learned_from_are_refused(folder):
    clip = load_clip(folder)
    learner = PromptLearner(clip, HOSTS["maple"])
    for pictures_, match in (
        (shown(names=NAMES[:1], labels=(0, 0)), "1 classes; a learner needs two"),
        (shown(labels=(0, 2, 2)), "class 1 'small bird' has no training picture"),
        (shown(labels=(0, 1, 2, 3)), "label 3, but there are 3 classes"),
        (Shown(NAMES, {}), "'train' is missing"),
    ):
        with pytest.raises(InputError, match=match):
            learner.fit(pictures_)
    with pytest.raises(InputError, match="nothing to train"):
        PromptLearner(clip, PlainClip()).fit(shown())
    broken = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    cells = [{"bytes": b"no picture", "path": "one.png"}] * 2
    raw = Dataset.from_dict({"image": cells, "label": [0, 1]}, broken)
    with pytest.raises(InputError, match=r"the picture of row [01] cannot be read"):
        learner.fit(Shown(("a", "b"), {"train": raw}))
    with pytest.raises(InputError, match="the picture of row 0 cannot be read"):
        learner.predict(raw["image"], NAMES)


def test_cut_parts_lie_within_the_picture_and_have_the_share():
    import numpy as np

    random = np.random.default_rng(0)
    for width, height in ((40, 28), (7, 300), (1, 1)):
        for _ in range(50):
            left, top, right, bottom = random_box(width, height, (0.5, 1.0), random)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            if width == 40:
                assert 0.45 < (right - left) * (bottom - top) / (width * height) <= 1
