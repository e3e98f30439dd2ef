"""The recipe on Greek letters: two protocols, its page, what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from geodapt.data.glyphs import GlyphSettings, load_glyphs
from geodapt.prompts import CoOp, MaPLe, PromptKD, PromptLearner
from geodapt.prompts.protocols import harmonic_mean
from geodapt.prompts.recipe import PromptsRecipe
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.fitting import save_clip, untrained_clip
from tests.commands import call
from tests.tinyclip.small import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

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
    "adapter": ["none"],
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
    assert '"name": "MaPLe"' in page
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
        (["adapter=lathadapter", "lathadapter={curvature: -1}"], "LatHAdapter, curvature"),
        (["every_host={deep: 1}"], "no host has the key"),
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
    differences = found["prompts"]["differences"]
    assert [one["host"] for one in differences] == ["CLIP", "MaPLe"]
    for one, plain in zip(differences, ("clip-none-0", "maple-none-1"), strict=True):
        host = one["host"].lower()
        main = [rows[name]["harmonic_mean"] for name in (f"{host}-lathadapter-1", plain)]
        assert one["difference"] == pytest.approx(main[0] - main[1])
        assert one["low"] <= one["high"]
        assert one["detectable"] == pytest.approx(2.8 / 3.92 * (one["high"] - one["low"]))
        assert one["pairs"] == 2
    assert "What the adapter adds" in (world / "adapted" / "report.html").read_text()
    learner = PromptLearner.load(world / "adapted" / "model")
    assert learner.adapter.number == 3


def test_several_sets_a_tuned_teacher_and_a_variant_of_the_adapter(world):
    data = RECIPE["data"]
    done = call(
        world,
        *("run", "greek.yaml", "learner=[promptsrc,promptkd]", "adapter=[none,flat]"),
        *("seeds=[1]", "teacher=tuned", "lathadapter={attributes: 3}"),
        "every_host={depth: 1, flip: false, training: {epochs: 1, batch_size: 4}}",
        "variants={flat: {space: flat}}",
        "promptsrc={template: '{}', words: null, frozen_templates: ['{}']}",
        "promptkd={template: '{}', transductive: true}",
        f"further=[{json.dumps({**data, 'of': 'Greek capital letter'})}]",
        *("--out", "taught"),
    )
    assert done.code == 0, done.err
    found = json.loads((world / "taught" / "results.json").read_text())
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == [
        *("promptsrc-none-1", "promptsrc-flat-1", "promptkd-none-1", "promptkd-flat-1"),
    ]
    # The leak is named, in the row itself and on the page.
    assert rows["promptkd-none-1"]["label"] == "PromptKD (shown the new classes)"
    assert "transductive" in (world / "taught" / "report.html").read_text()
    runs = [one for one in found["prompts"]["runs"] if one["host"] == "promptsrc"]
    titles = ["Greek small letter", "Greek capital letter"]
    assert [one["set"] for one in runs] == [*titles, *titles]
    row = rows["promptsrc-none-1"]
    assert row["base"] == pytest.approx(sum(one["parts"]["base"] for one in runs[:2]) / 2)
    assert [one["pairs"] for one in found["prompts"]["differences"]] == [2, 2]
    # A teacher stands on its own set's draw, and is the PromptSRC of the table.
    teachers = sorted((world / "taught" / "teachers").iterdir())
    classes = [set(PromptLearner.load(folder).classes) for folder in teachers]
    assert len(classes) == 2
    assert not classes[0] & classes[1]
    student = PromptLearner.load(world / "taught" / "model")
    assert student.adapter.settings.space == "flat"
    assert set(student.classes) > set(student.teacher.classes)  # it was shown the new ones, too


def test_characters_that_the_base_was_shown_are_not_called_new():
    changed = {**RECIPE, "base": "clip-glyphs", "data": {**RECIPE["data"], "shown": "new"}}
    with pytest.raises(ValueError, match=r"glyphs.fonts is .* characters called new would not be"):
        PromptsRecipe.model_validate(changed)
    trained = {"data": {**SMALL["data"], "new": 0.3}}
    with pytest.raises(ValueError, match=r"glyphs.new is 0.2, but .* 0.3"):
        PromptsRecipe.model_validate({**changed, "glyph_base": trained})
    PromptsRecipe.model_validate({**changed, "glyph_base": {"data": SMALL["data"]}})
    for change, match in (
        ({"adapter": ["none", "steep"]}, "'steep' is unknown; there are none, lathadapter"),
        ({"variants": {"none": {}}}, "'none' has a meaning already"),
        ({"teacher_base": "somewhere"}, "a teacher that is tuned here"),
        ({"protocol": "domain", "further": [RECIPE["data"]]}, "leave further out"),
    ):
        with pytest.raises(ValueError, match=match):
            PromptsRecipe.model_validate({**RECIPE, **change})


def test_values_of_every_host_stand_below_those_of_a_host():
    for name in ("clip", "coop", "promptsrc"):  # the first two have no depth
        settings = PromptsRecipe.model_validate({**RECIPE, "learner": name})
        assert settings.host(name).training.epochs == 2
        assert getattr(settings.host(name), "depth", 1) == 1
    own = {"depth": 3, "training": {"epochs": 7}}
    for given in (own, PromptKD.model_validate(own)):
        host = PromptsRecipe.model_validate({**RECIPE, "promptkd": given}).host("promptkd")
        assert (host.depth, host.flip) == (3, False)
        assert host.training.epochs == 7
        assert host.training.optimizer == "sgd"  # the authors'
    settings = PromptsRecipe.model_validate(
        {**RECIPE, "every_host": {"training": {"epochs": 9}}, "maple": own}
    )
    assert PromptsRecipe.model_validate(settings.model_dump()) == settings
    small = settings.small()
    assert {small.host(name).training.epochs for name in ("maple", "coop")} == {2}


def test_a_host_trains_as_its_authors_but_for_what_is_given():
    for host, changed in ((MaPLe, {"epochs": 3}), (CoOp, {"learning_rate": 0.1})):
        expected = {**host().training.model_dump(), **changed}
        assert host(training=changed).training.model_dump() == expected
    with pytest.raises(ValueError, match="trains by epochs"):
        MaPLe(training={"steps": 10})


def test_values_for_every_host_are_checked():
    changed = {**RECIPE, "every_host": {"depth": 0}}
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        PromptsRecipe.model_validate(changed)
