"""Built-in data: how installed packages call their own public functions.

Real sequential data in several domains that is already on every user's machine. A domain is a
package; an item is a public callable, its text the qualified name and the first paragraph of its
docstring; a user is one function body, its history the calls in it in the order in which they
run. :mod:`geodapt.data.mining` reads the packages' files; what it found is cached as Arrow.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset

from geodapt.data import mining
from geodapt.data.domain import Domain
from geodapt.data.progress_bars import quiet_datasets
from geodapt.data.scripts import Advance, run_script, side_by_side
from geodapt.data.sequences import Trail, build_domain, k_core, rows_by_group
from geodapt.data.settings import PACKAGES, ApiCallSettings, distribution
from geodapt.files import build_once, cache_folder

MINING_VERSION = 2
"""Part of the cache's key: raised whenever mining would give another result for the same
package."""


def load_api_calls(settings: ApiCallSettings) -> dict[str, Domain]:
    """The domains in the order asked for, mined where the cache does not have them.

    Raises :class:`InputError` for an unknown or missing package, and for one with too few items.
    """
    names = {name: distribution(name) for name in settings.domains}
    folders = mine_packages(names.values())
    return {name: _domain(name, folders[names[name]], settings) for name in names}


def _domain(name: str, folder: Path, settings: ApiCallSettings) -> Domain:
    items = Dataset.load_from_disk(str(folder / "items"))
    bodies = Dataset.load_from_disk(str(folder / "bodies"))
    calls = list(bodies["calls"])
    users = np.repeat(np.arange(len(calls)), [len(body) for body in calls])
    flat = np.array([call for body in calls for call in body])
    stays = k_core(users, flat, settings.min_history + 1, settings.k_core)
    kept: dict[int, list[int]] = {}
    for body, call in zip(users[stays].tolist(), flat[stays].tolist(), strict=True):
        kept.setdefault(body, []).append(call)
    files, functions = list(bodies["file"]), list(bodies["function"])
    trails = [
        Trail(f"{files[body]}::{functions[body]}", tuple(calls), files[body])
        for body, calls in kept.items()
    ]
    texts = list(zip(items["name"], items["text"], strict=True))
    return build_domain(name, rows_by_group(trails, settings, settings.fold), texts, settings)


def module_tree(domains: Mapping[str, Domain]) -> list[tuple[str, str]]:
    """The hierarchy given by the items' dotted names: ``(parent, child)`` from package to
    callable."""
    edges: dict[tuple[str, str], None] = {}
    for domain in domains.values():
        for name in domain.items["name"]:
            parts = name.split(".")
            for depth in range(1, len(parts)):
                edges[".".join(parts[:depth]), ".".join(parts[: depth + 1])] = None
    return list(edges)


# --- the cache ---------------------------------------------------------------------------------


def mine_packages(packages: Iterable[str]) -> dict[str, Path]:
    """The folder of what was mined, for each distribution; missing ones are mined side by side."""
    folders = {package: _cached(package) for package in packages}
    missing = [package for package, folder in folders.items() if not folder.is_dir()]
    if missing:
        sizes = {p: len(mining.source_files(PACKAGES[p])) for p in missing}
        side_by_side(
            f"reading {', '.join(missing)}",
            sizes,
            lambda package, advance: _mine_into(folders[package], PACKAGES[package], advance),
        )
    return folders


def _cached(package: str) -> Path:
    version = importlib.metadata.version(package)
    return cache_folder() / "api_calls" / f"{package}-{version}-mined{MINING_VERSION}"


def _mine_into(folder: Path, module: str, advance: Advance) -> None:
    def make(temporary: Path) -> None:
        failed = f"the package {module} could not be read; does `python -c 'import {module}'` work?"
        mined = run_script(mining, module, folder=temporary, failed=failed, advance=advance)
        with quiet_datasets():
            for name, rows in mined.items():
                Dataset.from_list(rows).save_to_disk(str(temporary / name))

    build_once(folder, make)
