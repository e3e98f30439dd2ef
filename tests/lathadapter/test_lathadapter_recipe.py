"""The recipe on features: trained, compared in pairs, repeated, resumed, shown."""

import json
import shutil
from pathlib import Path

import matplotlib
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from geodapt.errors import InputError
from geodapt.lathadapter import LatHAdapter
from geodapt.lathadapter.fitting import epoch_rate, fit_on_features
from geodapt.lathadapter.recipe import FeatureTraining, LatHAdapterRecipe
from geodapt.lathadapter.report import PAGE
from geodapt.pages.section import RunRecord
from geodapt.prompts.adapter import read_feature_adapter
from geodapt.runs import RunFolder
from tests.vision.duals import dual

pytestmark = pytest.mark.slow

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    clip = dual("clip")
    clip.model.save_pretrained(folder)
    clip.processor.save_pretrained(folder)
    return folder


def recipe(base, **changes):
    fonts = [
        str(FONTS / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif")
    ]
    data = {
        "kind": "characters",
        "of": "Greek letter",
        "glyphs": {"fonts": fonts, "scripts": ["Greek"], "size": 16, "new": 0.5, "shifted": []},
        "train_fonts": ["*Sans*"],
        "tested_in": 1,
        "classes": 12,
    }
    given = {
        "base": str(base),
        "data": data,
        "shots": 2,
        "seeds": [1, 2],
        "variants": {
            "full": {},
            "refiner only": {"losses": ["classification"], "hyperbolic_scale": 0},
        },
        "training": {"epochs": 3, "batch_size": 4},
        **changes,
    }
    return LatHAdapterRecipe.model_validate(given)


@pytest.fixture(scope="module")
def ran(clip_folder, tmp_path_factory, own_cache):
    place = tmp_path_factory.mktemp("run")
    return place, recipe(clip_folder).run(RunFolder(place))


def figures(found):
    costs = ("seconds", "peak_memory_mb")
    return [{key: row[key] for key in row if key not in costs} for row in found["rows"]]


def test_rows_and_paired_differences(ran):
    _, found = ran
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["plain", "full", "refiner only"]
    for row in rows.values():
        base, new = row["base"], row["new"]
        wanted = 2 * base * new / (base + new) if base + new else 0
        assert row["harmonic_mean"] == pytest.approx(wanted)
    assert rows["plain"]["trainable_parameters"] == 0
    details = found["lathadapter"]
    last = details["attributes"]["full"][0]
    assert rows["full"]["trainable_parameters"] % (2 * last["first"]) == 0
    for one in details["differences"]:
        wanted = rows[one["variant"]]["harmonic_mean"] - rows["plain"]["harmonic_mean"]
        assert one["difference"] == pytest.approx(wanted)
        assert one["low"] <= one["high"]
        assert one["pairs"] == 2


def test_a_run_that_was_stopped_goes_on_to_the_same_figures(ran, clip_folder, tmp_path):
    """One stage is done, the others are computed anew; what is kept loads again."""
    place, found = ran
    (tmp_path / "stages").mkdir()
    shutil.copy(place / "stages" / "variant-plain.json", tmp_path / "stages")
    assert figures(recipe(clip_folder).run(RunFolder(tmp_path))) == figures(found)
    for folder in (place, tmp_path):
        copy = read_feature_adapter(folder / "model")
        assert copy.number == found["lathadapter"]["attributes"]["full"][0]["last"]
    same = [load_file(folder / "model/adapter.safetensors") for folder in (place, tmp_path)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])


def test_the_page_has_a_disk_and_strips(ran):
    _, found = ran
    record = RunRecord(json.loads(json.dumps(found)), [], "")
    sections = [section(record) for section in PAGE.sections]
    assert all(sections)
    places = found["lathadapter"]["page"]["disk"]
    assert all(x**2 + y**2 < 1 for x, y in zip(places["x"], places["y"], strict=True))
    assert {"class", "attribute", "picture"} == set(places["kind"])
    assert "Greek" in places["text"][0]
    assert [section(RunRecord({}, [], "")) for section in PAGE.sections] == [None] * 3


def test_features_are_learned():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(6, 16, generator=generator)
    labels = torch.arange(6).repeat(8)
    images = texts[labels] + 0.8 * torch.randn(48, 16, generator=generator)
    scale = torch.tensor(20.0)
    logs = []
    made = [
        fit_on_features(
            LatHAdapter(16, attributes=4),
            images,
            labels,
            texts,
            scale,
            FeatureTraining(epochs=12, learning_rate=0.05),
            seed=3,
            log=lambda epoch, terms: logs.append(sum(terms.values())),
        )
        for _ in range(2)
    ]
    assert torch.equal(made[0].attributes, made[1].attributes)
    assert logs[11] < logs[0]
    with pytest.raises(InputError, match="the loss is"):
        fit_on_features(
            made[0], images, labels, texts, torch.tensor(torch.inf), FeatureTraining(), seed=0
        )


def test_the_schedule_is_the_one_of_prompt_learners():
    """MaPLe's five epochs at 0.0035."""
    training = FeatureTraining(epochs=5, learning_rate=0.0035)
    rates = [epoch_rate(training, epoch) for epoch in range(5)]
    assert rates == pytest.approx([1e-5, 0.0035, 0.00317, 0.00229, 0.00121], abs=5e-6)


def test_what_is_refused(clip_folder, own_cache, tmp_path):
    with pytest.raises(ValidationError, match="'plain' is the CLIP"):
        recipe(clip_folder, variants={"plain": {}})
    with pytest.raises(ValidationError, match="1 stands twice"):
        recipe(clip_folder, seeds=[1, 1])
    with pytest.raises(ValidationError, match="colour"):
        recipe(clip_folder, variants={"full": {"colour": 1}})
    with pytest.raises(InputError, match="fewer than the 9 shots"):
        recipe(clip_folder, shots=9).run(RunFolder(tmp_path / "run"))
