"""Labelled texts from CSV, JSONL and the hub."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from geodapt.data import ClassificationSettings, LabelledDomain, classification, load_domains
from geodapt.errors import InputError
from tests.data.tables import write_table

ROWS = [
    {
        "text": f'The {domain}, "number {n}",\nis {"good" if n % 2 else "bad"}.',
        "label": "positive" if n % 2 else "negative",
        "domain": domain,
    }
    for domain in ("kitchen", "books")
    for n in range(60)
]


def load(path, **changes):
    return load_domains(ClassificationSettings(path=str(path), **changes))


@pytest.fixture(params=["csv", "csv.gz", "jsonl", "jsonl.gz"])
def path(request, tmp_path):
    return write_table(tmp_path / f"reviews.{request.param}", ROWS)


def test_every_row_is_in_one_split_of_its_domain(path):
    domains = load(path)
    assert list(domains) == ["books", "kitchen"]
    for name, domain in domains.items():
        assert isinstance(domain, LabelledDomain)
        assert domain.labels == ["negative", "positive"]
        assert list(domain.splits) == ["train", "validation", "test"]
        found = []
        for rows in domain.splits.values():
            feature = rows.features["label"]
            found += [(row["text"], feature.int2str(row["label"]), name) for row in rows]
        expected = [tuple(row.values()) for row in ROWS if row["domain"] == name]
        assert sorted(found) == sorted(expected)


def test_one_text_is_in_one_split_in_all_domains(tmp_path):
    same = [{**row, "text": row["text"].replace("kitchen", "books")} for row in ROWS]
    domains = load(write_table(tmp_path / "x.csv", same + same))
    books, kitchen = domains["books"].splits, domains["kitchen"].splits
    for split in books:
        assert sorted(books[split]["text"]) == sorted(kitchen[split]["text"])
        assert len(set(books[split]["text"])) == len(books[split])


def test_labels_are_shared_by_the_domains(tmp_path):
    rows = [*ROWS, *({**row, "label": "mixed", "text": row["text"] + "!"} for row in ROWS[:9])]
    domains = load(write_table(tmp_path / "x.csv", rows))
    assert domains["books"].labels == domains["kitchen"].labels == ["mixed", "negative", "positive"]


def test_columns_and_domains_can_be_named(tmp_path):
    rows = [{"review": r["text"], "stars": n % 5, "shop": r["domain"]} for n, r in enumerate(ROWS)]
    domains = load(
        write_table(tmp_path / "x.jsonl", rows),
        **{"text": "review", "label": "stars", "domain": "shop", "domains": ["kitchen"]},
    )
    assert list(domains) == ["kitchen"]
    assert domains["kitchen"].labels == ["0", "1", "2", "3", "4"]


def test_rows_can_be_limited_and_follow_the_seed(path):
    few = load(path, max_train=10, max_test=3)["books"].splits
    assert [len(rows) for rows in few.values()] == [10, 3, 3]
    assert (
        few["train"]["text"]
        == load(path, max_train=10, max_test=3)["books"].splits["train"]["text"]
    )
    assert few["train"]["text"] != load(path, max_train=10, seed=1)["books"].splits["train"]["text"]


def test_a_hub_name_is_loaded(tmp_path, monkeypatch):
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["negative", "positive"]),
            "domain": Value("string"),
        }
    )
    rows = Dataset.from_list(ROWS, features=features)
    hub = {"somebody/reviews": DatasetDict(train=rows.select(range(50)), test=rows)}
    monkeypatch.setattr(classification, "load_dataset", hub.__getitem__)
    local = load(write_table(tmp_path / "x.csv", ROWS))
    domains = load("somebody/reviews")
    assert domains["books"].labels == ["negative", "positive"]
    for name, domain in domains.items():
        for split, found in domain.splits.items():
            assert found.to_dict() == local[name].splits[split].to_dict()


# --- what can be wrong -------------------------------------------------------------------------


def test_a_hub_that_is_not_reachable():
    with pytest.raises(InputError, match="could not be loaded from the hub"):
        load("nobody/no-such-data")


@pytest.mark.parametrize("name", ["nowhere.csv", "folder/nowhere.jsonl"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(InputError, match=r"nowhere.* does not exist"):
        load(tmp_path / name)
    with pytest.raises(InputError, match=r"nowhere.* does not exist"):
        load(name)


def test_a_folder_for_a_file(tmp_path):
    with pytest.raises(InputError, match=r"is not a \.csv, "):
        load(tmp_path)


@pytest.mark.parametrize(("name", "content"), [("x.csv", "text,domain,label\n"), ("x.jsonl", "")])
def test_empty_data(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match="is empty"):
        load(path)


def test_missing_columns(tmp_path):
    with pytest.raises(InputError, match=r"x.csv: no column 'review' and no column 'shop'; it has"):
        load(write_table(tmp_path / "x.csv", ROWS), text="review", domain="shop")


def test_a_row_with_too_few_cells(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label,domain\nfine,positive,books\nbad,negative\n")
    with pytest.raises(InputError, match=r"x.csv, line 3: expected 3 cells .*found 2"):
        load(path)


def test_a_line_that_is_not_json(tmp_path):
    path = write_table(tmp_path / "x.jsonl", ROWS)
    path.write_text(path.read_text() + "oops\n")
    with pytest.raises(
        InputError, match=r"x.jsonl, line 121: expected a JSON object, found 'oops'"
    ):
        load(path)


def test_an_empty_cell(tmp_path):
    rows = [*ROWS, {"text": " ", "label": "positive", "domain": "books"}]
    with pytest.raises(InputError, match="record 121: column 'text' is empty"):
        load(write_table(tmp_path / "x.jsonl", rows))


def test_one_label(tmp_path):
    rows = [{**row, "label": "positive"} for row in ROWS]
    with pytest.raises(InputError, match="one label only, 'positive'"):
        load(write_table(tmp_path / "x.csv", rows))


def test_an_unknown_domain(tmp_path):
    with pytest.raises(InputError, match="no domain 'toys'; it has books, kitchen"):
        load(write_table(tmp_path / "x.csv", ROWS), domains=["toys"])


def test_a_domain_too_small_to_split(tmp_path):
    rows = [*ROWS, {"text": "alone", "label": "positive", "domain": "toys"}]
    with pytest.raises(InputError, match=r"domain 'toys' has 1 rows and none of them for"):
        load(write_table(tmp_path / "x.csv", rows))
