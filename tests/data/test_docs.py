"""What docs/data.md shows is what the settings take."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from geodapt.data import DataSettings
from geodapt.data.corpus import CorpusSettings
from geodapt.data.glyphs import GlyphSettings
from geodapt.data.settings import GROUPS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_valid(block):
    shown = yaml.safe_load(block)["data"]
    settings = TypeAdapter(DataSettings | GlyphSettings | CorpusSettings).validate_python(shown)
    assert settings.kind == shown["kind"]


def test_the_groups_shown_are_those_that_come_with_it():
    (shown,) = (yaml.safe_load(block)["data"] for block in BLOCKS if "groups:" in block)
    assert shown["groups"] == GROUPS
    assert list(shown["groups"]) == list(GROUPS)
