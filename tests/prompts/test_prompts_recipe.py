"""The recipe on Greek letters: two protocols, its page, what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from geodapt.data.glyphs import GlyphSettings, load_glyphs
from geodapt.prompts import PromptLearner
from geodapt.prompts.protocols import harmonic_mean
from geodapt.prompts.recipe import PromptsRecipe
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.fitting import save_clip, untrained_clip
from tests.commands import call
from tests.tinyclip.small import SMALL

pytestmark = pytest.mark.usefixtures("own_cache")

RECIPE = {
    "recipe": "prompts",
    "title": "Greek letters",
    "base": "base",
    "data": {
        "kind": "characters",
        "of": "Greek small letter",
        "shown": "all",
        "train_fonts": ["DejaVu Sans"],
        "tested_in": 1,
        "classes": 7,
        "glyphs": SMALL["data"],
    },
    "learner": ["clip", "maple"],
    "shots": [1],
    "seeds": [1, 2],
    "clip": {"template": "{}"},
    "maple": {"template": "{}", "words": None},
    "every_host": {
        "depth": 1,
        "flip": False,
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.1},
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_cache) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    glyphs = load_glyphs(GlyphSettings(**SMALL["data"]))
    save_clip(*untrained_clip(TinyClipSettings(**SMALL), glyphs), folder / "base")
    (folder / "greek.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def test_a_run_asks_for_base_and_new_classes(world):
    done = call(world, "run", "greek.yaml", "--out", "halves")
    assert done.code == 0, done.err
    found = json.loads((world / "halves" / "results.json").read_text())
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["clip-none-0", "maple-none-1"]
    runs = [one for one in found["prompts"]["runs"] if one["host"] == "maple"]
    assert [one["run_seed"] for one in runs] == [1, 2]
    row = rows["maple-none-1"]
    assert row["base"] == pytest.approx(sum(one["parts"]["base"] for one in runs) / 2)
    assert row["harmonic_mean"] == pytest.approx(harmonic_mean(row["base"], row["new"]))
    assert row["trainable_parameters"] > 0 == rows["clip-none-0"]["trainable_parameters"]
    page = (world / "halves" / "report.html").read_text()
    assert "Base against new" in page
    # The model of the run: the last learner of the first seed, as it was measured.
    learner = PromptLearner.load(world / "halves" / "model")
    assert len(learner.classes) == 4  # the first half of seven


def test_few_shots_of_one_host_by_keys(world):
    done = call(
        world,
        *("run", "greek.yaml", "protocol=few-shot", "learner=maple", "shots=[1]", "seeds=[1]"),
        *("--out", "few"),
    )
    assert done.code == 0, done.err
    found = json.loads((world / "few" / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["maple-none-1"]
    assert 0 <= found["rows"][0]["accuracy"] <= 1
    assert "Accuracy against shots" in (world / "few" / "report.html").read_text()


def test_what_does_not_fit_is_refused_before_anything_is_written(world):
    for changed, match in (
        (["maple.depth=3", "every_host={}"], "depth 3 is over the 1 layers"),
        (["shots=[30]"], "fewer than"),
        (["learner=promptkd"], "needs a teacher"),
        (["protocol=cross"], "needs others"),
        (["every_host={deep: 1}"], "no host that runs has the key"),
    ):
        done = call(world, "run", "greek.yaml", *changed, "--out", "refused")
        assert done.code == 2, done.out
        assert match in " ".join(done.err.split())
        assert not (world / "refused" / "results.json").exists()


def test_an_adapter_is_compared_pair_by_pair_and_saved_with_its_host(world):
    done = call(
        world,
        *("run", "greek.yaml", "learner=[clip,maple]", "adapter=[none,lathadapter]"),
        *("lathadapter={attributes: 3}", "--out", "adapted"),
    )
    assert done.code == 0, done.err
    found = json.loads((world / "adapted" / "results.json").read_text())
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == [
        *("clip-none-0", "clip-lathadapter-1", "maple-none-1", "maple-lathadapter-1"),
    ]
    (difference,) = found["prompts"]["differences"]
    main = [rows[f"maple-{name}-1"]["harmonic_mean"] for name in ("lathadapter", "none")]
    assert difference["difference"] == pytest.approx(main[0] - main[1])
    assert difference["low"] <= difference["high"]
    assert "What the adapter adds" in (world / "adapted" / "report.html").read_text()
    learner = PromptLearner.load(world / "adapted" / "model")
    assert learner.adapter.number == 3


def test_values_for_every_host_are_checked():
    changed = {**RECIPE, "every_host": {"depth": 0}}
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        PromptsRecipe.model_validate(changed)
