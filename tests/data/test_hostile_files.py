"""Files that are not what their names say: one sentence each, at once, in little memory."""

import gzip
import json
import os
import tracemalloc
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image
from pydantic import ValidationError

from geodapt.data import load_domains
from geodapt.data.amazon import load_amazon
from geodapt.data.chains import ChainSettings, load_chains
from geodapt.data.corpus.text import documents
from geodapt.data.hierarchy_settings import EdgeSettings
from geodapt.data.lexical import load_lexical
from geodapt.data.movielens import read_movielens
from geodapt.data.settings import (
    AmazonSettings,
    ClassificationSettings,
    InteractionFileSettings,
    MovieLensSettings,
)
from geodapt.data.table_files import table
from geodapt.data.trees import load_edges
from geodapt.errors import InputError
from geodapt.probe import tables
from geodapt.vision import PictureFiles

READERS = {
    "rows": lambda path: list(table(path, "rows")),
    "classification": lambda path: load_domains(ClassificationSettings(path=str(path))),
    "interactions": lambda path: load_domains(InteractionFileSettings(path=str(path))),
    "chains": lambda path: load_chains(ChainSettings(path=str(path))),
    "texts": lambda path: list(documents(path)),
    "edges": lambda path: load_edges(EdgeSettings(path=str(path))),
    "words": load_lexical,
    "probe": tables.read_table,
}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("reader", "name", "text"),
    [
        ("rows", "a.csv", "name,x\nb,2\n"),
        ("texts", "a.txt", "One document.\n"),
        ("texts", "a.jsonl", '{"text": "One document."}\n'),
        ("edges", "a.tsv", "".join(f"top {i % 2}\tleaf {i}\n" for i in range(30))),
        (
            "chains",
            "a.jsonl",
            "".join(f'{{"texts": ["top {i % 2}", "leaf {i}"]}}\n' for i in range(30)),
        ),
        ("words", "a.csv", "score,specific,general\n1,cat,animal\n2,dog,animal\n"),
        ("probe", "a.tsv", "thing\tcat\nthing\tdog\n"),
    ],
)
def test_a_byte_order_mark_changes_nothing(tmp_path, reader, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    plain = READERS[reader](tmp_path / name)
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert READERS[reader](tmp_path / name) == plain


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".txt", ".npy"])
def test_pipes_folders_and_pointers_are_no_data(tmp_path, reader, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"pointer{suffix}").write_text(POINTER)
    (tmp_path / f"empty{suffix}").write_text("")
    for name in ("pipe", "folder", "pointer", "empty", "missing"):
        if reader in ("texts", "rows") and name == "empty" and suffix != ".parquet":
            continue  # nothing is read of it
        with pytest.raises(InputError):
            READERS[reader](tmp_path / f"{name}{suffix}")
    for path in ("", "~nosuchuser/x.csv", "x" * 300 + suffix, "d/" * 2000, "a\0b.csv"):
        with pytest.raises((InputError, ValidationError)):  # the settings refuse an empty path
            READERS[reader](path if reader != "probe" else tmp_path / (path or "no"))


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000, '{"text": ' * 5000, '{"text": "\\ud800", "label": "a", "domain": "b"}',
        '{"\\udfff": 1}', "9" * 5000, '{"text": ' + "9" * 5000 + "}", "[]", "5", "null", "\0",
        '{"text": NaN', "{'text': 1}",
    ],
)  # fmt: skip
def test_lines_that_are_no_objects(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine", "label": "x", "domain": "y"}\n' + line + "\n")
    for reader in ("rows", "classification", "texts"):
        with pytest.raises(InputError, match=r"a\.jsonl, (line|record) 2"):
            READERS[reader](path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("[" * 100_000, "nested too deep"), ('{"text": "\\ud800"}', "lone surrogate")],
    ids=["nested", "surrogate"],
)
def test_a_line_that_looks_like_an_object_is_refused_with_the_reason(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    for reader in ("rows", "texts"):
        with pytest.raises(InputError, match=rf"a\.jsonl, line 1: .*{reason}"):
            READERS[reader](path)


@pytest.mark.slow
def test_a_line_without_end_takes_little_memory(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(400):
            file.write(b" " * 1_000_000)
    assert path.stat().st_size < 500_000
    tracemalloc.start()
    for reader in ("rows", "texts"):
        with pytest.raises(InputError, match="line 1: more than"):
            READERS[reader](path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize(
    "rows",
    [
        ["text,text,label,domain", "a,b,c,d"],
        ["text,label,domain", '"' + "x" * 200_000 + '",b,c'],
        ["text,label,domain", '"never closed,b,c'],
        ["text,label,domain", "a,b"],
        ["text,label,domain", "a\0,b,c,d"],
    ],
    ids=["twice", "long", "open", "short", "wide"],
)
def test_rows_that_are_none(tmp_path, rows):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match=r"a\.csv"):
        READERS["classification"](path)


TIMES = ["9" * 20, "1e400", "inf", "-inf", "nan", "-" + "9" * 19 + "9", "9" * 5000, "x", ""]


@pytest.mark.parametrize("time", TIMES)
def test_times_beyond_what_can_be_kept(tmp_path, time):
    (tmp_path / "u.item").write_text("1|A (1999)||||" + "|".join("0" * 19) + "\n")
    (tmp_path / "u.data").write_text(f"1\t1\t3\t{time}\n")
    with pytest.raises(InputError, match=r"u\.data, line 1"):
        list(read_movielens(tmp_path)[1])
    (tmp_path / "a.inter").write_text(
        f"user_id:token\titem_id:token\ttimestamp:float\n1\t1\t{time}\n"
    )
    (tmp_path / "a.item").write_text("item_id:token\tmovie_title:token_seq\tclass:token_seq\n")
    (tmp_path / "u.item").unlink()
    with pytest.raises(InputError, match=r"a\.inter, line 2"):
        list(read_movielens(tmp_path)[1])
    (tmp_path / "A.jsonl").write_text(
        json.dumps({"user_id": "a", "parent_asin": "b", "timestamp": time}) + "\n"
    )
    (tmp_path / "meta_A.jsonl").write_text('{"parent_asin": "b", "title": "c"}\n')
    with pytest.raises(InputError, match=r"A\.jsonl, line 1"):
        load_amazon(AmazonSettings(path=str(tmp_path), domains=["A"]))
    (tmp_path / "a.csv").write_text(f"user,item,time,title,domain\na,b,{time},c,d\n")
    with pytest.raises(InputError, match=r"a\.csv, line 2"):
        load_domains(InteractionFileSettings(path=str(tmp_path / "a.csv")))


@pytest.mark.parametrize("compression", ["snappy", "none", "gzip"])
def test_parquet_files_with_a_wrong_byte(tmp_path, compression):
    whole = tmp_path / "whole.parquet"
    columns = {"text": [f"text {n}" for n in range(50)], "label": ["a", "b"] * 25}
    days = [datetime(2026, 1, 1)] * 50
    content = pa.table({**columns, "domain": ["c"] * 50, "time": days})
    parquet.write_table(content, whole, compression=compression)
    content = whole.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(len(content), size=60):
        changed = bytearray(content)
        changed[place] ^= int(generator.integers(1, 256))
        (tmp_path / "a.parquet").write_bytes(changed)
        for reader in ("rows", "texts"):
            try:
                READERS[reader](tmp_path / "a.parquet")
            except InputError as error:
                refused += "a.parquet" in str(error)
    assert refused > 20


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'sha",
        b"\x93NUMPY\x01\x00\x20\x00{'descr': '<f8', 'fortran_or(((((", b"\x93NUMPY\x09\x00" * 20,
        *(
            b"\x93NUMPY\x01\x00\x80\x00"
            + f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".ljust(127).encode()
            + b"\n" + bytes(64)
            for kind, shape in [
                ("<f8", "(-1, 2)"), ("<f8", "(10**30, 2)"), ("<f8", "(1000000000000, 4)"),
                ("|O", "(2, 2)"), ("<M8[s]", "(2, 2)"), ("<c16", "(2, 2)"), ("<U4", "(2, 2)"),
                ("[('a', '<f8')]", "(2,)"), ("<f8", "(2"), ("<f8", "'x'"), ("x", "(2, 2)"),
            ]
        ),
    ],
)  # fmt: skip
def test_npy_files_with_broken_headers(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy"):
        tables.read_table(tmp_path / "a.npy")


def test_several_arrays_are_no_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.eye(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match="several arrays"):
        tables.read_table(tmp_path / "a.npy")
    (tmp_path / "a.csv").write_text("a," + "x" * 200_000 + "\n" + "b,c\n")
    with pytest.raises(InputError, match=r"a\.csv"):
        tables.read_table(tmp_path / "a.csv")


def test_a_picture_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png")
    files = PictureFiles([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(InputError, match="is no file"):
        files[0]
    assert files[1].size == (2, 2)


def test_an_empty_path_is_not_the_current_folder(tmp_path):
    with pytest.raises(ValueError, match="a path is empty"):
        MovieLensSettings.model_validate({"path": ""})
    for settings in (
        ClassificationSettings(path=""),
        AmazonSettings(path="", domains=["A"]),
    ):
        with pytest.raises(InputError, match="path"):
            load_domains(settings)
