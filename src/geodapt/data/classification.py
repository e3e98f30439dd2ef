"""Texts with labels in several domains: from a table, or from the hub."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, config, load_dataset

from geodapt.data.domain import SPLITS, LabelledDomain, split_of
from geodapt.data.sequences import at_most
from geodapt.data.settings import ClassificationSettings
from geodapt.data.table_files import cell, named_among, require_columns, table
from geodapt.errors import InputError, reason_of
from geodapt.hub import require_hub

Columns = list[tuple[str, str]]
"""Settings and the columns that they name: text, label and domain."""


def load_classification(settings: ClassificationSettings) -> dict[str, LabelledDomain]:
    """The domains in the order asked for, each split 70 / 10 / 20 by a hash of the text.

    So one text is in one split only, in all domains; a row that a domain has twice counts once.
    Raises :class:`InputError` for a missing path or column, a malformed line, an empty cell,
    fewer than two labels, and a domain that is missing or too small to split.
    """
    labelled: dict[str, dict[tuple[str, str], None]] = {}  # (text, label) in the order of the file
    for text, label, domain in _read(settings):
        labelled.setdefault(domain, {})[text, label] = None
    if not labelled:
        raise InputError(f"{settings.path} is empty: it has no rows under its header")
    names = named_among(settings.domains, list(labelled), settings.path)
    labels = sorted({label for name in names for _, label in labelled[name]})
    if len(labels) < 2:
        raise InputError(
            f"{settings.path}: there is one label only, '{labels[0]}'; classification needs two"
        )
    return {name: _domain(name, list(labelled[name]), labels, settings) for name in names}


def _domain(
    name: str, labelled: list[tuple[str, str]], labels: list[str], settings: ClassificationSettings
) -> LabelledDomain:
    features = Features({"text": Value("string"), "label": ClassLabel(names=labels)})
    examples: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for example in labelled:
        examples[split_of(example[0], settings.seed)].append(example)
    splits = {}
    for split, chosen in examples.items():
        if not chosen:
            raise InputError(
                f"domain '{name}' has {len(labelled)} rows and none of them for {split}: it is too "
                "small to split; give more data"
            )
        most = settings.max_train if split == "train" else settings.max_test
        chosen = at_most(chosen, most, (settings.seed, name, split))
        columns = {"text": [text for text, _ in chosen], "label": [label for _, label in chosen]}
        splits[split] = Dataset.from_dict(columns, features=features)
    return LabelledDomain(name, labels, DatasetDict(splits))


def _read(settings: ClassificationSettings) -> Iterator[tuple[str, str, str]]:
    """Text, label and domain of each row, wherever the rows are."""
    columns = [
        ("data.text", settings.text),
        ("data.label", settings.label),
        ("data.domain", settings.domain),
    ]
    if settings.on_hub:
        yield from _read_hub(settings.path, columns)
        return
    check = partial(require_columns, columns)
    for place, row in table(settings.path, "texts with labels, or a hub name", check):
        yield _cells(row, columns, place)


def _read_hub(name: str, columns: Columns) -> Iterator[tuple[str, str, str]]:
    """All splits of a hub data set together: they are split anew, so that none share a text."""
    kept = Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")
    if not kept.is_dir():
        require_hub(name)
    try:
        splits = load_dataset(name)
    except Exception as error:  # whatever the hub, the network or the builder raises
        raise InputError(
            f"data path '{name}' is no file here, and could not be loaded from the hub "
            f"({reason_of(error)}); check the name and the network, or give a "
            ".csv, .jsonl or .parquet file"
        ) from error
    for split, dataset in splits.items():
        label = columns[1][1]
        feature = dataset.features.get(label)
        for number, row in enumerate(dataset, 1):
            if isinstance(feature, ClassLabel) and row[label] is not None:
                row = {**row, label: feature.int2str(row[label])}
            place = f"{name}, split {split}, row {number}"
            require_columns(columns, row, place)
            yield _cells(row, columns, place)


def _cells(row: dict[str, Any], columns: Columns, place: str) -> tuple[str, str, str]:
    """The three cells as text."""
    text, label, domain = (str(cell(row, column, place)) for _, column in columns)
    return text, label, domain
