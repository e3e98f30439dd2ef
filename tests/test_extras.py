"""The command that an error names must work for the geodapt at hand."""

import importlib.metadata
import importlib.util
import json
import shlex

import pytest

from geodapt import extras
from geodapt.errors import InputError
from geodapt.recipes.loading import load_recipe


class Distribution:
    def __init__(self, written: str | None) -> None:
        self.written = written

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.written


def origin(url, **info):
    return json.dumps({"url": url, **info})


@pytest.fixture
def come_from(monkeypatch):
    def set_origin(written):
        extras._source.cache_clear()
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(written))

    yield set_origin
    extras._source.cache_clear()


def test_a_checkout_is_named_by_its_folder(come_from, tmp_path):
    folder = tmp_path / "my checkout"
    folder.mkdir()
    come_from(origin(folder.as_uri(), dir_info={"editable": True}))
    assert shlex.split(extras.install("probe")) == ["pip", "install", "-e", f"{folder}[probe]"]


def test_a_wheel_is_named_by_its_file(come_from, tmp_path):
    wheel = tmp_path / "geodapt-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    come_from(origin(wheel.as_uri(), archive_info={}))
    assert shlex.split(extras.install("quant")) == ["pip", "install", f"{wheel}[quant]"]


@pytest.mark.parametrize(
    "written", [None, "{", origin("file:///no/such/place"), origin("https://x")]
)
def test_otherwise_the_index_is_asked(come_from, written):
    come_from(written)
    assert extras.install("search") == "pip install 'geodapt[search]'"


def test_the_error_says_what_and_how(come_from):
    come_from(None)
    assert str(extras.missing("the search needs optuna", "search")) == (
        "the search needs optuna: pip install 'geodapt[search]'"
    )


def test_what_measures_boxes_is_asked_for_before_anything_trains(monkeypatch):
    pytest.importorskip("faster_coco_eval")
    here = importlib.util.find_spec
    recipe = load_recipe("hyperclip-glyphs-detection").recipe
    recipe.require_inputs()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "coco" in name else here(name)
    )
    with pytest.raises(InputError, match=r"faster-coco-eval: .*\[vision\]"):
        recipe.require_inputs()
