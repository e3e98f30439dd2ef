"""Labelled pictures: the names of their classes, a sentence for them, and splits.

Every data set of labelled pictures has these columns, whatever it was loaded from:

==========  =====================================================================
``image``   the picture
``label``   the number of its class, counted from 0
``domain``  optional: where it comes from, a ``datasets.ClassLabel`` (a font, a hand)
==========  =====================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from random import Random
from typing import Literal

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset, Features, Image, Value
from jaxtyping import Int

from geodapt.data.progress_bars import quiet_datasets
from geodapt.data.vision.features import picture_source, stored_pictures
from geodapt.errors import InputError
from geodapt.progress import track
from geodapt.vision.images import open_picture


def draw_shots(
    splits: Sequence[tuple[Int[np.ndarray, " rows"], int]], seed: int
) -> list[list[int]]:
    """Row numbers of so many pictures per class: (labels, shots) of each split in turn.

    The rows of a split are grouped by label in the order in which labels appear; of each group
    ``shots`` rows are sampled without replacement, one generator going through all groups and all
    splits. A group of fewer rows gives all of them and draws nothing. This is what CoOp does after
    ``random.seed(seed)`` (Zhou et al. 2022; Dassl's ``generate_fewshot_dataset``), so the published
    splits give the published shots.
    """
    random = Random(seed)
    return [_draw(labels, shots, random) for labels, shots in splits]


def _draw(labels: Int[np.ndarray, " rows"], shots: int, random: Random) -> list[int]:
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(row)
    drawn: list[int] = []
    for rows in groups.values():
        drawn += random.sample(rows, shots) if len(rows) >= shots else rows
    return drawn


LABELLED = Features({"image": Image(), "label": Value("int32")})
SPLITS = ("train", "validation", "test")
VALIDATION_SHOTS = 4
"""The most pictures of a class that validate in a few-shot draw, as in CoOp."""


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures of two classes or more.

    Raises :class:`InputError` for fewer classes, an empty name, a template without exactly one
    ``{}``, unknown splits, missing columns, and a label that is no class.
    """

    names: tuple[str, ...]
    """Of the classes, by label."""
    template: str
    """The sentence of the data set that zero-shot classification asks, such as ``{} texture.``."""
    splits: Mapping[str, Dataset]
    """Of ``train``, ``validation``, ``test`` those that there are."""
    title: str = ""
    captions: tuple[tuple[str, ...], ...] | None = None
    """Of each class its path in a known tree, from general to the name itself."""
    notes: list[str] = field(default_factory=list)
    """What its reader should know: classes left out, names that stand twice."""

    def __post_init__(self) -> None:
        called = f"'{self.title}' " if self.title else ""
        if len(self.names) < 2:
            raise InputError(
                f"the pictures {called}have {len(self.names)} "
                f"class{'' if len(self.names) == 1 else 'es'}; there is nothing to tell apart with "
                "fewer than two"
            )
        if empty := [number for number, name in enumerate(self.names) if not name.strip()]:
            raise InputError(f"class {empty[0]} of the pictures {called}has an empty name")
        if self.template.count("{}") != 1:
            raise InputError(
                f"template '{self.template}' needs exactly one {{}} for the class's name"
            )
        if self.captions is not None and len(self.captions) != len(self.names):
            raise InputError(
                f"{len(self.names)} classes have {len(self.captions)} paths of captions"
            )
        for split, rows in self.splits.items():
            if split not in SPLITS:
                raise InputError(f"'{split}' is no split of pictures; expected {', '.join(SPLITS)}")
            if missing := [name for name in LABELLED if name not in rows.features]:
                raise InputError(
                    f"the split {split} has no column '{missing[0]}'; it has "
                    f"{', '.join(rows.features)}"
                )
            labels = label_column(rows)
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
                wrong = labels[(labels < 0) | (labels >= len(self.names))][0]
                raise InputError(
                    f"the split {split} has the label {wrong}, but there are {len(self.names)} "
                    "classes, counted from 0"
                )

    def few_shot(
        self, shots: int, seed: int, short: Literal["refuse", "all"] = "refuse"
    ) -> "Pictures":
        """``shots`` training pictures of each class, and up to four that validate.

        With CoOp's rows in CoOp's order these are the published draws
        (:func:`draw_shots`). ``short`` says what becomes of a class with
        fewer training pictures: it is refused by name, or gives all that it has, as in CoOp.
        """
        if shots < 1:
            raise InputError(f"{shots} shots are asked for; expected one or more")
        train = self._rows("train")
        labels = label_column(train)
        counts = np.bincount(labels, minlength=len(self.names))
        lacking = np.flatnonzero(counts < (shots if short == "refuse" else 1))
        if len(lacking):
            first = int(lacking[0])
            raise InputError(
                f"class '{self.names[first]}' has {counts[first]} training pictures, fewer than "
                f"the {shots} shots asked for"
                + (f" (and {len(lacking) - 1} classes more)" if len(lacking) > 1 else "")
                + '; ask for fewer, or give short="all" to take what there is, as CoOp does'
            )
        asked = {"train": (labels, shots)}
        if "validation" in self.splits:
            validation = label_column(self.splits["validation"])
            asked["validation"] = (validation, min(shots, VALIDATION_SHOTS))
        drawn = draw_shots(list(asked.values()), seed)
        chosen = {
            split: self.splits[split].select(rows) for split, rows in zip(asked, drawn, strict=True)
        }
        return replace(self, splits={**self.splits, **chosen})

    def base(self) -> "Pictures":
        """The first ``ceil(n / 2)`` classes: those that a learner is shown (base-to-new)."""
        return self.of_classes(range(ceil(len(self.names) / 2)))

    def new(self) -> "Pictures":
        """The other classes, numbered from 0: those that it is asked about unseen."""
        return self.of_classes(range(ceil(len(self.names) / 2), len(self.names)))

    def of_classes(self, labels: Sequence[int]) -> "Pictures":
        """The pictures of some classes, which are numbered anew in this order."""
        number = np.full(len(self.names), -1, dtype=np.int64)
        number[list(labels)] = np.arange(len(labels))
        splits = {}
        for split, rows in self.splits.items():
            new = number[label_column(rows)]
            kept = rows.select(np.flatnonzero(new >= 0))
            column = pyarrow.array(new[new >= 0], pyarrow.int32())
            with quiet_datasets():
                changed = kept.remove_columns("label").add_column(
                    "label", column, feature=Value("int32")
                )
            splits[split] = changed.select_columns(list(rows.features))
        captions = None if self.captions is None else tuple(self.captions[i] for i in labels)
        return replace(
            self, names=tuple(self.names[i] for i in labels), splits=splits, captions=captions
        )

    def named(self, names: Sequence[str]) -> "Pictures":
        """The pictures of the classes of these names, numbered in this order.

        So that two data sets of one list of classes have one numbering. Raises
        :class:`InputError` for a name that is no class.
        """
        place = {name: label for label, name in enumerate(self.names)}
        if unknown := [name for name in names if name not in place]:
            raise InputError(f"'{unknown[0]}' is no class of the pictures '{self.title}'")
        return self.of_classes([place[name] for name in names])

    def domains(self, split: str = "test") -> tuple[str, ...]:
        """The domains that a split has pictures of; none where it knows of none."""
        rows = self._rows(split)
        if not isinstance(feature := rows.features.get("domain"), ClassLabel):
            return ()
        found = np.unique(number_column(rows, "domain"))
        return tuple(feature.names[int(number)] for number in found)

    def of_domains(self, names: Sequence[str]) -> "Pictures":
        """The pictures of some domains, in every split.

        Raises :class:`InputError` for a domain that no split has.
        """
        there = {name for split in self.splits for name in self.domains(split)}
        if unknown := [name for name in names if name not in there]:
            raise InputError(
                f"no picture comes from '{unknown[0]}'; there are {', '.join(sorted(there))}"
            )
        splits = {}
        for split, rows in self.splits.items():
            wanted = [rows.features["domain"].str2int(name) for name in names]
            of_these = np.isin(number_column(rows, "domain"), wanted)
            splits[split] = rows.select(np.flatnonzero(of_these))
        return replace(self, splits=splits)

    def check(self, *splits: str) -> None:
        """Read every picture of these splits once (of all, where none is named).

        Raises :class:`InputError` with the name of one that cannot be read.
        """
        for split in splits or self.splits:
            raw = stored_pictures(self._rows(split).select_columns("image"), "image")
            for number, row in enumerate(track(raw, f"checking {split} pictures", len(raw))):
                cell = row["image"]
                open_picture(picture_source(cell), cell["path"] or f"{split}, row {number}")

    def _rows(self, split: str) -> Dataset:
        if split not in self.splits:
            raise InputError(
                f"the pictures '{self.title}' have no split '{split}'; they have "
                f"{', '.join(self.splits)}"
            )
        return self.splits[split]


def label_column(rows: Dataset) -> Int[np.ndarray, " rows"]:
    """The labels of a data set, read without its pictures."""
    return number_column(rows, "label")


def number_column(rows: Dataset, name: str) -> Int[np.ndarray, " rows"]:
    """A column of whole numbers, read without the others; a class's name as its number."""
    # By Arrow: the format of numpy makes a Python number of each.
    table = rows.select_columns(name).with_format("arrow")[:]
    return table[name].to_numpy().astype(np.int64)
