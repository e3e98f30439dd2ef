"""What counts as English documentation, and what is left of it once it is clean."""

import ast
import textwrap

import pytest

from geodapt.data.corpus import extraction
from geodapt.data.corpus.extraction import clean, docstrings, is_english, of_python, read

PROSE = "The distance between two points of the hyperboloid is given by this function."


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("See :class:`~a.b.Model` and :func:`run`.", "See a.b.Model and run."),
        ("See :doc:`the guide <guide/index>`.", "See the guide."),
        ("Parameters\n----------\nx : int", "Parameters\n\nx : int"),
        ("Say:\n\n>>> f(1)\n2\n... 3\n\nThat is all.", "Say:\n\nThat is all."),
        ("Text.\n\nExamples\n--------\n>>> f(1)\n2", "Text."),
        ("Run it:\n\n```bash\nmake all\n```\n\nDone.", "Run it:\n\nDone."),
        ("[The page](https://a.b/c) of ![badge](x.svg) it.", "The page of badge it."),
        ("<p align='center'>Bold</p>", "Bold"),
        (".. image:: a.png\nText", "Text"),
        ("``x`` is x   \r\n\r\n\r\n\r\nand y", "`x` is x\n\nand y"),
        ("if a < b and c > d: no tag", "if a < b and c > d: no tag"),
    ],
)
def test_cleaning(marked, expected):
    assert clean(marked) == expected


@pytest.mark.parametrize("text", [PROSE, "Return the value that is stored under this key or None."])
def test_english(text):
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Returns x.",  # too short to say anything
        "Die Funktion berechnet den Abstand zweier Punkte auf dem Hyperboloid und gibt ihn zurueck",
        "0.1 0.2 0.3 the 0.4 of 0.5 to 0.6 and 0.7 in 0.8 is 0.9 it 1.0 for 1.1 that 1.2 on 1.3",
        "apple banana cherry date elderberry fig grape honeydew kiwi lemon mango nectarine",
        "",
    ],
)
def test_not_english(text):
    assert not is_english(text)


def test_docstrings_have_names_and_come_in_order():
    tree = ast.parse(
        textwrap.dedent('''
            """Module."""
            def f():
                "First."
                def inner(): "Nested functions are no documentation."
            if True:
                class A:
                    """A."""
                    def m(self): "Method."
                    class B: "Inner class."
            async def g(): "Last."
        ''')
    )
    assert list(docstrings(tree)) == [
        ("", "Module."),
        ("f", "First."),
        ("A", "A."),
        ("A.m", "Method."),
        ("A.B", "Inner class."),
        ("g", "Last."),
    ]


def test_a_python_file_is_parsed_and_never_run():
    source = f'raise SystemExit\ndef f():\n    """{PROSE}"""\ndef g():\n    "Short."\n'
    assert of_python(source.encode()) == [f"f\n\n{PROSE}"]
    assert of_python(b"def f(:") == []
    assert of_python(b"\xff\x00") == []


def test_files(tmp_path):
    (tmp_path / "METADATA").write_text(f"Name: x\nVersion: 1\nSummary: y\n\n# Title\n\n{PROSE}\n")
    (tmp_path / "guide.rst").write_text(f"{PROSE}\n")
    (tmp_path / "latin.txt").write_bytes(PROSE.encode() + b"\xe9")
    (tmp_path / "table.txt").write_text(PROSE + "\n" + "x" * extraction.LARGEST)
    assert read(tmp_path / "METADATA") == [f"# Title\n\n{PROSE}"]
    assert read(tmp_path / "guide.rst") == [PROSE]
    for name in ("latin.txt", "table.txt", "gone.txt"):
        assert read(tmp_path / name) == []
