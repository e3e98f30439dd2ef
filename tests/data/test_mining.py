"""Mining a small package made for it, where every call is known, and a real one."""

import importlib.util
import json
import subprocess
import sys

import pytest

from geodapt.data import mining

FILES = {
    "__init__.py": '''
        """A package that is small enough to check by hand."""
        from toybox._shapes import Box, OldBox, volume, measure, ToyError
        from toybox import paint
        from os.path import join
        __all__ = ["Box", "OldBox", "volume", "measure", "ToyError", "join", "paint"]
    ''',
    "_shapes.py": '''
        class ToyError(Exception):
            """It broke."""

        class Box:
            """A box

            with sides.
            """
            @classmethod
            def cube(cls, side):
                """All sides the same."""

        OldBox = Box

        def volume(box):
            """volume(box) -> float

            How much   goes
            in.
            """
            return measure(Box(), hidden(1))

        def measure(*args):
            return volume(Box())

        def hidden(x):
            """Not public."""
    ''',
    "paint/__init__.py": '''
        """Colours."""
        from .colours import *
        from .colours import mix
    ''',
    "paint/colours.py": '''
        from .. import _shapes
        __all__ = ["red", "mix"]

        def red(): "The colour red."

        def mix(a, b):
            """Mix two."""
            return _shapes.volume(_shapes.Box.cube(1)), red()
    ''',
    "broken.py": "def unfinished(:\n",
    "needs_missing.py": """
        import not_installed_anywhere
        from toybox import Box, volume

        def uses():
            not_installed_anywhere.call()
            volume(Box())
    """,
    "tests/test_all.py": """
        import os
        import pytest
        import toybox
        import toybox as tb
        import toybox.paint
        from toybox import Box as B, paint as p, volume, ToyError
        from toybox.paint import *
        from toybox.tests.helpers import assert_box, helper

        B(), volume(1), red()  # at the top of the file: nobody's

        def test_order():
            volume(B(), [red() for _ in range(3)])

        def test_runs():
            B(); B(); tb.OldBox(); toybox.volume(1); volume(2); B()

        def test_attributes():
            tb.paint.mix(p.red(), toybox.Box.cube(2))
            toybox.paint.colours.red()

        def test_left_out():
            len(B()), print(os.getcwd()), tb.join("a", "b")
            with pytest.raises(ToyError):
                assert_box(volume(1))
            helper(), ToyError(), volume.__call__(3), undefined(1), B()[0](2)

        def test_shadowed(volume):
            B(), volume(1), red()

        def test_assigned():
            mix = B
            red(), mix(1, 2), B()

        def test_imported_inside():
            from toybox import measure as volume
            volume(1), B()

        def test_one_call_only():
            volume(1)

        class TestBox:
            def test_method(self):
                def inner():
                    return red()
                self.volume(), B(), inner(), (lambda: volume(1))()

            async def test_awaited(self):
                await red(), volume(2)

        if True:
            def test_conditional():
                mix(red(), 1)
    """,
    "tests/helpers.py": "def assert_box(x): ...\ndef helper(): ...\n",
}

EXPECTED = {
    ("toybox/_shapes.py", "volume"): ["Box", "measure"],
    ("toybox/_shapes.py", "measure"): ["Box", "volume"],
    ("toybox/paint/colours.py", "mix"): ["Box.cube", "volume", "paint.red"],
    ("toybox/needs_missing.py", "uses"): ["Box", "volume"],
    ("toybox/tests/test_all.py", "test_order"): ["Box", "paint.red", "volume"],
    ("toybox/tests/test_all.py", "test_runs"): ["Box", "volume", "Box"],
    ("toybox/tests/test_all.py", "test_attributes"): [
        *("paint.red", "Box.cube", "paint.mix", "paint.red")
    ],
    ("toybox/tests/test_all.py", "test_left_out"): ["Box", "volume", "Box"],
    ("toybox/tests/test_all.py", "test_shadowed"): ["Box", "paint.red"],
    ("toybox/tests/test_all.py", "test_assigned"): ["paint.red", "Box"],
    ("toybox/tests/test_all.py", "test_imported_inside"): ["measure", "Box"],
    ("toybox/tests/test_all.py", "TestBox.test_method"): ["paint.red", "Box", "volume"],
    ("toybox/tests/test_all.py", "TestBox.test_awaited"): ["paint.red", "volume"],
    ("toybox/tests/test_all.py", "test_conditional"): ["paint.red", "paint.mix"],
}


@pytest.fixture(scope="module")
def mined(toybox, tmp_path_factory):
    out = tmp_path_factory.mktemp("mined") / "toybox.json"
    command = [sys.executable, "-P", mining.__file__, "toybox", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.read_text()), done.stdout


def test_every_body_and_no_other(mined):
    result, _ = mined
    names = [item["name"].removeprefix("toybox.") for item in result["items"]]
    found = {
        (body["file"], body["function"]): [names[call] for call in body["calls"]]
        for body in result["bodies"]
    }
    assert found == EXPECTED


def test_items_have_their_first_paragraph(mined):
    result, _ = mined
    texts = {item["name"]: item["text"] for item in result["items"]}
    assert texts == {
        "toybox.Box": "toybox.Box: A box",
        "toybox.Box.cube": "toybox.Box.cube: All sides the same.",
        "toybox.measure": "toybox.measure",
        "toybox.volume": "toybox.volume: How much goes in.",
        "toybox.paint.red": "toybox.paint.red: The colour red.",
        "toybox.paint.mix": "toybox.paint.mix: Mix two.",
    }


def test_it_counts_the_files(mined):
    _, output = mined
    assert output.split() == [f"{n}/{len(FILES)}" for n in range(1, len(FILES) + 1)]


def test_nothing_was_run(mined):
    """Mining reads test files; importing one would have been seen."""
    assert importlib.util.find_spec("toybox") is None


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("numpy.linalg.norm", True),
        ("sympy.testing.pytest.raises", False),
        ("numpy._core.numeric.asarray", False),
        ("pandas.core.frame.DataFrame", False),
        ("sklearn.tests.test_base.Thing", False),
        ("scipy.test_thing.f", False),
    ],
)
def test_what_is_public(path, public):
    assert mining.is_public(path) == public


@pytest.mark.parametrize(
    ("doc", "paragraph"),
    [
        (None, ""),
        ("  One line.  ", "One line."),
        ("Two\n   lines.\n\nMore.", "Two lines."),
        ("add(x, y, /)\n\nAdd.", "Add."),
        ("zeros(*size) -> Tensor\n\nAll zeros.", "All zeros."),
        ("dtype(obj, align=False) --\n\nA type.", "A type."),
        ("f(x) is the value at x.\n\nMore.", "f(x) is the value at x."),
    ],
)
def test_first_paragraph(doc, paragraph):
    def documented(): ...

    documented.__doc__ = doc
    assert mining.first_paragraph(documented) == paragraph
