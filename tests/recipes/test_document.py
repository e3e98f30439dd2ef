"""Recipes as YAML text: values, places, overrides, and what is not YAML."""

import os
import time
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.errors import InputError
from geodapt.recipes.document import Document, dump

# PyYAML does not escape NEL, a line break of mainframes, when it writes other Unicode as it is.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x85"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.sampled_from(["1e-4", "no", "on", "12:30", "0x10", "010", "~", "null", ".5", "1_0", "="])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_dumped_is_read_back(content):
    assert Document.parse(dump(content), "a.yaml").values == content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E+3", 5000.0),
        ("-2", -2),
        (".5", 0.5),
        ("0x10", 16),
        ("010", "010"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        (".inf", float("inf")),
    ],
)
def test_plain_values_follow_yaml_1_2(text, value):
    read = Document.parse(f"key: {text}", "a.yaml").values["key"]
    assert read == value
    assert type(read) is type(value)
    assert not isinstance(read, date)


def test_every_value_knows_its_line():
    document = Document.parse(
        "# comment\na: 1\nb:\n  c: [1,\n      2]\n  d:\n    - e: 3\n      f: 4\n", "a.yaml"
    )
    lines = {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "d"): 6,
        ("b", "d", 0): 7,
        ("b", "d", 0, "e"): 7,
        ("b", "d", 0, "f"): 8,
    }
    assert {keys: f"a.yaml:{line}" for keys, line in lines.items()} == document.origins
    assert document.where(("b", "d", 0, "absent")) == "a.yaml:7"
    assert document.where(("absent",)) == "a.yaml"


@pytest.mark.parametrize(
    ("assignment", "keys", "value"),
    [
        ("a.b=2", ("a", "b"), 2),
        ("a.b=", ("a", "b"), None),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("a={b: {c: 1e-3}}", ("a", "b", "c"), 1e-3),
        ("new.deep.key=[1, two]", ("new", "deep", "key"), [1, "two"]),
        ("empty.key=1", ("empty", "key"), 1),
        ("list.1.x=3", ("list", 1, "x"), 3),
        ("list=[9]", ("list",), [9]),
    ],
)
def test_override(assignment, keys, value):
    document = Document.parse("a: {b: 1, c: 0}\nlist: [{x: 1}, {x: 2}]\nempty:\n", "a.yaml")
    document.override(assignment)
    found = document.values
    for key in keys:
        found = found[key]
    assert found == value
    assert document.where(keys) == f"override '{assignment}'"


def test_an_override_forgets_the_lines_of_what_it_replaces():
    document = Document.parse("a:\n  b: 1\n  c: 2\n", "a.yaml")
    document.override("a={c: 3}")
    assert document.where(("a", "b")) == document.where(("a", "c")) == "override 'a={c: 3}'"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lonely", "override 'lonely' is not of the form key=value"),
        ("=1", "override '=1' is not of the form key=value"),
        ("a..b=1", "override 'a..b=1' is not of the form key=value"),
        ("a.b.c=1", "override 'a.b.c=1': 'a.b' is 1, which has no keys below it"),
        ("list.2=1", "'list' is a list of 2; give a position from 0 to 1, not '2'"),
        ("list.x=1", "'list' is a list of 2; give a position from 0 to 1, not 'x'"),
        ("a.b=[1", "override 'a.b=[1':1:3: not valid YAML"),
    ],
)
def test_overrides_that_make_no_sense(assignment, message):
    document = Document.parse("a: {b: 1}\nlist: [1, 2]\n", "a.yaml")
    with pytest.raises(InputError) as caught:
        document.override(assignment)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "a.yaml:3:2: not valid YAML"),
        ("a:\n\t- 1\n", "a.yaml:2:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: not valid YAML"),
        ("a: !!python/object:os.system {}\n", "a.yaml:1: the tag"),
        ("a: \x00\n", "a.yaml: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: key 'a' stands here a second time; the first is on"),
        ("a: &x [*x]\n", "a.yaml:1: values nested more than 50 deep, or an alias that refers to"),
        ("[a]: 1\n", "a.yaml:1: a key must be a plain word"),
        ("", "a.yaml does not hold 'key: value' lines"),
        ("- a\n- b\n", "a.yaml does not hold 'key: value' lines"),
        ("just text", "a.yaml does not hold 'key: value' lines"),
    ],
)
def test_text_that_is_no_recipe(text, message):
    with pytest.raises(InputError) as caught:
        Document.parse(text, "a.yaml")
    assert message in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(Document.parse(text, "a.yaml").values, dict)
    except InputError as error:
        said = str(error)
    else:
        return
    assert said.startswith("a.yaml")


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match=r"a\.yaml is not a UTF-8 text file"):
        Document.read(path, path.name)


NINE = [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairwise("abcdefghi")]
BOMBS = {
    "lists": ["a: &a [x, x, x, x, x, x, x, x, x, x]", *NINE],
    "mappings": ["a: &a {x: 1}", *(
        f"{n}: &{n} {{{', '.join(f'k{i}: *{o}' for i in range(10))}}}"
        for o, n in pairwise("abcdefghi")
    )],
    "merged": ["a: &a {x: 1}", *(
        f"{n}: &{n}\n  <<: [{', '.join([f'*{o}'] * 10)}]" for o, n in pairwise("abcdefghi")
    )],
    "inside": ["config:", *(f"  {line}" for line in ["a: &a [1, 1, 1, 1, 1]", *NINE])],
    "brackets": ["a: " + "[" * 1000 + "]" * 1000],
    "many brackets": ["a: " + "[" * 60_000],
    "braces": ["a: " + "{a: " * 5000 + "}" * 5000],
    "dashes": ["- " * 5000 + "a"],
    "long": ["a: [" + "1, " * 25_000 + "1]"],
    "longer": ["a: " + "x" * 300_000],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_the_memory_is_refused_at_once(tmp_path, name):
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(BOMBS[name]) + "\n")
    started = time.process_time()
    with pytest.raises(InputError, match=r"^a\.yaml"):
        Document.read(path, "a.yaml")
    assert time.process_time() - started < 30  # two on a fast core
    if len(BOMBS[name]) == 1 and name.startswith("br"):
        with pytest.raises(InputError, match=r"^override"):
            Document("a.yaml", {}).override(f"a={BOMBS[name][0][3:]}")


def test_an_alias_is_what_it_stands_for():
    read = Document.parse("a: &x [1, 2]\nb: *x\nc: {d: *x}\n", "a.yaml")
    assert read.values == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


@pytest.mark.parametrize(
    "value",
    [
        "!!timestamp x", "!!timestamp 2024-01-01", "!!int ''", "!!int x", "!!bool maybe",
        "!!null x", "!!float ''", "!!binary x", "!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1]",
        "!mine 1",
        "!!python/object/apply:os.system [ls]", "!!python/name:os.system", "!!merge x",
        "0x" + "f" * 5000, "9" * 5000, "1." + "0" * 5000, "\ud800",
        "{!!int '': 1}", "{!!timestamp x: 1}", "{[a]: 1}",
    ],
)  # fmt: skip
def test_tags_by_hand_and_numbers_without_end_are_refused(value):
    with pytest.raises(InputError, match=r"^a\.yaml"):
        Document.parse(f"a: {value}\n", "a.yaml")
    with pytest.raises(InputError, match=r"^override"):
        Document("a.yaml", {}).override(f"a={value}")


def test_an_override_of_many_keys_is_refused():
    with pytest.raises(InputError, match="goes down 2000 keys"):
        Document("a.yaml", {}).override(".".join("a" * 2000) + "=1")


def test_a_pipe_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(InputError, match="pipe"):
        Document.read(tmp_path / "a.yaml", "a.yaml")
