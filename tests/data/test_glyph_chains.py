"""Characters as chains: what is tuned on, what is held out, and whose pictures come with it."""

from itertools import pairwise

import pytest
from PIL import ImageChops

from geodapt.data.glyph_chains import GlyphChainSettings
from geodapt.data.glyphs import GlyphSettings, load_glyphs
from geodapt.data.loading import load_hierarchy
from geodapt.errors import InputError
from tests.tinyclip.small import SMALL

GREEK = {**SMALL["data"], "new": 0.4}


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def glyphs(_own_cache):
    return load_glyphs(GlyphSettings(**GREEK))


def load(**changes):
    return load_hierarchy(GlyphChainSettings.model_validate({"glyphs": GREEK, **changes}))


def test_training_names_no_new_character_and_has_every_other_edge(glyphs):
    found = load()
    rows = list(glyphs.classes)
    unseen = {row["name"] for row in rows if row["new"]}
    assert len(unseen) > 10
    trained = {text for chain in found.train for text in (*chain.texts, *chain.negatives)}
    assert not trained & unseen
    shown = [row["path"] for row in rows if not set(row["path"]) & unseen]
    assert [list(chain.texts) for chain in found.train] == shown
    below = sum(not row["new"] for row in rows) - len(shown)
    assert below > 0, "some character stands below a new one"
    assert found.notes == [f"{below} characters below a new one left out of training"]
    edges = {(path[n], path[n + 1]) for path in shown for n in range(len(path) - 1)}
    steps = {pair for chain in found.train for pair in pairwise(chain.texts)}
    assert steps == edges


def test_what_contradicts_is_another_text_as_general_and_not_true(glyphs):
    depth = {text: row["path"].index(text) for row in glyphs.classes for text in row["path"]}
    for chain in load().train:
        assert len(chain.negatives) == len(chain.texts) - 1
        for level, negative in enumerate(chain.negatives):
            assert negative not in chain.texts
            assert not set(negative.split()) <= set(chain.texts[-1].split())
            # A kind that has no characters here has no text below it that is as deep.
            assert depth.get(negative, 0) <= level


def test_new_characters_are_measured_by_their_pictures(glyphs):
    found = load()
    rows = {row["name"]: row for row in glyphs.classes}
    assert {chain.group for chain in found.test} == {n for n, row in rows.items() if row["new"]}
    for chain in found.test:
        assert list(chain.texts) == rows[chain.group]["path"]
        assert chain.texts[-2] in found.classes
    assert found.names == list(rows)
    assert set(found.classes) == {text for row in rows.values() for text in row["path"][:-1]}

    names, images = found.pictures.names, found.pictures.images
    new = [name for name in names if rows[name]["new"]]
    assert len(images) == len(names)
    assert len(names) - len(new) == min(len(new), len(glyphs.splits["test"]))
    assert set(new) == {chain.group for chain in found.test}
    drawn = {}
    for split in ("new", "test"):
        for row in glyphs.splits[split]:
            name = glyphs.classes[row["label"]]["name"]
            drawn.setdefault((split, name), []).append(row["image"])
    for row, name in enumerate(names):
        alike = drawn["new" if rows[name]["new"] else "test", name]
        assert any(ImageChops.difference(images[row], one).getbbox() is None for one in alike)


def test_fewer_by_chance_and_by_the_seed():
    found = load(max_train=20, max_test=5)
    assert len(found.train) == 20
    assert len(found.test) == 5
    asked = {chain.group for chain in found.test}
    assert asked <= set(found.pictures.names)
    assert load(max_train=20, max_test=5).train == found.train
    other = load(max_train=20, max_test=5, seed=1)
    assert other.train != found.train
    assert {chain.group for chain in other.test} != asked
    everything = {chain.texts for chain in load().train}
    assert {chain.texts for chain in found.train} <= everything


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"new": 0}, "0 are new, which leaves none to measure; raise data.glyphs.new"),
        ({"scripts": ["Klingon"]}, "no font has the script 'Klingon'"),
        ({"fonts": ["nowhere.ttf"]}, "nowhere.ttf' does not exist"),
    ],
)
def test_nothing_to_tune_or_measure_on(changes, said):
    with pytest.raises(InputError, match=said):
        load(glyphs={**GREEK, **changes})
