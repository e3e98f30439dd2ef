"""Trees from edges, and the built-in ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodapt.data.code_trees import CodeTreeSettings, class_tree, load_code_trees, sentence, words
from geodapt.data.edge_files import read_edges
from geodapt.data.loading import load_hierarchy
from geodapt.data.trees import EdgeSettings, Forest
from geodapt.errors import InputError

ANIMALS = [
    *(("animal", kind) for kind in ("bird", "mammal")),
    *(("bird", f"bird {n}") for n in range(30)),
    *(("mammal", f"mammal {n}") for n in range(30)),
    ("mammal 3", "mammal 3 pup"),
]


def write(path, edges, mark="\t"):
    path.write_text("parent\tchild\n" + "".join(f"{a}{mark}{b}\n" for a, b in edges))
    return EdgeSettings(path=str(path))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40))
def test_paths_lead_from_a_top_to_every_text(parents):
    edges = [(str(parent % (child + 1)), str(child + 1)) for child, parent in enumerate(parents)]
    forest = Forest("tree", edges)
    assert set(forest.paths) == {text for edge in edges for text in edge}
    for text, path in forest.paths.items():
        assert path[-1] == text
        assert path[0] in forest.tops
        assert all(forest.above[b] == a for a, b in pairwise(path))
    generator = np.random.default_rng(0)
    for text in forest.paths:
        rival = forest.contradiction(text, generator)
        if rival is not None:
            assert text not in forest.paths[rival]
            assert rival not in forest.paths[text]


@pytest.mark.parametrize("mark", ["\t", ","])
def test_edges_train_and_paths_to_held_out_leaves_test(tmp_path, mark):
    hierarchy = load_hierarchy(write(tmp_path / "animals.tsv", ANIMALS, mark))
    held_out = {chain.texts[-1] for chain in hierarchy.test}
    assert held_out
    for chain in hierarchy.test:
        assert chain.texts[0] == "animal"
        assert all(edge in ANIMALS for edge in pairwise(chain.texts))
    for chain in hierarchy.train:
        assert chain.texts in ANIMALS
        assert not held_out & {*chain.texts, *chain.negatives}
        assert chain.negatives[0] != chain.texts[0]
    assert set(hierarchy.classes) == {"animal", "bird", "mammal", "mammal 3"}
    # The only top contradicts nothing: its two edges do not train, and that is said.
    assert hierarchy.notes == ["2 edges without a contradicting text left out of training"]
    trained = sum(len(chain.texts) == 2 for chain in hierarchy.train)
    assert trained == len(ANIMALS) - 2 - len(held_out)


def test_rows_can_be_limited_and_follow_the_seed(tmp_path):
    settings = write(tmp_path / "animals.tsv", ANIMALS)
    few = load_hierarchy(settings.model_copy(update={"max_train": 5, "max_test": 2}))
    assert (len(few.train), len(few.test)) == (5, 2)
    other = load_hierarchy(settings.model_copy(update={"seed": 1}))
    assert other.test != load_hierarchy(settings).test


def test_of_two_texts_above_one_the_first_is_kept(tmp_path):
    edges = [*ANIMALS, ("swimmer", "mammal 1"), ("swimmer", "bird 1"), ("mammal", "mammal 1")]
    hierarchy = load_hierarchy(write(tmp_path / "animals.tsv", edges))
    assert "2 edges to a second text above one left out" in hierarchy.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tb\tc\n", "line 1: 3 fields; an edge has two"),
        ("animal\n", "line 1: 1 fields"),
        ("a\tb\nb\tc\nc\ta\n", "is above or below itself, by a circle"),
        ("a\ta\n", "'a' is above or below itself"),
        ("a\t\n", "line 1: a node without a name"),
        ("", "has no edges"),
        ("a\tb\nb\tc\nc\td\n", "a single line of texts has no negatives"),
    ],
)
def test_files_that_are_no_tree(tmp_path, text, said):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(InputError, match=said):
        load_hierarchy(EdgeSettings(path=str(tmp_path / "x.tsv")))


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_edges(tmp_path)


# --- built-in trees -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ArithmeticError", "arithmetic error"),
        ("sklearn.linear_model.RidgeCV", "sklearn linear model ridge cv"),
        ("HTTPServer", "http server"),
        ("Conv2d", "conv2d"),
    ],
)
def test_names_in_words(name, text):
    assert words(name) == text


def test_the_first_sentence_of_a_documentation():
    assert sentence(ValueError) == "Inappropriate argument value (of correct type)"
    assert sentence(type("Silent", (), {})) == ""


def test_classes_stand_below_what_they_are_a_kind_of():
    edges, described = class_tree(["builtins"])
    forest = Forest("classes", edges)
    path = ("base exception", "exception", "arithmetic error", "zero division error")
    assert forest.paths["zero division error"] == path
    assert "zero" in described["zero division error"]


def test_the_built_in_class_tree(tmp_path):
    hierarchy = load_code_trees(CodeTreeSettings(trees=["classes"], packages=["builtins", "io"]))
    assert hierarchy.train
    assert hierarchy.test
    # What a class says of itself is the most specific text of its path.
    assert any(chain.texts[-1].istitle() or " " in chain.texts[-1] for chain in hierarchy.test)
    assert hierarchy == load_code_trees(
        CodeTreeSettings(trees=["classes"], packages=["builtins", "io"])
    )


def test_a_package_that_is_not_there():
    with pytest.raises(InputError, match="no_such_package"):
        load_code_trees(CodeTreeSettings(trees=["classes"], packages=["no_such_package"]))


SENSES = [
    *(("thing", kind) for kind in ("place", "tool", "animal")),
    *(("place", f"place {n}") for n in range(12)),
    *(("tool", f"tool {n}") for n in range(12)),
    *(("animal", f"animal {n}") for n in range(12)),
    *((kind, "bank") for kind in ("place", "tool")),
    *(("bank", f"bank {n}") for n in range(12)),
    *((kind, "crane") for kind in ("tool", "animal")),
]


def test_a_word_of_several_meanings_is_below_each(tmp_path):
    settings = write(tmp_path / "senses.tsv", SENSES).model_copy(update={"parents": "all"})
    hierarchy = load_hierarchy(settings)
    assert "2 texts are below more than one" in hierarchy.notes
    ways = {}
    for chain in hierarchy.test:
        assert all(edge in SENSES for edge in pairwise(chain.texts))
        assert chain.group == chain.texts[-1]
        ways.setdefault(chain.group, set()).add(chain.texts)
    banks = [leaf for leaf in ways if leaf.startswith("bank")]
    assert banks
    for leaf in banks:  # a bank leads to a place and to a tool
        assert ways[leaf] == {("thing", kind, "bank", leaf) for kind in ("place", "tool")}
    trained = [chain.texts for chain in hierarchy.train]
    assert ("place", "bank") in trained
    assert ("tool", "bank") in trained
    forest = Forest("senses", SENSES, every_parent=True)
    for chain in hierarchy.train:  # what contradicts a text is not above or below it by any way
        general, (rival,) = chain.texts[0], chain.negatives
        assert rival not in forest.related(general)
    first = load_hierarchy(write(tmp_path / "senses.tsv", SENSES))
    assert "2 edges to a second text above one left out" in first.notes
    assert ("tool", "bank") not in [chain.texts for chain in first.train]


def test_a_text_far_below_many_has_no_more_paths_than_asked_for():
    """Three texts on each of 40 levels, all of them below all of the level above."""
    levels = [[f"{depth} {n}" for n in range(3)] for depth in range(40)]
    edges = [(a, b) for above, below in pairwise(levels) for a in above for b in below]
    ways = Forest("lattice", edges, every_parent=True).ways("39 0")
    assert len(set(ways)) == 16
    for way in ways:
        assert len(way) == 40
        assert set(pairwise(way)) <= set(edges)


def test_circles_are_found_below_a_second_parent():
    edges = [("top", "a"), ("a", "b"), ("b", "c"), ("c", "a")]
    with pytest.raises(InputError, match="is above or below itself"):
        Forest("circle", edges, every_parent=True)
