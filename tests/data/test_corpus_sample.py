"""A few texts of many, and sources of text in a word."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodapt.compress.recipe import CompressRecipe
from geodapt.data.corpus import (
    ApiTextsSettings,
    DocsSettings,
    HubSettings,
    TextSettings,
    load_corpus,
)
from geodapt.data.corpus.sample import draw, passages, sample
from geodapt.data.corpus.sources import named
from geodapt.errors import InputError

TEXTS = [f"text {number}" for number in range(200)]


@given(st.permutations(TEXTS), st.integers(1, 300), st.integers(0, 5))
def test_a_sample_does_not_depend_on_the_order(texts, count, seed):
    found = sample(iter(texts + texts[:50]), count, seed)
    assert found == sample(TEXTS, count, seed)
    assert len(found) == len(set(found)) == min(count, len(TEXTS))


def test_every_text_is_as_likely_as_any_other():
    drawn = Counter(text for seed in range(500) for text in sample(TEXTS, 20, seed))
    # 500 draws of a tenth: 50 of each, with a standard deviation of 6.7
    assert all(20 < drawn[text] < 80 for text in TEXTS)


def test_a_larger_sample_holds_the_smaller():
    assert sample(TEXTS, 30, 1)[:10] == sample(TEXTS, 10, 1)


@given(st.text(st.sampled_from("ab \n"), max_size=200), st.integers(1, 20))
def test_passages_lose_no_word(document, characters):
    found = list(passages([document], characters))
    assert "".join("".join(found).split()) == "".join(document.split())
    assert all(0 < len(piece) <= characters for piece in found)


def test_passages_are_cut_between_words():
    words = [f"word{number}" for number in range(100)]
    found = list(passages([" ".join(words), "\n".join(words)], 50))
    assert [word for piece in found for word in piece.split()] == 2 * words
    assert all(len(piece) > 40 for piece in found[:10])


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("api-calls", ApiTextsSettings()),
        ("docs", DocsSettings()),
        ("wikimedia/wikipedia", HubSettings(max_documents=10_000)),
        (
            "wikimedia/wikipedia:20231101.en",
            HubSettings(config="20231101.en", max_documents=10_000),
        ),
    ],
)
def test_words_that_stand_for_sources(word, settings):
    assert named(word) == settings
    assert CompressRecipe(calibrate=word).calibrate == settings
    saved = CompressRecipe(calibrate=word).model_dump_json()
    assert CompressRecipe.model_validate_json(saved).calibrate == settings


@pytest.mark.parametrize("word", ["gone.txt", "a/gone.jsonl", "./a/b", "/a/b", "~/ab", "gone", ""])
def test_words_that_stand_for_nothing(word):
    with pytest.raises(InputError, match=r"does not exist; give .* api-calls or docs"):
        named(word)


def test_files_and_folders_of_every_format(tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "plain.txt").write_text("\n\n".join(TEXTS[:80]))
    rows = (json.dumps({"text": text}) for text in TEXTS[80:140])
    (tmp_path / "some" / "records.jsonl").write_text("\n".join(rows))
    parquet.write_table(pa.table({"text": TEXTS[140:]}), tmp_path / "some" / "table.parquet")
    source = named(str(tmp_path / "some"))
    assert source == TextSettings(path=str(tmp_path / "some"), lines=True)
    assert sorted(draw(source, 1000, 128)) == sorted(TEXTS)
    train, test = (draw(source, 1000, 128, splits=[split]) for split in ("train", "test"))
    assert not set(train) & set(test)
    assert len(train) == pytest.approx(170, abs=20)
    assert list(load_corpus(source).documents("test")) != []


def test_too_little_to_set_aside(tmp_path):
    (tmp_path / "one.txt").write_text("text 1\n")
    source = named(str(tmp_path / "one.txt"))
    splits = {split: list(load_corpus(source).documents(split)) for split in ("train", "test")}
    empty = "train" if splits["test"] else "test"
    with pytest.raises(InputError, match=r"one.txt holds"):
        draw(source, 10, 128, splits=[empty])


@pytest.mark.slow
def test_built_in_short_texts():
    corpus = load_corpus(ApiTextsSettings(packages=["numpy"]))
    texts = [text for _, text in corpus.read()]
    assert any(text.startswith("numpy.") for text in texts)
    assert corpus.key != load_corpus(ApiTextsSettings(packages=["scipy"])).key
    with pytest.raises(InputError, match="unknown domain"):
        load_corpus(ApiTextsSettings(packages=["nompy"]))
