"""The built-in text: from packages on disk to three splits, the cache, and what can be wrong."""

import shutil

import datasets
import pytest

from geodapt.data.corpus import DocsSettings, docs, load_corpus
from geodapt.data.corpus.docs import hold_out, installed
from geodapt.errors import InputError

SHARED = "This sentence is in the documentation of all of the packages that there are here."


def prose(package: str, number: int) -> str:
    return f"Function {number} of {package} is one that you should use for the things it is for."


def write_package(site, name: str, functions: int) -> None:
    package, info = site / name, site / f"{name}-1.0.dist-info"
    for folder in (package / "tests", package / "_vendor", info):
        folder.mkdir(parents=True)
    defined = [f'def f{n}():\n    """{prose(name, n)}"""\n' for n in range(functions)]
    (package / "__init__.py").write_text(f'"""{SHARED}"""\n' + "".join(defined))
    (package / "guide.md").write_text(
        f"# Guide\n\nThis is how you use {name} for what it is for.\n"
    )
    skipped = f"This is the text of {name} that should not be in the corpus at all."
    (package / "LICENSE.txt").write_text(skipped)
    for file in ("tests/test_it.py", "tests/helper.py", "_vendor/copy.py", "data.csv"):
        (package / file).write_text(f'"""{skipped}"""')
    (info / "METADATA").write_text(
        f"Name: {name}\nVersion: 1.0\n\n{name} is what you want to use.\n"
    )
    files = [*package.rglob("*.*"), info / "METADATA"]
    (info / "RECORD").write_text("".join(f"{f.relative_to(site)},,\n" for f in files))


NAMES = [f"toy{number}" for number in range(12)]


@pytest.fixture
def site(tmp_path, monkeypatch):
    for number, name in enumerate(NAMES):
        write_package(tmp_path, name, 40 if number == 0 else 4)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_whole_packages_are_split_and_shared_text_counts_once(site):
    corpus = load_corpus(DocsSettings(packages=NAMES))
    found = {s: list(corpus.documents(s)) for s in ("train", "validation", "test")}
    everything = "\n".join(text for texts in found.values() for text in texts)
    assert everything.count(SHARED) == 1
    assert "should not be in the corpus" not in everything
    for name in NAMES:
        splits = [s for s, texts in found.items() if prose(name, 0) in "\n".join(texts)]
        assert len(splits) == 1
        assert f"how you use {name} for" in "\n".join(found[splits[0]])
    assert prose("toy0", 39) in "\n".join(found["train"])  # the largest package trains
    assert corpus.facts["packages"] == {
        split: len({name for name in NAMES if f"of {name} is" in "\n".join(texts)})
        for split, texts in found.items()
    }
    assert corpus.facts["characters"] == {s: sum(map(len, t)) for s, t in found.items()}


def test_what_was_read_is_kept_and_never_read_again(site, monkeypatch):
    first = load_corpus(DocsSettings(packages=NAMES))
    monkeypatch.setattr(docs, "_run_extractor", lambda *_: pytest.fail("read again"))
    again = load_corpus(DocsSettings(packages=NAMES))
    assert again.key == first.key
    assert list(again.documents("train")) == list(first.documents("train"))
    monkeypatch.setattr(docs, "EXTRACTION_VERSION", 99)
    with pytest.raises(pytest.fail.Exception, match="read again"):
        load_corpus(DocsSettings(packages=NAMES))


def test_a_kill_leaves_no_cache(site, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(datasets.Dataset, "save_to_disk", _killed)
        with pytest.raises(KeyboardInterrupt):
            load_corpus(DocsSettings(packages=["toy1"]))
    assert {path.suffix for path in (site / "cache" / "docs").iterdir()} == {".lock"}


def _killed(*_):
    raise KeyboardInterrupt


def test_another_version_and_another_seed_are_another_corpus(site):
    first = load_corpus(DocsSettings(packages=NAMES))
    assert load_corpus(DocsSettings(packages=NAMES, seed=1)).key != first.key
    shutil.move(site / "toy3-1.0.dist-info", site / "toy3-2.0.dist-info")
    metadata = site / "toy3-2.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
    assert load_corpus(DocsSettings(packages=NAMES)).key != first.key


def test_all_that_is_installed_when_no_package_is_named(site):
    names = list(installed(None))
    assert set(NAMES) < set(names)
    assert "numpy" in names
    assert names == sorted(names)


def test_held_out_are_at_most_the_shares():
    sizes = {f"p{number}": 1 + number % 7 for number in range(100)} | {"large": 150}
    splits = hold_out(sizes, 0)
    assert sorted(name for names in splits.values() for name in names) == sorted(sizes)
    total = sum(sizes.values())
    assert 0.08 * total < sum(sizes[n] for n in splits["test"]) <= 0.1 * total
    assert 0.03 * total < sum(sizes[n] for n in splits["validation"]) <= 0.05 * total
    assert "large" in splits["train"]
    assert hold_out(sizes, 1) != splits


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (["no-such-thing"], "'no-such-thing', which is not installed: pip install no-such-thing"),
        (["toy1", "toy2"], "leaves none for validation|leaves none for test"),
    ],
)
def test_what_can_be_wrong(site, packages, said):
    with pytest.raises(InputError, match=said):
        load_corpus(DocsSettings(packages=packages))


def test_an_extractor_that_dies_is_told_of(site, monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('the disk is full')")
    monkeypatch.setattr(docs.extraction, "__file__", str(broken))
    with pytest.raises(InputError, match=r"exit status 1\): OSError: the disk is full"):
        load_corpus(DocsSettings(packages=["toy1"]))
