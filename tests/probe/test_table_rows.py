"""Which lines of a text table are rows, and what separates their cells."""

import numpy as np
import pytest

from geodapt.errors import InputError
from geodapt.probe.tables import read_table

POINTS = np.random.default_rng(11).normal(size=(70, 3)).round(5)


def written(path, labels, separator=",", before="", points=POINTS, **how):
    lines = (separator.join([a, *map(str, x)]) for a, x in zip(labels, points, strict=False))
    path.write_text(before + "\n".join(lines) + "\n", newline="", **how)
    return path


def names(**changed):
    """Labels of the points, some of them changed: ``_5="x"`` the fifth."""
    found = [f"name {i}".replace(" ", "_") for i in range(len(POINTS))]
    for place, name in changed.items():
        found[int(place[1:])] = name
    return found


def refused(path, said):
    with pytest.raises(InputError, match=said) as error:
        read_table(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_quotation_mark_among_tokens_is_one_of_them(tmp_path, separator):
    labels = names(_0="'", _5='"', _6='"', _30='""', _60='"cited')
    table = read_table(written(tmp_path / "a.txt", labels, separator))
    assert table.labels == labels
    np.testing.assert_array_equal(table.numbers, POINTS)


def test_names_that_are_written_between_quotation_marks(tmp_path):
    text = '"height"\t"target"\n' + "".join(f"{x}\t{i % 3}\n" for i, (x, *_) in enumerate(POINTS))
    (tmp_path / "r.tsv").write_text(text)
    table = read_table(tmp_path / "r.tsv")
    np.testing.assert_array_equal(table.numbers, POINTS[:, :1])
    assert "left out: target" in table.notes[0]


@pytest.mark.parametrize("places", [(3, 9), (60, 64), (20, 21)])
def test_rows_between_stray_quotation_marks_are_refused(tmp_path, places):
    labels = names(**{f"_{place}": '"' for place in places})
    path = written(tmp_path / "a.csv", labels)
    refused(path, f"line {places[0] + 1}: a quotation mark opens a cell that holds numbers")
    text = "".join(f"{x},{y},{a}\n" for (x, y, _), a in zip(POINTS, labels, strict=True))
    path.write_text(text)
    refused(path, f"line {places[0] + 1}: a quotation mark opens a cell that holds numbers")


def test_a_line_break_between_quotation_marks(tmp_path):
    labels = names(_2='"of two\nlines, 1"', _3='"of ""three"",\n\nlines"', _40='"5\r\n6"')
    labels[50] = '#"7'
    path = written(tmp_path / "a.csv", labels, before='# 5" wide\nname,x,y,z\n')
    with path.open("a") as file:
        file.write('# the "end\n')
    table = read_table(path)
    wanted = names(_2="of two\nlines, 1", _3='of "three",\n\nlines', _40="5\r\n6", _50='#"7')
    assert table.labels == wanted
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.notes[1:] == (
        "left out as comments: lines 1, 77",
        "read as rows, as they have a row's cells, though they begin with #: line 57",
    )


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";"])
def test_labels_that_begin_like_comments(tmp_path, separator):
    labels = names(_0="#", _1="##ing", _33="#tag", _69="#9")
    table = read_table(written(tmp_path / "a.txt", labels, separator))
    assert table.labels == labels
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.notes[1].endswith("though they begin with #: lines 1, 2, 34, 70")
    hashed = [f"#{name}" for name in names()]
    assert read_table(written(tmp_path / "a.txt", hashed, separator)).labels == hashed


def test_what_is_left_out_is_said(tmp_path):
    rows = [",".join(map(str, x)) for x in POINTS]
    rows[10], rows[65] = f"#{rows[10]}", f"# {rows[65]}"
    (tmp_path / "a.csv").write_text("# x,y,z\n\n" + "\n".join(rows))
    table = read_table(tmp_path / "a.csv")
    np.testing.assert_array_equal(table.numbers, np.delete(POINTS, [10, 65], 0))
    assert table.notes[1] == "left out as comments: lines 1, 13, 68"


def test_a_column_alone_has_no_labels(tmp_path):
    (tmp_path / "a.csv").write_text("#one\n0.5\n#two\n0.25\n#4\n0.125\n")
    table = read_table(tmp_path / "a.csv")
    assert table.numbers.tolist() == [[0.5], [0.25], [0.125]]
    assert table.notes[1] == "left out as comments: lines 1, 3, 5"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, encoding):
    numbers = [str(i * 7 % 70) for i in range(70)]
    path = written(tmp_path / "a.csv", numbers, before="id,x,y,z\n", encoding=encoding)
    assert "left out: id" in read_table(path).notes[0]
    np.testing.assert_array_equal(read_table(path).numbers, POINTS)
    path = written(tmp_path / "a.txt", numbers, " ", encoding=encoding)
    assert read_table(path).numbers[:, 0].tolist() == [float(i) for i in numbers]


@pytest.mark.parametrize(
    ("label", "separator"),
    [
        ("Rome, {}", ";"),
        ("Rome, Italy {}", "\t"),
        ("Rome; {}", ","),
        ("No {}", "\t"),
        ("a:{};b:2", ","),
    ],
)
def test_labels_that_hold_another_separator(tmp_path, label, separator):
    labels = [label.format(i) for i in range(len(POINTS))]
    for columns in (1, 3):
        points = POINTS[:, :columns]
        table = read_table(written(tmp_path / "a.csv", labels, separator, points=points))
        assert (table.kind, table.labels) == ("vectors", labels)
        np.testing.assert_array_equal(table.numbers, points)


def test_commas_among_tokens_between_blanks(tmp_path):
    labels = names(_1=",", _4="1,000", _8=";")
    table = read_table(written(tmp_path / "a.txt", labels, " "))
    assert table.labels == labels
    np.testing.assert_array_equal(table.numbers, POINTS)


@pytest.mark.parametrize("separator", [";", "\t", " "])
@pytest.mark.parametrize("first", ["0,5", "word"])
def test_decimal_commas_are_refused(tmp_path, separator, first):
    (tmp_path / "a.csv").write_text(f"{first}{separator}0,7\n" * 9)
    refused(tmp_path / "a.csv", "'0,[57]' may be a number with a decimal comma")


def test_separators_that_are_as_likely_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{i},a;{i + 1}\n" for i in range(9)))
    refused(tmp_path / "a.csv", "may be separated by any of")
    (tmp_path / "a.csv").write_text("Rome, Italy;Europe\nBonn, Germany;Europe\n")
    refused(tmp_path / "a.csv", "line 1: a comma or a semicolon may separate its nodes")


def test_edges_behind_a_hash(tmp_path):
    (tmp_path / "a.tsv").write_text("# from\tto\n#source\ttarget\na\tb\n# x\ty\n#no edge at all\n")
    assert read_table(tmp_path / "a.tsv").edges == [("a", "b")]
    (tmp_path / "a.tsv").write_text("a\tb\n#tag\tb\n")
    refused(tmp_path / "a.tsv", r"line 2: '#tag\sb' may be a comment or an edge")
    (tmp_path / "a.csv").write_text('a,b\n"#tag","b, c"\n')
    assert read_table(tmp_path / "a.csv").edges == [("a", "b"), ("#tag", "b, c")]
    (tmp_path / "a.csv").write_text('"a, b";c\nd;e\n')
    assert read_table(tmp_path / "a.csv").edges == [("a, b", "c"), ("d", "e")]
