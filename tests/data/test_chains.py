"""Chains from CSV and JSONL as published and as people write them, and what is wrong in them."""

import pytest

from geodapt.data.chains import ChainSettings, contradicted, load_chains, read_chains
from geodapt.data.lexical import LexicalPair, load_lexical
from geodapt.data.loading import load_hierarchy
from geodapt.errors import InputError
from tests.data.tables import write_table

ROWS = [
    {
        "positive": f"animal {k} => cat {k} => a cat {k} sits => A cat {k} sits on mat {n}.",
        "negative": f"vehicle {k} => dog {k} => a cat {k} runs => A cat {k} sits in tree {n}.",
        "image_url": f"http://images/val_{k:03}.jpg",
    }
    for k in range(40)
    for n in range(2)
]


def changed(**columns):
    """The rows with some cells of the third (line 4 of the file) changed."""
    return [*ROWS[:2], {**ROWS[2], **columns}, *ROWS[3:]]


@pytest.fixture(params=["csv", "csv.gz", "jsonl", "jsonl.gz"])
def path(request, tmp_path):
    return write_table(tmp_path / f"chains.{request.param}", ROWS)


def test_chains_as_published(path):
    chains = read_chains(path)
    assert len(chains) == len(ROWS)
    assert chains[3].texts == ("animal 1", "cat 1", "a cat 1 sits", "A cat 1 sits on mat 1.")
    assert chains[3].negatives == ("vehicle 1", "dog 1", "a cat 1 runs")
    assert chains[3].group == "http://images/val_001.jpg"


def test_the_published_test_file_has_no_negatives(tmp_path):
    rows = [
        {"id": n, "captions": r["positive"], "image_url": r["image_url"]}
        for n, r in enumerate(ROWS)
    ]
    chains = read_chains(write_table(tmp_path / "test.csv", rows))
    assert chains[0].negatives == ()
    assert chains[0].texts[0] == "animal 0"


def test_a_column_a_level_and_lists(tmp_path):
    rows = [{"level_1": "animal", "level_2": "cat", "level_3": "a grey cat"}]
    (one,) = read_chains(write_table(tmp_path / "levels.csv", rows))
    (two,) = read_chains(
        write_table(tmp_path / "x.jsonl", [{"texts": ["animal", "cat", "a grey cat"]}])
    )
    assert one == two
    assert one.texts == ("animal", "cat", "a grey cat")


def test_images_are_held_out_whole(path):
    hierarchy = load_hierarchy(ChainSettings(path=str(path)))
    train, test = ({c.group for c in part} for part in (hierarchy.train, hierarchy.test))
    assert train
    assert test
    assert not train & test
    assert len(hierarchy.train) + len(hierarchy.test) == len(ROWS)
    again = load_chains(ChainSettings(path=str(path)))
    assert again.test == hierarchy.test
    assert load_chains(ChainSettings(path=str(path), seed=1)).test != hierarchy.test


def test_a_test_file_takes_the_place_of_held_out_images(path, tmp_path):
    twice = "animal 0 => animal 0 => cat => a cat"  # published files are measured as they are
    test = write_table(tmp_path / "test.csv", [{"captions": twice, "image_url": "i.jpg"}])
    hierarchy = load_chains(ChainSettings(path=str(path), test_path=str(test)))
    assert len(hierarchy.train) == len(ROWS)
    assert [chain.texts[1] for chain in hierarchy.test] == ["animal 0"]


def test_rows_can_be_limited(path):
    hierarchy = load_chains(ChainSettings(path=str(path), max_train=7, max_test=3))
    assert len(hierarchy.train) == 7
    assert len({chain.group for chain in hierarchy.test}) == 3
    assert len(hierarchy.test) == 6


def test_negatives_are_drawn_where_there_are_none(tmp_path):
    rows = [{"texts": row["positive"].split(" => ")} for row in ROWS]
    chains = read_chains(write_table(tmp_path / "x.jsonl", rows))
    drawn, notes = contradicted(chains, chains, "x", seed=0)
    assert notes == ["negatives drawn for 80 chains that had none"]
    together = {}
    for chain in chains:
        for text in chain.texts:
            together.setdefault(text, set()).update(chain.texts)
    for chain in drawn:
        assert len(chain.negatives) == 3
        for level, negative in enumerate(chain.negatives):
            assert negative in {other.texts[level] for other in chains}
            assert negative not in together[chain.texts[level]]
    assert contradicted(chains, chains, "x", seed=0)[0] == drawn
    assert contradicted(chains, chains, "x", seed=1)[0] != drawn


# --- what can be wrong -------------------------------------------------------------------------

BAD = {
    "another length": (changed(positive="animal => cat => a cat"), "3 levels, where the first"),
    "one level": ([{"positive": "animal"}], "1 level; it needs at least two"),
    "empty caption": (changed(positive="a =>  => b => c"), "level 2 of the chain is empty"),
    "empty negative": (changed(negative="a =>  => b => c"), "negative 2 of the chain is empty"),
    "duplicate": (changed(positive="a => b => a => c"), "'a' stands at two levels"),
    "negatives missing": (changed(negative="x => y"), "2 negatives for 4 levels"),
    "negative is its text": (
        changed(negative="animal 1 => y => z => w"),
        "the negative 'animal 1' is the very text of its level",
    ),
    "no column": ([{"words": "a => b"}], "no column positive, captions, texts or level_1"),
    "a level missing": ([{"level_1": "a", "level_3": "b"}], "column level_2 is missing"),
    "an empty level": ([{"level_1": "a", "level_2": ""}], "level 2 of the chain is empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_refused_with_file_and_line(tmp_path, kind):
    rows, said = BAD[kind]
    file = write_table(tmp_path / "x.csv", rows)
    with pytest.raises(InputError, match=said) as error:
        read_chains(file)
    header = kind in ("no column", "a level missing")
    line = "" if header else f", line {4 if len(rows) > 1 else 2}"
    assert f"{file}{line}: " in str(error.value)


def test_chains_whose_image_is_nan_are_groups_of_their_own(tmp_path):
    lines = [f'{{"texts": ["top", "leaf {i}"], "image": NaN, "negative": NaN}}' for i in range(3)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    assert [(c.group, c.negatives) for c in read_chains(tmp_path / "x.jsonl")] == [("", ())] * 3


def test_lists_that_are_none(tmp_path):
    path = write_table(tmp_path / "x.jsonl", [{"texts": ["a", 3]}])
    with pytest.raises(InputError, match="record 1: expected texts joined by"):
        read_chains(path)


def test_no_negatives_to_draw(tmp_path):
    rows = [{"texts": ["animal", f"cat {n}"]} for n in range(9)]
    chains = read_chains(write_table(tmp_path / "x.jsonl", rows))
    with pytest.raises(InputError, match="none can be drawn: at level 1 nothing contradicts"):
        contradicted(chains, chains, "x", seed=0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.csv", None, "does not exist"),
        ("x.txt", "a", "is not a .csv"),
        ("x.csv", "positive,image_url\n", "is empty"),
        ("x.csv", "positive\na => b\n", "none is left for"),
    ],
)
def test_files_without_chains(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        load_chains(ChainSettings(path=str(tmp_path / name)))


# --- pairs of words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "WORD1 WORD2 POS TYPE AVG_SCORE AVG_SCORE_0_10 STD SCORES..\n"
        "cat animal N hyp-1 5.90 9.83 0.3 6 6\nanimal cat N r-hyp-1 1.5 2.5 0.3 1 2\n",
        "specific,general,score\ncat,animal,5.9\nanimal,cat,1.5\n",
        "hyponym\thypernym\trating\ncat\tanimal\t5.9\n\nanimal\tcat\t1.5\n",
        '\ufeff"score",specific,general\n5.9,"cat",animal\n"1.5",animal,"cat"\n',
    ],
)
def test_lexical_entailment_files(tmp_path, text):
    (tmp_path / "words").write_text(text)
    pairs = load_lexical(tmp_path / "words")
    assert pairs == [LexicalPair("cat", "animal", 5.9), LexicalPair("animal", "cat", 1.5)]


def test_words_with_commas(tmp_path):
    text = 'score,general,specific\n2,"colour, shade","red, ""dark"""\n1,animal,cat\n'
    (tmp_path / "words.csv").write_text(text)
    assert load_lexical(tmp_path / "words.csv")[0] == LexicalPair('red, "dark"', "colour, shade", 2)
    (tmp_path / "words.txt").write_text("specific general score\nred,dark colour 2\ncat animal 1\n")
    assert load_lexical(tmp_path / "words.txt")[0] == LexicalPair("red,dark", "colour", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("score,specific,general\n2,red, dark,colour\n", "line 2: expected two words and a score"),
        ('score,specific,general\n2,"red,colour\n', "line 2: cannot be read: unexpected end"),
        ("a,b,c\n1,2,3\n", "no column WORD1 or hyponym or specific"),
        ("specific,general,score\ncat,animal\n", "line 2: expected two words and a score"),
        ("specific,general,score\ncat,,3\n", "line 2: expected two words and a score"),
        ("specific,general,score\ncat,animal,high\n", "the score 'high' is not a number"),
        ("specific,general,score\ncat,animal,nan\n", "the score 'nan' is not a number"),
        ("specific,general,score\ncat,animal,3\n", "has 1 pairs"),
        ("", "has 0 pairs"),
    ],
)
def test_bad_lexical_files(tmp_path, text, said):
    (tmp_path / "words.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        load_lexical(tmp_path / "words.csv")
