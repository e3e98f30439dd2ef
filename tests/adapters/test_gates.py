"""Gates as values."""

import pytest

from geodapt.adapters import Mix, Off, Route, TopAtoms
from geodapt.errors import InputError


def test_gates_are_equal_and_hash_by_what_they_say():
    assert Mix({"toys": 1, "books": 0}) == Mix({"toys": 1.0})
    assert len({Off(), Off(), Route(["toys", None]), Route([{"toys": 1.0}, None])}) == 2
    assert TopAtoms(2, Mix({"toys": 1.0})) != TopAtoms(3, Mix({"toys": 1.0}))


@pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, True, "all"])
def test_top_atoms_refuses_what_is_no_number_of_terms(keep):
    with pytest.raises(InputError, match="TopAtoms keeps"):
        TopAtoms(keep)


def test_top_atoms_refuses_other_wrong_arguments():
    with pytest.raises(InputError, match="per 'token' or per 'sequence'"):
        TopAtoms(2, per="layer")
    with pytest.raises(InputError, match="within a Mix or a Route"):
        TopAtoms(2, Off())


@pytest.mark.parametrize(
    ("keep", "ranks", "count"),
    [(None, [4, 2, 3], 3), (None, [], 0), (5, [4], 4), (0.5, [4, 3], 4), (1.0, [4, 3], 7)],
)
def test_how_many_atoms_stay(keep, ranks, count):
    assert TopAtoms(keep).count(ranks) == count
