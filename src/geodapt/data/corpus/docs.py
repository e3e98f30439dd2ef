"""Built-in text: the English documentation that the installed packages carry.

Docstrings, shipped .rst, .md and .txt files, and the long descriptions of the packages' metadata.
:mod:`geodapt.data.corpus.extraction` reads a package's files; what it found is cached as Arrow, a
folder for each version of a package. A docstring that two packages have counts once. Whole packages
go to a split, so that what is tested is the prose of projects that training never saw.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from pathlib import Path

from datasets import Dataset, Features, Value
from datasets import List as Listed

from geodapt.data.corpus import extraction
from geodapt.data.corpus.corpus import SHARES, Corpus
from geodapt.data.corpus.settings import DocsSettings
from geodapt.data.domain import SPLITS, uniform
from geodapt.data.progress_bars import quiet_datasets
from geodapt.data.scripts import Advance, run_script, side_by_side
from geodapt.errors import InputError
from geodapt.files import build_once, cache_folder, short_hash
from geodapt.paths import child

EXTRACTION_VERSION = 1
"""Part of the cache's key: raised whenever the same files would give other texts."""

SUFFIXES = (".py", ".rst", ".md", ".txt")
METADATA = {"METADATA", "PKG-INFO"}
FEATURES = Features({"texts": Listed(Value("string"))})

# Tests, copies of other packages, and what packages keep for tools rather than for readers.
_PASSED_OVER = {"tests", "test", "testing", "_vendor", "_vendored", "vendored"} | {
    *("vendor", "extern", "externals", "_extern", "node_modules"),
}
_LEGAL = re.compile(
    r"licen[sc]e|copying|notice|authors|contributors|top_level|entry_points|requires|requirements"
    r"|sources|cmakelists",
    re.IGNORECASE,
)


def load_docs(settings: DocsSettings) -> Corpus:
    """The documentation of packages, read where the cache does not have it.

    Packages are held out whole: a tenth of the text to test and a twentieth to validate, or less.
    Raises :class:`InputError` for a package that is not installed, and where there is too little
    text to hold any out.
    """
    packages = installed(settings.packages)
    folders = extract_packages(packages)
    texts = {name: Dataset.load_from_disk(str(folder)) for name, folder in folders.items()}
    chosen = _deduplicated(texts)
    sizes = {name: sum(map(len, documents)) for name, documents in chosen.items() if documents}
    splits = hold_out(sizes, settings.seed)
    for split in SPLITS:
        if not splits[split]:
            raise InputError(
                f"the documentation of {len(packages)} packages ({sum(sizes.values()):,} "
                f"characters) leaves none for {split}: whole packages are held out; name more "
                "packages, or leave data.packages out to take all that are installed"
            )
    depends = [EXTRACTION_VERSION, settings.seed, [(n, packages[n].version) for n in sizes]]
    return Corpus(
        "docs",
        short_hash(depends),
        lambda: ((split, t) for split in SPLITS for name in splits[split] for t in chosen[name]),
        {
            "packages": {split: len(names) for split, names in splits.items()},
            "characters": {s: sum(sizes[name] for name in names) for s, names in splits.items()},
            "held_out": splits["test"],
        },
    )


def installed(names: Iterable[str] | None) -> dict[str, Distribution]:
    """The distributions of these names, or all, by name in alphabetical order."""
    if names is not None:
        found = {}
        for name in names:
            try:
                found[name] = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError as error:
                raise InputError(
                    f"data.packages names '{name}', which is not installed: pip install {name}, "
                    "or leave it out"
                ) from error
        return dict(sorted(found.items()))
    everything: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.name:  # the remains of an upgrade have none
            everything.setdefault(distribution.name, distribution)  # the first is the one imported
    return dict(sorted(everything.items()))


def files(distribution: Distribution) -> list[str]:
    """A package's files that may hold documentation."""
    found = []
    for file in distribution.files or ():
        named = file.suffix in SUFFIXES and not _LEGAL.search(file.stem)
        parts = file.parts[:-1]
        if (named or file.name in METADATA) and not any(
            part in _PASSED_OVER or part.startswith(".") for part in parts
        ):
            if file.suffix == ".py" and file.name.startswith(("test_", "conftest")):
                continue
            found.append(str(distribution.locate_file(file)))
    return sorted(found)


def hold_out(sizes: Mapping[str, int], seed: int) -> dict[str, list[str]]:
    """The packages of each split.

    Packages are taken in an order set by the seed; one goes to test or to validation if it fits
    whole into what is left of that split's share, so the largest stay in training.
    """
    room = {split: share * sum(sizes.values()) for split, share in SHARES.items()}
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in sorted(sizes, key=lambda name: uniform(name, seed)):
        split = next((split for split in room if sizes[name] <= room[split]), "train")
        splits[split].append(name)
        if split in room:
            room[split] -= sizes[name]
    return splits


def _deduplicated(texts: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """The documents of each package, a file each, without texts that came before."""
    seen: set[bytes] = set()
    chosen: dict[str, list[str]] = {}
    for name, dataset in texts.items():
        chosen[name] = []
        for batch in dataset.with_format("arrow").iter(1000):
            for pieces in batch["texts"].to_pylist():
                new = [piece for piece in pieces if _is_new(piece, seen)]
                if new:
                    chosen[name].append("\n\n".join(new))
    return chosen


def _is_new(text: str, seen: set[bytes]) -> bool:
    """Whether a text's words, under whatever name they stand, have not been seen; now they are."""
    body = text.partition("\n\n")[2] or text
    digest = hashlib.blake2b(" ".join(body.lower().split()).encode(), digest_size=12).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


# --- the cache ---------------------------------------------------------------------------------


def extract_packages(packages: Mapping[str, Distribution]) -> dict[str, Path]:
    """The folder of each package's texts; missing ones are extracted side by side."""
    folders = {name: _cached(name, package.version) for name, package in packages.items()}
    missing = {name: files(packages[name]) for name in folders if not folders[name].is_dir()}
    if missing:
        side_by_side(
            f"reading the documentation of {len(missing)} packages",
            {name: len(paths) for name, paths in missing.items()},
            lambda name, advance: _extract_into(folders[name], missing[name], advance),
        )
    return folders


def _cached(name: str, version: str) -> Path:
    return child(cache_folder() / "docs", f"{name}-{version}-read{EXTRACTION_VERSION}")


def _extract_into(folder: Path, paths: list[str], advance: Advance) -> None:
    def make(temporary: Path) -> None:
        found = _run_extractor(paths, temporary, advance) if paths else []
        found = found or [[]]  # Arrow data sets cannot be read back where they have no row
        with quiet_datasets():
            Dataset.from_dict({"texts": found}, FEATURES).save_to_disk(str(temporary))

    build_once(folder, make)


def _run_extractor(paths: list[str], folder: Path, advance: Advance) -> list[list[str]]:
    asked = folder / "files.json"
    asked.write_text(json.dumps(paths))
    failed = (
        f"the documentation in {Path(paths[0]).parent} could not be read; leave that package "
        "out by naming the others in data.packages"
    )
    found = run_script(extraction, asked, folder=folder, failed=failed, advance=advance)
    asked.unlink()
    return found
