"""What a text table's lines and columns are taken for: recognised and said, or asked for."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from geodapt import probe
from geodapt.cli.probe import probe as command
from geodapt.errors import InputError

RANDOM = np.random.default_rng(3)
FRACTIONS = RANDOM.normal(size=(40, 4))
WHOLE = RANDOM.integers(0, 17, size=(40, 6))


def distances(points):
    return np.linalg.norm(points[:, None].astype(float) - points, axis=-1)


def read(tmp_path, frame, name="t.csv", **how):
    """The source that a table is read as; ``load`` says how to read, the rest how to write it."""
    load = how.pop("load", {})
    path = tmp_path / name
    if isinstance(frame, str):
        path.write_text(frame)
    else:
        frame.to_csv(path, **how)
    return probe.load_source(str(path), **load)


def holds(source, points):
    np.testing.assert_allclose(source.distances, distances(points), atol=1e-9)


@pytest.mark.parametrize("points", [FRACTIONS, WHOLE, WHOLE[:, :4], FRACTIONS[:, :1]])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_pandas_default_header_is_no_point(tmp_path, points, index, first):
    if index and points.shape[1] == 1:
        points = FRACTIONS[:, :2]
    columns = range(first, first + points.shape[1])
    source = read(tmp_path, pd.DataFrame(points, columns=columns), index=index)
    holds(source, points)
    assert f"40 rows x {points.shape[1]} columns" in source.notes[0]


def test_a_first_row_that_only_looks_like_a_header_is_asked_for(tmp_path):
    text = "\n".join(",".join(map(str, row)) for row in [[0, 1, 2], *WHOLE[:, :3].tolist()])
    with pytest.raises(InputError, match="0, 1, 2 may be the columns' names or a point"):
        read(tmp_path, text)
    holds(read(tmp_path, text, load={"header": True}), WHOLE[:, :3])
    holds(read(tmp_path, text, load={"header": False}), np.vstack([[0, 1, 2], WHOLE[:, :3]]))
    years = pd.DataFrame(FRACTIONS, columns=range(2019, 2023))
    with pytest.raises(InputError, match="2019, 2020 and so on may be the columns' names"):
        read(tmp_path, years, index=False)
    holds(read(tmp_path, years, index=False, load={"header": True}), FRACTIONS)
    path = distances(np.arange(6)[:, None]).astype(int)  # its first row is 0, 1, 2, 3, 4, 5
    source = read(tmp_path, "\n".join(",".join(map(str, row)) for row in path))
    assert source.kind == "distances"
    np.testing.assert_array_equal(source.distances, path)


@pytest.mark.parametrize(
    "name", ["label", "Target", "class", "id", "user_id", "cluster label", "y", "index", ""]
)
@pytest.mark.parametrize("place", [0, 2])
def test_columns_that_say_which_or_what_are_left_out(tmp_path, name, place):
    frame = pd.DataFrame(FRACTIONS, columns=["sepal length", "sepal width", "a.b", "4th"])
    frame.insert(place, name, RANDOM.integers(0, 3, 40))
    source = read(tmp_path, frame, index=False)
    holds(source, FRACTIONS)
    said = name or f"column {place + 1}"
    assert source.notes[0].endswith(f"40 rows x 4 columns; the first line holds their names; "
                                    f"left out: {said}")  # fmt: skip
    kept = read(tmp_path, frame, index=False, load={"columns": ["1-5"]})
    holds(kept, frame.to_numpy())


def test_a_header_of_which_some_names_are_numbers(tmp_path):
    frame = pd.DataFrame(WHOLE)
    frame["label"] = RANDOM.integers(0, 3, 40)
    holds(read(tmp_path, frame, index=False), WHOLE)
    frame["label"] = [f"kind {i % 3}" for i in range(40)]
    source = read(tmp_path, frame, index=False)
    holds(source, WHOLE)
    assert source.labels[:2] == ["kind 0", "kind 1"]
    with pytest.raises(InputError, match=r"line 1: 'x' is not a number and '3.5' is one"):
        read(tmp_path, "3.5,x\n1.5,2.5\n4.5,5.5\n")
    assert read(tmp_path, "3.5,x\n1.5,2.5\n4.5,5.5\n", load={"header": True}).total == 2


@pytest.mark.parametrize("start", [0, 1, 1000, -5])
def test_a_column_that_counts_the_rows_is_left_out(tmp_path, start):
    counted = np.column_stack([np.arange(start, start + 40), FRACTIONS])
    text = "\n".join(",".join(map(repr, row)) for row in counted.tolist())
    source = read(tmp_path, text)
    holds(source, FRACTIONS)
    assert "left out: 1" in source.notes[0]
    holds(read(tmp_path, text, load={"columns": ["1", "2-5"]}), counted)
    grid = "\n".join(f"{i},{i * 2}" for i in range(5, 20))  # all that there is
    assert read(tmp_path, grid, load={"header": False}).distances.max() > 0


def test_whole_numbers_among_fractions_are_pointed_out(tmp_path):
    frame = pd.DataFrame(FRACTIONS, columns=list("abcd"))
    frame["survived"] = RANDOM.integers(0, 2, 40)
    source = read(tmp_path, frame, index=False)
    assert "survived holds 2 different whole numbers" in source.notes[1]
    holds(read(tmp_path, frame, index=False, load={"drop": ["survived"]}), FRACTIONS)


@pytest.mark.parametrize("cell", ["N/A", "\ufeff1.5", "--", ""])
def test_one_unreadable_cell_does_not_make_labels_of_numbers(tmp_path, cell):
    rows = [[repr(float(value)) for value in row] for row in FRACTIONS]
    for place in (3, 39):
        broken = [list(row) for row in rows]
        broken[place][0] = cell
        text = "\n".join(",".join(row) for row in broken)
        with pytest.raises(InputError, match=rf"holds numbers but for 1 of 40 .* row {place + 1};"):
            read(tmp_path, text)
        named = read(tmp_path, text, load={"labels": "1"})
        assert named.labels[place] == cell
        holds(named, FRACTIONS[:, 1:])
    tokens = [str(i) if i % 5 == 0 else f"w{i}" for i in range(40)]  # of which some are numbers
    text = "\n".join(" ".join([token, *row]) for token, row in zip(tokens, rows, strict=True))
    source = read(tmp_path, text, "t.txt")
    assert source.labels == tokens
    holds(source, FRACTIONS)


def test_choosing_columns(tmp_path):
    frame = pd.DataFrame(FRACTIONS, columns=list("abcd"))
    frame["name"] = [f"p{i}" for i in range(40)]
    holds(read(tmp_path, frame, index=False, load={"columns": ["a", "d"]}), FRACTIONS[:, [0, 3]])
    holds(read(tmp_path, frame, index=False, load={"columns": ["2-3"]}), FRACTIONS[:, 1:3])
    source = read(tmp_path, frame, index=False, load={"drop": ["c"], "labels": "name"})
    holds(source, FRACTIONS[:, [0, 1, 3]])
    assert source.labels[5] == "p5"
    for load, message in (
        ({"columns": ["e"]}, "no column 'e'; it has 5"),
        ({"columns": ["2-9"]}, "no column '2-9'"),
        ({"columns": ["0"]}, "no column '0'"),
        ({"drop": list("abcd")}, "no column is left"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, frame, index=False, load=load)
    np.save(tmp_path / "a.npy", FRACTIONS)
    for source in (str(tmp_path / "a.npy"), "classes"):
        with pytest.raises(InputError, match="is no text table"):
            probe.load_source(source, drop=["1"])


@pytest.mark.slow
def test_the_command_says_what_it_read(tmp_path):
    application = typer.Typer()
    application.command()(command)
    frame = pd.DataFrame(FRACTIONS, columns=list("abcd"))
    frame["target"] = RANDOM.integers(0, 3, 40)
    frame.to_csv(tmp_path / "iris.csv", index=False)
    out = ["--out", str(tmp_path / "p.html"), "--json"]
    run = CliRunner().invoke(application, [str(tmp_path / "iris.csv"), *out])
    assert run.exit_code == 0, run.output
    assert "40 rows x 4 columns" in " ".join(run.stderr.split())
    assert "left out: target" in " ".join(run.stderr.split())
    assert "left out: target" in json.loads(run.stdout)["notes"][0]
    chosen = [str(tmp_path / "iris.csv"), "--columns", "a,3-4", "--labels", "target", *out]
    run = CliRunner().invoke(application, chosen)
    assert "40 rows x 3 columns" in json.loads(run.stdout)["notes"][0]


def test_distances_of_no_metric_are_said_and_of_unequal_twins_refused(tmp_path):
    d = distances(FRACTIONS)
    np.save(tmp_path / "a.npy", d)
    assert probe.load_source(str(tmp_path / "a.npy")).notes == []
    np.save(tmp_path / "a.npy", d**2)
    (note,) = probe.load_source(str(tmp_path / "a.npy")).notes
    assert "break the triangle inequality" in note
    d[0, 1] = d[1, 0] = 0
    np.save(tmp_path / "a.npy", d)
    with pytest.raises(InputError, match=r"distance \[0, 1\] is 0, but"):
        probe.load_source(str(tmp_path / "a.npy"))


@pytest.mark.slow
def test_points_that_coincide_are_measured(tmp_path):
    for points in (np.repeat([[0.0, 1.0], [2.0, 5.0]], 20, 0), np.repeat(FRACTIONS[:5], 8, 0)):
        np.save(tmp_path / "a.npy", points)
        measured = probe.measure(probe.load_source(str(tmp_path / "a.npy")))
        assert probe.verdict(measured).answer in ("likely", "perhaps", "unlikely")


def test_arrays_that_are_no_matrix(tmp_path):
    path = tmp_path / "a.npy"
    for content in (
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, (}",
        b"\x93NUMPY\x01\x00F\x00{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4)}",
        b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16,
    ):
        path.write_bytes(content.ljust(200))
        with pytest.raises(InputError, match=r"not a readable \.npy"):
            probe.load_source(str(path))
    with path.open("wb") as file:
        np.savez(file, a=FRACTIONS)
    with pytest.raises(InputError, match="holds several arrays"):
        probe.load_source(str(path))
    (tmp_path / "long.csv").write_text("1,2\n3," + "4" * 140_000 + "\n")
    with pytest.raises(InputError):
        probe.load_source(str(tmp_path / "long.csv"))
