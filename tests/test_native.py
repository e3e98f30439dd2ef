"""Kernels that the machine's own compiler makes: compiled once, loaded with care."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geodapt import native

SOURCES = sorted(Path(native.__file__).parent.rglob("kernels.cpp"))
needs_compiler = pytest.mark.parametrize("have", [True] if native.library(SOURCES[0]) else [])


@pytest.fixture
def small_source(tmp_path, monkeypatch):
    """In place of real kernels, which take seconds to compile."""
    source = tmp_path / "small" / "kernels" / "kernels.cpp"
    source.parent.mkdir(parents=True)
    source.write_text('extern "C" int answer() { return 42; }', encoding="utf-8")
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    return source


@needs_compiler
def test_kernels_are_compiled_once_into_the_cache(have, small_source, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(native.library, [small_source] * 4))
    assert {library.answer() for library in libraries} == {42}
    (compiled,) = (tmp_path / "cache" / "native").iterdir()
    assert compiled.name.startswith("small-")
    assert native.library(small_source) is libraries[0]


@needs_compiler
def test_read_only_cache_compiles_for_this_process(have, small_source, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "native").write_text("a file where a folder should be", encoding="utf-8")
    assert native.library(small_source).answer() == 42


@needs_compiler
def test_library_of_another_user_is_not_loaded(have, small_source, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    library = shared / "kernels.so"
    shutil.copyfile(native.library(small_source)._name, library)
    with pytest.raises(OSError, match="another user"):
        native._load(library)
    shared.chmod(0o755)
    native._load(library)


def test_source_that_does_not_compile_leaves_the_operators(small_source):
    small_source.write_text("this is no program", encoding="utf-8")
    assert native.library(small_source) is None


@needs_compiler
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parents[1].name)
def test_all_kernels_compile_here(have, source):
    assert native.library(source) is not None
