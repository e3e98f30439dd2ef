"""Text of one's own: every format, the splits, and what can be wrong."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pydantic import TypeAdapter

from geodapt.data.corpus import CorpusSettings, HubSettings, TextSettings, load_corpus
from geodapt.data.corpus import text as text_module
from geodapt.data.corpus.text import documents
from geodapt.errors import InputError

SPLITS = ("train", "validation", "test")
LINES = [f"This is line {number} of a text." for number in range(1000)]


def splits(path, **settings) -> dict[str, list[str]]:
    corpus = load_corpus(TextSettings(path=str(path), **settings))
    return {split: list(corpus.documents(split)) for split in SPLITS}


def test_one_plain_file_is_cut_where_lines_end(tmp_path):
    (tmp_path / "play.txt").write_text("\n".join(LINES))
    found = splits(tmp_path / "play.txt")
    cut = {split: "\n".join(texts).split("\n") for split, texts in found.items()}
    assert cut["train"] + cut["validation"] + cut["test"] == LINES
    assert [len(cut[split]) for split in SPLITS] == pytest.approx([850, 50, 100], abs=3)


def test_a_folder_of_files_gives_whole_ones_but_for_the_borders(tmp_path):
    for number in range(40):
        folder = tmp_path / f"part{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.md").write_text("\n".join(f"{number}: {line}" for line in LINES[:30]))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    found = splits(tmp_path)
    lines = {s: [line for text in texts for line in text.split("\n")] for s, texts in found.items()}
    assert sum(map(len, lines.values())) == 40 * 30
    files = {split: {line.partition(":")[0] for line in lines[split]} for split in SPLITS}
    assert len(files["train"] & files["validation"]) <= 1
    assert len(files["validation"] & files["test"]) <= 1
    assert files["train"].isdisjoint(files["test"])
    assert splits(tmp_path, seed=1) != found


def test_a_long_file_goes_on_as_another_document(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PIECE", 100)
    (tmp_path / "long.txt").write_text("\n".join(LINES))
    pieces = list(documents(tmp_path / "long.txt"))
    assert len(pieces) > 100
    assert "\n".join(pieces) == "\n".join(LINES)


def write_records(tmp_path) -> list[str]:
    texts = [f"Record {number}\n\nwith a second paragraph." for number in range(300)]
    half = [json.dumps({"text": text, "id": 1}) for text in texts[:150]]
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write("\n".join(half))
    table = pa.table({"id": list(range(151)), "text": [*texts[150:], None]})
    parquet.write_table(table, tmp_path / "b.parquet", row_group_size=40)
    return texts


def test_records_are_split_one_by_one(tmp_path):
    texts = write_records(tmp_path)
    found = splits(tmp_path)
    assert sorted(text for split in SPLITS for text in found[split]) == sorted(texts)
    assert len(found["train"]) == pytest.approx(255, abs=20)
    assert len(found["test"]) == pytest.approx(30, abs=15)
    assert list(documents(tmp_path)) == texts
    # More records move none of those that were there.
    with (tmp_path / "c.jsonl").open("w") as file:
        file.write(json.dumps({"text": "One more record."}) + "\n")
    more = splits(tmp_path)
    assert all(set(found[split]) <= set(more[split]) for split in SPLITS)


def test_the_key_tells_texts_apart(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    key = load_corpus(TextSettings(path=str(file))).key
    assert load_corpus(TextSettings(path=str(file))).key == key
    file.write_text("another")
    assert load_corpus(TextSettings(path=str(file))).key != key


WRONG = {
    "gone.txt": "data path '.*gone.txt' does not exist",
    "empty": "empty has no text file",
    "picture.png": "is not a text file by its name",
    "latin.txt": r"latin.txt, line 1 or soon after: not utf-8 text",
    "bad.jsonl": r"bad.jsonl, line 2: expected a JSON object with a text under \"text\"",
    "number.jsonl": r"number.jsonl, line 1: expected a JSON object with a text",
    "column.parquet": "has no column 'text'; it has body. Name the column of the text by data",
    "numbers.parquet": "column 'text' holds int, not text",
    "torn.parquet": r"torn.parquet, after row 0: cannot be read as Parquet",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_be_wrong(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "latin.txt").write_bytes("déjà".encode("latin-1"))
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"txt": "bad"}\n')
    (tmp_path / "number.jsonl").write_text('{"text": 3}\n')
    parquet.write_table(pa.table({"body": ["x"]}), tmp_path / "column.parquet")
    parquet.write_table(pa.table({"text": [1]}), tmp_path / "numbers.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match=WRONG[name]):
        splits(tmp_path / name)


def test_a_hub_data_set_is_streamed(monkeypatch):
    asked, served = [], []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))

        def rows():
            for number in range(10_000):
                served.append(number)
                yield {"id": number, "text": f"Article {number}" if number != 3 else " "}

        return datasets.IterableDataset.from_generator(rows)

    monkeypatch.setattr("geodapt.data.corpus.hub.load_dataset", load_dataset)
    settings = HubSettings(config="20231101.en", max_documents=200)
    corpus = load_corpus(settings)
    assert not asked  # nothing is fetched before it is read
    found = {split: list(corpus.documents(split)) for split in SPLITS}
    assert asked[0] == (
        ("wikimedia/wikipedia", "20231101.en"),
        {"split": "train", "streaming": True},
    )
    assert sorted(t for s in SPLITS for t in found[s]) == sorted(
        f"Article {number}" for number in range(200) if number != 3
    )
    assert max(served) == 199
    wrong = load_corpus(settings.model_copy(update={"text": "body"}))
    with pytest.raises(InputError, match="row 1: column 'body' holds no text; it has id, text"):
        next(wrong.documents("train"))


def test_a_hub_data_set_out_of_reach():
    corpus = load_corpus(HubSettings(name="no/such-data"))
    with pytest.raises(InputError, match="'no/such-data' could not be opened on the hub"):
        next(corpus.documents("train"))


def test_settings_come_from_yaml_by_their_kind():
    adapter = TypeAdapter(CorpusSettings)
    assert isinstance(adapter.validate_python({"kind": "text", "path": "a"}), TextSettings)
    assert isinstance(adapter.validate_python({"kind": "hub"}), HubSettings)
