"""A folder with a little text and a cache of its own, and the command line in it."""

from functools import partial
from pathlib import Path

import pytest

from tests.commands import call
from tests.helm.runs import write_text


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("helm")
    write_text(folder / "text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODAPT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def geodapt(world):
    """``geodapt(*arguments)``: the command line in this process, in the world's folder."""
    return partial(call, world)
