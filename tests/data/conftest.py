"""A small package on disk, and a cache of its own for each test that mines."""

import os
import textwrap
from pathlib import Path

import pytest

import geodapt


@pytest.fixture(scope="module")
def toybox(request, tmp_path_factory):
    """The folder of an installed-looking package ``toybox``, importable by new interpreters."""
    root = tmp_path_factory.mktemp("site")
    for name, content in request.module.FILES.items():
        path = root / "toybox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    info = root / "toybox-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toybox\nVersion: 1.0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{root}{os.pathsep}{Path(geodapt.__file__).parents[1]}")
        yield root
