"""Sequences of one's own, in every format of table."""

import gzip
import json
import random

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geodapt.data import InteractionFileSettings, load_domains
from geodapt.errors import InputError

SALES = [
    {
        "customer": f"c{user}",
        "sku": number,
        "at": f"2026-{1 + step:02}-15T08:00:00",
        "name": f"Article  {number}",
        "shop": shop,
    }
    for shop in ("north", "south")
    for user in range(30)
    for step, number in enumerate(random.Random(f"{shop}{user}").sample(range(20), 8))
]
COLUMNS = {"user": "customer", "item": "sku", "time": "at", "title": "name", "domain": "shop"}


def write(folder, kind, rows=SALES):
    path, frame = folder / f"sales.{kind}", pd.DataFrame(rows)
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind.startswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


def load(path, **changes):
    return load_domains(
        InteractionFileSettings.model_validate(
            COLUMNS | {"path": str(path), "negatives": 5} | changes
        )
    )


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_sequences_that_were_written(tmp_path, kind):
    domains = load(write(tmp_path, kind))
    assert list(domains) == ["north", "south"]
    rows = domains["south"].splits["test"]
    names = domains["south"].items["name"]
    bought = {}
    for row in SALES:
        if row["shop"] == "south":
            bought.setdefault(row["customer"], []).append(" ".join(row["name"].split()))
    assert len(rows) > 5
    for row in rows:
        history = [names[item] for item in row["history"]]
        # Leave-one-out: the last thing bought is asked for, after all before it.
        assert bought[row["user"]] == [*history, names[row["target"]]]


def test_the_domains_asked_for_in_their_order(tmp_path):
    path = write(tmp_path, "csv")
    assert list(load(path, domains=["south", "north"])) == ["south", "north"]
    with pytest.raises(InputError, match="no domain 'east'; it has north, south"):
        load(path, domains=["east"])


@pytest.mark.slow
@pytest.mark.parametrize("times", ["seconds", "dates", "zones", "datetimes"])
def test_times_of_every_kind_order_the_rows(tmp_path, times):
    rows = [dict(row) for row in SALES]
    for row in rows:
        month = int(row["at"][5:7])
        row["at"] = {
            "seconds": -1e9 + 1e6 * month,  # before 1970, too
            "dates": row["at"][:10],
            "zones": f"{row['at']}+0{month}:00",
            "datetimes": pd.Timestamp(row["at"]),
        }[times]
    random.Random(0).shuffle(rows)
    kind = "parquet" if times == "datetimes" else "csv"
    found = load(write(tmp_path, kind, rows))["north"].splits["test"]
    wanted = load(write(tmp_path, "jsonl"))["north"]
    by_title = wanted.items["name"]
    targets = {row["user"]: by_title[row["target"]] for row in wanted.splits["test"]}
    names = load(tmp_path / f"sales.{kind}")["north"].items["name"]
    assert {row["user"]: names[row["target"]] for row in found} == targets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"customer": ""}, "line 2: column 'customer' is empty"),
        ({"at": "yesterday"}, "line 2: column 'at' holds 'yesterday'; give a number of seconds"),
        ({"at": "inf"}, "holds 'inf'"),
        ({"at": "nan"}, "holds 'nan'"),
        ({"at": "1e300"}, "holds '1e\\+300'"),
        ({"at": "9" * 20}, "holds"),
    ],
)
def test_a_bad_cell_is_told_with_its_place(tmp_path, change, message):
    path = write(tmp_path, "csv", [SALES[0] | change, *SALES[1:]])
    with pytest.raises(InputError, match=message):
        load(path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("column", ["customer", "sku", "name", "shop"])
@pytest.mark.parametrize("value", [None, float("nan"), " ", ["a", "b"], {"a": 1}])
def test_a_cell_without_one_value_is_refused_in_every_format(tmp_path, kind, column, value):
    rows = [dict(row) for row in SALES]
    if kind == "parquet":  # whose columns have one type
        rows = rows[:1] if not isinstance(value, float) else [row | {column: 2.0} for row in rows]
    rows[0][column] = value
    said = "is empty" if not isinstance(value, list | dict) else f"holds a {type(value).__name__}"
    with pytest.raises(InputError, match=f"(record|row) 1: column '{column}' {said}"):
        load(write(tmp_path, kind, rows))


def test_columns_that_stand_twice_are_refused(tmp_path):
    columns = {name: [row[name] for row in SALES] for name in SALES[0]}
    table = pa.table([*columns.values(), ["east"] * len(SALES)], names=[*columns, "shop"])
    pq.write_table(table, tmp_path / "sales.parquet")
    with pytest.raises(InputError, match=r"sales\.parquet: column 'shop' stands in it more than"):
        load(tmp_path / "sales.parquet")
    line = json.dumps(SALES[0])
    (tmp_path / "sales.jsonl").write_text(line[:-1] + ', "shop": "east"}\n')
    with pytest.raises(InputError, match=r"jsonl, line 1: .*'shop' stands in it more than once"):
        load(tmp_path / "sales.jsonl")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, kind):
    plain = load(write(tmp_path, kind))["north"].splits["test"]["history"]
    path = tmp_path / f"sales.{kind}"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path)["north"].splits["test"]["history"] == plain


def test_missing_columns_and_files(tmp_path):
    path = write(tmp_path, "csv")
    with pytest.raises(InputError, match=r"no column 'shopp'; it has customer, sku, .*Set data\.d"):
        load(path, domain="shopp")
    for kind, place in (("csv", "sales.csv"), ("parquet", "sales.parquet"), ("jsonl", "record 1")):
        path = write(tmp_path, kind)  # a table's columns are those of its header, not of a line
        with pytest.raises(
            InputError, match=rf"{place}: no column 'who' and no column 'when'; it has .*data\.user"
        ):
            load(path, user="who", time="when")
    with pytest.raises(InputError, match=r"is not a \.csv, .* file of interactions"):
        load(tmp_path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(write(tmp_path, "parquet").read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load(broken)
