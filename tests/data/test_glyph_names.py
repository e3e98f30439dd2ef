"""The tree of Unicode names, over all of Unicode; captions and what contradicts them."""

import sys
import unicodedata
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodapt.data.glyphs.taxonomy import path, phrase, script
from geodapt.data.glyphs.tree import Tree, chain, contradictions
from geodapt.errors import InputError


@cache
def every() -> dict[str, tuple[str, ...]]:
    """The paths of all characters; seconds of work that not every import of this is to do."""
    return {
        character: found
        for code in range(sys.maxunicode + 1)
        if (found := path(character := chr(code)))
    }


@cache
def tree() -> Tree:
    return Tree(every().values())


def test_all_of_unicode_is_one_tree():
    assert len(every()) > 40_000
    for character, found in every().items():
        assert len(found) >= 4, found
        assert len(set(found)) == len(found), found
        assert tree().path(found[-1]) == found
        assert found[-1].lower() == unicodedata.name(character).lower()


def test_no_two_characters_share_a_caption_whatever_its_case():
    names = {found[-1].lower() for found in every().values()}
    assert len(names) == len(every())
    # A caption between kind and name is the name of a character or of no character.
    assert len({caption.lower() for caption in tree().parent}) == len(tree().parent)


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        (
            "á",
            "letter > Latin letter > Latin small letter A > Latin small letter A with acute",
        ),
        ("a", "letter > Latin letter > Latin small letter > Latin small letter A"),
        (
            "ấ",
            "letter > Latin letter > Latin small letter A with circumflex > "
            "Latin small letter A with circumflex and acute",
        ),
        (
            "ά",
            "letter > Greek letter > Greek small letter alpha > "
            "Greek small letter alpha with tonos",
        ),
        ("Ж", "letter > Cyrillic letter > Cyrillic capital letter > Cyrillic capital letter zhe"),
        (
            "ﺒ",
            "letter > Arabic letter > Arabic letter beh > Arabic letter beh medial form",
        ),
        ("ﬁ", "letter > Latin letter > Latin ligature > Latin small ligature fi"),
        # In a ligature "with" joins its letters.
        (
            "ﻼ",
            "letter > Arabic letter > Arabic ligature > Arabic ligature lam with alef final form",
        ),
        ("٣", "number > digit > Arabic-Indic digit > Arabic-Indic digit three"),
        ("7", "number > digit > Western digit > digit seven"),
        ("⒈", "number > digit > Western digit and stop > digit one full stop"),
        ("½", "number > fraction > vulgar fraction > vulgar fraction one half"),
        ("ⅷ", "number > numeral > small Roman numeral > small Roman numeral eight"),
        ("²", "number > digit > superscript digit > superscript two"),
        ("↚", "symbol > arrow > leftwards arrow > leftwards arrow with stroke"),
        ("←", "symbol > arrow > arrow pointing leftwards > leftwards arrow"),
        ("≤", "symbol > mathematical operator > order relation > less-than or equal to"),
        (
            "┼",
            "symbol > box drawing > light box drawing > box drawings light vertical and horizontal",
        ),
        ("■", "symbol > geometric shape > black geometric shape > black square"),
        (
            "⠇",
            "symbol > Braille pattern > Braille pattern of 3 dots > Braille pattern dots-123",
        ),
        ("♔", "symbol > game piece > chess piece > white chess king"),
        ("€", "symbol > sign > sign of a currency > euro sign"),
        ("Ⓐ", "symbol > enclosed letter > circled letter > circled Latin capital letter A"),
        ("(", "punctuation mark > bracket > opening bracket > left parenthesis"),
        ("—", "punctuation mark > line in a text > dash > em dash"),
        ("☃", "symbol > pictograph > other pictograph > snowman"),
    ],
)
def test_chains(character, expected):
    found = chain(path(character))
    assert len(found) == 4
    assert " > ".join(found) == expected


@pytest.mark.parametrize("character", ["\n", " ", "\u0301", "\ue000", "\u200b", "中", "\U000f0000"])
def test_what_has_no_name_or_look_has_no_place(character):
    assert path(character) == ()


def test_scripts_and_phrases():
    assert [script(character) for character in "aбא+ᐁ"] == [
        *("Latin", "Cyrillic", "Hebrew", "Common", "Canadian Aboriginal")
    ]
    assert phrase("LATIN SMALL LETTER A") == "Latin small letter A"
    assert phrase("EXTENDED ARABIC-INDIC DIGIT TWO") == "extended Arabic-Indic digit two"


@given(st.deferred(lambda: st.sampled_from(sorted(every()))), st.integers(0, 9))
def test_contradictions_are_wrong_and_near(character, seed):
    found = chain(path(character))
    wrong = contradictions(tree(), found, Random(seed))
    true = set(found[-1].split())
    for right, other in zip(found, wrong, strict=True):
        assert other not in path(character)
        assert not set(other.split()) <= true
        # Neither stands above the other: they are on branches of their own.
        assert right not in tree().path(other)
        assert other not in tree().path(right)
        siblings = [
            one
            for one in tree().children[tree().parent[right]]
            if one != right and not set(one.split()) <= true
        ]
        assert not siblings or other in siblings
    assert wrong == contradictions(tree(), found, Random(seed))


def test_without_siblings_a_cousin_contradicts():
    tree = Tree([("a", "b", "c"), ("a", "d", "e"), ("f",)])
    assert contradictions(tree, ("a", "b", "c"), Random(0)) == ("f", "d", "e")
    assert contradictions(tree, ("f",), Random(0)) == ("a",)


def test_what_may_be_true_does_not_contradict():
    tree = Tree([("A", "A with acute"), ("A", "A with hook and acute"), ("A", "A with bar")])
    wrong = {contradictions(tree, ["A with hook and acute"], Random(seed)) for seed in range(20)}
    assert wrong == {("A with bar",)}


def test_a_caption_with_two_parents_is_refused():
    with pytest.raises(InputError, match="'c' stands under 'b' and under 'a'"):
        Tree([("a", "c"), ("b", "c")])


def test_nothing_to_contradict_with():
    with pytest.raises(InputError, match="nothing contradicts 'a'"):
        contradictions(Tree([("a", "b")]), ("a", "b"), Random(0))
