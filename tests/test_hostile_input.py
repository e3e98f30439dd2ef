"""Recipes and data files changed at random: read, or refused in a sentence, at once.

``make fuzz`` tries many times as many.
"""

import gzip
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from geodapt.data.amazon import load_amazon
from geodapt.data.chains import read_chains
from geodapt.data.corpus.text import documents
from geodapt.data.edge_files import read_edges
from geodapt.data.lexical import load_lexical
from geodapt.data.movielens import read_movielens
from geodapt.data.settings import AmazonSettings
from geodapt.data.table_files import table
from geodapt.errors import InputError
from geodapt.probe import tables
from geodapt.recipes.catalog import packaged
from geodapt.recipes.document import Document, dump
from geodapt.recipes.loading import load_recipe

TRIALS = 25 * int(os.environ.get("GEODAPT_FUZZ", "1"))
SLOWEST = 5.0
"""Seconds of the processor that any one file may take."""

TOKENS = [
    "", " ", "\n", "\t", ":", "-", "[", "]", "{", "}", ",", "'", '"', "&a", "*a", "!!int", "|", ">",
    "!!python", "~", "null", "true", "-1", "0", "1e400", ".inf", "nan", "9" * 40, "9" * 400,
    "0x" + "f" * 50, "\0", "\x1b]0;x\x07", "\u2028", "\ufeff", "é", "../..", "/etc", "~nosuchuser",
    "x" * 300, "[" * 300, "<<", "? ", "---", "...", "%YAML 9", "\\ud800", "=>", "=",
]  # fmt: skip


def changed_text(text: str, chance: random.Random) -> str:
    """A text with one to four changes: a token in, a piece out, twice, or elsewhere."""
    for _ in range(chance.randint(1, 4)):
        start, end = sorted(chance.choices(range(len(text) + 1), k=2))
        end = min(end, start + chance.choice([1, 3, 30]))
        piece = text[start:end]
        text = {
            "in": text[:start] + chance.choice(TOKENS) + text[start:],
            "for": text[:start] + chance.choice(TOKENS) + text[end:],
            "out": text[:start] + text[end:],
            "many": text[:start] + piece * 20 + text[end:],
            "cut": text[: max(start, 1)],
        }[chance.choice(["in", "for", "for", "out", "many", "cut"])]
    return text


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes with up to eight of them changed, cut, or doubled."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.choice([0, 255, chance.randrange(256)])
    start = chance.randrange(len(changed) + 1)
    return bytes(chance.choice([changed, changed, changed[:start], changed + changed[start:]]))


def read_or_refused(read) -> bool:
    """Whether it was read; anything but an InputError is raised on."""
    started, refused = time.process_time(), None
    try:
        read()
    except InputError as error:
        refused = str(error)
    assert time.process_time() - started < SLOWEST
    assert refused is None or (refused.strip() and "\x1b" not in refused)
    return refused is None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(packaged()))
def test_recipes(name, tmp_path):
    chance = random.Random(name)
    whole = packaged()[name].path.read_text()
    path = tmp_path / "my.yaml"
    found = []
    for _ in range(TRIALS):
        path.write_text(changed_text(whole, chance))

        def read():
            text = dump(load_recipe(str(path)).recipe.model_dump(mode="json"))
            assert Document.parse(text, "again").values  # what a run keeps can be read

        found.append(read_or_refused(read))
    assert not all(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(packaged()))
def test_overrides(name):
    chance = random.Random(name)
    keys = list(Document.read(packaged()[name].path, name).origins)
    for _ in range(TRIALS // 2):
        key = ".".join(map(str, chance.choice(keys)))
        value = "".join(chance.choices(TOKENS, k=chance.randint(1, 3)))
        read_or_refused(lambda: load_recipe(name, [changed_text(f"{key}={value}", chance)]))  # noqa: B023


ROWS = [
    {"text": f"text {n}", "label": "ab"[n % 2], "domain": "xy"[n % 3 // 2], "time": n, "score": 0.5}
    for n in range(12)
]
CHAINS = [
    {"texts": ["animal", f"dog {n}", f"small dog {n}"], "image": f"{n}.png"} for n in range(5)
]


def csv(rows) -> str:
    return (
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"
    )


def jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table_reader(path):
    return list(table(path, "rows"))


TEXTS = {
    "rows.csv": (csv(ROWS), table_reader),
    "rows.tsv": (csv(ROWS).replace(",", "\t"), table_reader),
    "rows.jsonl": (jsonl(ROWS), table_reader),
    "chains.jsonl": (jsonl(CHAINS), read_chains),
    "chains.csv": ("captions,image_url\n" + "a => b => c,1\nd => e => f,2\n" * 3, read_chains),
    "edges.tsv": ("parent\tchild\n" + "".join(f"a{n}\ta{n + 1}\n" for n in range(9)), read_edges),
    "words.txt": ("WORD1 WORD2 AVG_SCORE\n" + "dog animal 9.5\ncat dog 0.5\n" * 3, load_lexical),
    "texts.jsonl": (jsonl(ROWS), lambda path: list(documents(path))),
    "vectors.csv": ("\n".join("1,2.5,-3e2" for _ in range(9)) + "\n", tables.read_table),
    "graph.edges": ("\n".join(f"a{n} a{n // 2}" for n in range(9)) + "\n", tables.read_table),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_files(name, tmp_path):
    content, read = TEXTS[name]
    chance, path = random.Random(name), tmp_path / name
    path.write_text(content)
    assert read_or_refused(lambda: read(path))
    for trial in range(2 * TRIALS):
        changed = changed_text(content, chance).encode(errors="surrogatepass")
        path.write_bytes(changed if trial % 2 else changed_bytes(content.encode(), chance))
        read_or_refused(lambda: read(path))


@pytest.mark.parametrize("kind", ["npy", "parquet", "gz", "safetensors"])
def test_binary_files(kind, tmp_path):
    path = tmp_path / {"gz": "rows.jsonl.gz"}.get(kind, f"file.{kind}")
    read = tables.read_table if kind in ("npy", "safetensors") else table_reader
    if kind == "npy":
        np.save(path, np.arange(12.0).reshape(4, 3))
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(jsonl(ROWS).encode()))
    else:
        from safetensors.numpy import save_file

        save_file({"a": np.arange(12.0).reshape(4, 3)}, path)
    content, chance = path.read_bytes(), random.Random(kind)
    assert read_or_refused(lambda: read(path))
    for _ in range(2 * TRIALS):
        path.write_bytes(changed_bytes(content, chance))
        read_or_refused(lambda: read(path))


def movielens(folder: Path) -> None:
    movies, ratings = read_movielens(folder)
    assert isinstance(movies, dict)
    list(ratings)


MOVIES = {
    "u.item": "1|A (1999)||||" + "|".join("01" + "0" * 17) + "\n",
    "u.data": "1\t1\t3\t881250949\n" * 5,
}
SHOP = {
    "A.jsonl": jsonl([{"user_id": "u", "parent_asin": "p", "timestamp": n} for n in range(5)]),
    "meta_A.jsonl": jsonl([{"parent_asin": "p", "title": "A title"}]),
}


@pytest.mark.parametrize("name", [*MOVIES, *SHOP])
def test_published_data_sets(name, tmp_path):
    files = MOVIES if name in MOVIES else SHOP
    chance = random.Random(name)
    for other, content in files.items():
        (tmp_path / other).write_text(content)
    for _ in range(2 * TRIALS):
        text = changed_text(files[name], chance)
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        if files is MOVIES:
            read_or_refused(lambda: movielens(tmp_path))
        else:
            asked = AmazonSettings(path=str(tmp_path), domains=["A"])
            read_or_refused(lambda: load_amazon(asked))  # noqa: B023
