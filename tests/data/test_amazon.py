"""Amazon Reviews 2023 in small files of its format."""

import gzip
import json
import random

import pytest

from geodapt.data import AmazonSettings, amazon, load_domains
from geodapt.errors import InputError


def reviews(category):
    """Thirty customers, each with eight of forty products, some of them twice."""
    generator = random.Random(category)
    rows = []
    for customer in range(30):
        for product in generator.choices(range(40), k=10):
            rows.append(
                {
                    "rating": 5.0,
                    "title": "Good",
                    "text": "It works.",
                    "images": [],
                    "asin": f"B{product}-red",
                    "parent_asin": f"B{product}",
                    "user_id": f"U{customer}",
                    "timestamp": generator.randint(10**12, 2 * 10**12),
                    "verified_purchase": True,
                }
            )
    return rows


def products():
    return [
        {
            "main_category": "Toys",
            "title": f"Toy\n number {n}",
            "parent_asin": f"B{n}",
            "price": None,
        }
        for n in range(40)
    ]


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.fixture(params=["", ".gz"])
def folder(request, tmp_path):
    for category in ("Toys_and_Games", "Video_Games"):
        write(tmp_path / f"{category}.jsonl{request.param}", reviews(category))
        write(tmp_path / f"meta_{category}.jsonl{request.param}", products())
    return tmp_path


def settings(folder, **changes):
    given = {"path": str(folder), "domains": ["Toys_and_Games"], "negatives": 10, "k_core": 2}
    return AmazonSettings(**{**given, **changes})


def test_domains_are_categories_in_the_order_asked_for(folder):
    domains = load_domains(settings(folder, domains=["Video_Games", "Toys_and_Games"]))
    assert list(domains) == ["Video_Games", "Toys_and_Games"]
    assert domains["Video_Games"].splits["test"].to_dict() != (
        domains["Toys_and_Games"].splits["test"].to_dict()
    )


def test_sequences_are_the_reviews_in_order_of_time(folder):
    domain = load_domains(settings(folder, history=20))["Toys_and_Games"]
    names = domain.items["name"]
    assert names[0].startswith("Toy number ")
    assert len(domain.splits["test"]) == 30
    for row in domain.splits["test"].to_list():
        mine = [r for r in reviews("Toys_and_Games") if r["user_id"] == row["user"]]
        mine.sort(key=lambda review: review["timestamp"])
        once = list(dict.fromkeys(review["parent_asin"] for review in mine))
        expected = [f"Toy number {asin[1:]}" for asin in once]
        assert [names[item] for item in [*row["history"], row["target"]]] == expected


def test_a_product_without_a_title_is_left_out(folder):
    for path in folder.glob("meta_Toys*"):
        rows = products()
        rows[3]["title"], rows[4]["title"] = None, ""
        write(path, rows[:-1])
    names = load_domains(settings(folder))["Toys_and_Games"].items["name"]
    assert not {"Toy number 3", "Toy number 4", "Toy number 39"} & {*names}
    assert "Toy number 5" in names


def test_a_hub_name_is_fetched(folder, monkeypatch):
    asked = []

    def fetched(repository, name, repo_type):
        asked.append((repository, name, repo_type))
        return str(next(folder.glob(name.rsplit("/", 1)[-1] + "*")))

    monkeypatch.setattr(amazon, "hf_hub_download", fetched)
    from_hub = load_domains(settings("McAuley-Lab/Amazon-Reviews-2023"))
    assert asked == [
        (
            "McAuley-Lab/Amazon-Reviews-2023",
            "raw/review_categories/Toys_and_Games.jsonl",
            "dataset",
        ),
        (
            "McAuley-Lab/Amazon-Reviews-2023",
            "raw/meta_categories/meta_Toys_and_Games.jsonl",
            "dataset",
        ),
    ]
    local = load_domains(settings(folder))
    for name in local:
        assert from_hub[name].splits["test"].to_dict() == local[name].splits["test"].to_dict()


# --- what can be wrong -------------------------------------------------------------------------


def test_a_hub_that_is_not_reachable():
    with pytest.raises(InputError, match="is no folder here, and raw/review_categories/") as info:
        load_domains(settings("nobody/no-such-data"))
    assert "give their folder" in str(info.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere' does not exist"):
        load_domains(settings(tmp_path / "nowhere"))


def test_a_folder_without_the_files(folder):
    with pytest.raises(InputError, match=r"has no Books.jsonl or Books.jsonl.gz; it has Toys_and"):
        load_domains(settings(folder, domains=["Books"]))
    for path in folder.glob("meta_Toys*"):
        path.unlink()
    with pytest.raises(InputError, match=r"has no meta_Toys_and_Games.jsonl or"):
        load_domains(settings(folder))


def test_a_file_for_a_folder(folder):
    with pytest.raises(InputError, match="is a file; give the folder"):
        load_domains(settings(next(folder.glob("Toys*"))))


@pytest.mark.parametrize("line", ["{", "[1]", '{"user_id": "U"}', "{'user_id': 1}"])
def test_a_malformed_line(tmp_path, line):
    write(tmp_path / "meta_Toys_and_Games.jsonl", products())
    path = tmp_path / "Toys_and_Games.jsonl"
    write(path, reviews("Toys_and_Games"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:9], line, *lines[9:]]))
    with pytest.raises(InputError, match=r"Toys_and_Games.jsonl, line 10: expected a JSON object"):
        load_domains(settings(tmp_path))


def test_empty_data(tmp_path):
    (tmp_path / "meta_Toys_and_Games.jsonl").write_text("")
    (tmp_path / "Toys_and_Games.jsonl").write_text("\n")
    with pytest.raises(InputError, match="domain 'Toys_and_Games' is empty"):
        load_domains(settings(tmp_path))


def test_a_file_that_is_cut_short(tmp_path):
    write(tmp_path / "meta_Toys_and_Games.jsonl", products())
    path = tmp_path / "Toys_and_Games.jsonl.gz"
    write(path, reviews("Toys_and_Games"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"Toys_and_Games.jsonl.gz, after line .*cut short"):
        load_domains(settings(tmp_path))


@pytest.mark.parametrize("value", ["null", "NaN", '""', '["a"]'])
def test_a_customer_without_a_name_is_refused(tmp_path, value):
    write(tmp_path / "meta_Toys_and_Games.jsonl", products())
    line = f'{{"user_id": {value}, "parent_asin": "P1", "timestamp": 1}}\n'
    (tmp_path / "Toys_and_Games.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"Toys_and_Games.jsonl, line 1: .*user_id (is|holds a)"):
        load_domains(settings(tmp_path))


def test_a_file_that_is_no_text(tmp_path):
    write(tmp_path / "meta_Toys_and_Games.jsonl", products())
    (tmp_path / "Toys_and_Games.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"Toys_and_Games.jsonl, line 1 or soon after: not utf-8"):
        load_domains(settings(tmp_path))


def test_too_few_products_for_the_negatives(folder):
    with pytest.raises(InputError, match="has 40 items, too few for 50 negatives"):
        load_domains(settings(folder, negatives=50))
