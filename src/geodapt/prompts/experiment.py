"""Fits every host with every adapter for every seed and number of shots, and asks each."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from geodapt.data.picture_sources import load_labelled_pictures
from geodapt.data.vision.pictures import Pictures, label_column
from geodapt.errors import InputError
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.prompts.adapter import adapter_of
from geodapt.prompts.base import load_host_base
from geodapt.prompts.learner import PromptLearner
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.protocols import (
    Protocol,
    ProtocolTask,
    average_of_sets,
    paired_difference,
    plan_task,
)
from geodapt.prompts.saving import SETTINGS
from geodapt.prompts.settings import PlainClip
from geodapt.prompts.study_settings import PromptStudySettings
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP
from geodapt.tinyclip.cache import checkpoint, is_cached
from geodapt.training import trainable_parameters
from geodapt.vision.clip import Clip, load_clip

LABELS = {
    "clip": "CLIP",
    "coop": "CoOp",
    "maple": "MaPLe",
    "promptsrc": "PromptSRC",
    "promptkd": "PromptKD",
    "lathadapter": "LatHAdapter",
}


class PromptsExperiment:
    """One CLIP, one set of pictures, and the learners that tune the one on the other."""

    def __init__(self, settings: PromptStudySettings, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.pictures = load_labelled_pictures(settings.data)
        self.others = [load_labelled_pictures(each) for each in settings.others]
        self._clip: Clip | None = None
        self._check()

    def _check(self) -> None:
        """Refuse what does not fit before anything is trained."""
        for shots in self.settings.shots:
            self._task(shots, self.settings.seeds[0])
        for each in (self.pictures, *self.others):
            if "test" not in each.splits or not len(each.splits["test"]):
                raise InputError(f"the pictures '{each.title}' have no test pictures")
        for adapter in self.settings.adapter:
            if adapter != "none":
                adapter_of(adapter)
        if not self._trains_base():
            for name in self.settings.learner:
                self._learner(name, "none", 0)

    def _trains_base(self) -> bool:
        return self.settings.base == TINYCLIP and not is_cached(self.settings.glyph_base)

    def run(self) -> dict[str, Any]:
        """Fit and ask every learner; returns what goes into ``results.json``."""
        settings = self.settings
        cells = [
            (name, adapter, shots, seed)
            for name in settings.learner
            for adapter in settings.adapter
            for shots in ([0] if self._needs_no_shots(name, adapter) else settings.shots)
            for seed in ([0] if shots == 0 else settings.seeds)
        ]
        first = {TINYCLIP: 10.0} if self._trains_base() else {}
        schedule({**first, **{_stage(*cell): 1.0 for cell in cells}})
        if self._trains_base():
            self.folder.timed_stage(TINYCLIP, self._train_base)
        runs = [self.folder.timed_stage(_stage(*cell), partial(self._one, *cell)) for cell in cells]
        return self._results(runs)

    def _needs_no_shots(self, name: str, adapter: str) -> bool:
        return (name, adapter) == ("clip", "none")

    def _train_base(self, work: Path) -> dict[str, Any]:
        checkpoint(self.settings.glyph_base, **self.folder.watch(TINYCLIP))
        return {}

    @property
    def clip(self) -> Clip:
        """The base, loaded once for all learners."""
        if self._clip is None:
            if self.settings.base == TINYCLIP:
                self._clip = load_clip(checkpoint(self.settings.glyph_base))
            else:
                self._clip = load_host_base(self.settings.base)
        return self._clip

    def _learner(self, name: str, adapter: str, seed: int) -> PromptLearner:
        host = self.settings.host(name)
        teacher = self._teacher() if name == "promptkd" else None
        made = None
        if adapter != "none":
            width = (teacher or PromptedClip(self.clip, PlainClip())).width
            made = adapter_of(adapter)(width, **self.settings.lathadapter)
        return PromptLearner(self.clip, host, made, teacher=teacher, seed=seed)

    def _teacher(self) -> PromptedClip:
        folder = Path(str(self.settings.teacher))
        if (folder / SETTINGS).is_file():
            return PromptLearner.load(folder)
        return PromptedClip(load_clip(folder), PlainClip())

    def _one(self, name: str, adapter: str, shots: int, seed: int, work: Path) -> dict[str, Any]:
        """One learner, fitted and asked."""
        learner = self._learner(name, adapter, seed)
        task = self._task(shots or self.settings.shots[0], seed)
        if shots:
            told = getattr(self.settings.host(name), "transductive", False)
            stage = _stage(name, adapter, shots, seed)
            learner.fit(
                self.pictures.few_shot(shots, seed) if told else task.train,
                work=work,
                seed=seed,
                label=stage,
                **self.folder.watch(stage),
            )
            if is_main_process() and (name, adapter, shots, seed) == self._kept():
                learner.save(self.folder / "model")
        right = {part: right_answers(learner, asked) for part, asked in task.tests.items()}
        return {
            "host": name,
            "adapter": adapter,
            "shots": shots,
            "run_seed": seed,
            "trainable_parameters": trainable_parameters(learner),
            "parts": {part: float(each.mean()) for part, each in right.items()},
            "right": {
                part: "".join("01"[int(one)] for one in each) for part, each in right.items()
            },
        }

    def _task(self, shots: int, seed: int) -> ProtocolTask:
        others = {each.title or f"set {n}": each for n, each in enumerate(self.others, 1)}
        return plan_task(self.settings.protocol, self.pictures, shots, seed, others)

    def _kept(self) -> tuple[str, str, int, int]:
        """The learner that ``model/`` holds: the last, of the most shots and the first seed."""
        settings = self.settings
        return settings.learner[-1], settings.adapter[-1], max(settings.shots), settings.seeds[0]

    def _results(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for run in runs:
            groups.setdefault((run["host"], run["adapter"], run["shots"]), []).append(run)
        several, protocol = len(self.settings.shots) > 1, self.settings.protocol
        rows = [_row(protocol, key, group, several) for key, group in groups.items()]
        test = {"test": len(self.pictures.splits["test"]), "classes": len(self.pictures.names)}
        notes = list(self.pictures.notes)
        if self.settings.promptkd.transductive and "promptkd" in self.settings.learner:
            notes.append(
                "PromptKD was shown pictures and names of the new classes, without labels "
                "(transductive): its figure for new classes is not one of unseen classes"
            )
        differences = [
            adapter_difference(protocol, LABELS[host], shots, groups[host, "none", shots], group)
            for (host, adapter, shots), group in groups.items()
            if adapter != "none" and (host, "none", shots) in groups
        ]
        for run in runs:
            del run["right"]
        return {
            "task": "classification",
            "base": self.settings.base,
            "rows": rows,
            "data": test,
            "prompts": {
                "protocol": protocol,
                "runs": runs,
                "differences": differences,
                "notes": notes,
            },
        }


def right_answers(learner: PromptLearner, pictures: Pictures) -> Bool[np.ndarray, " pictures"]:
    """Of each test picture whether its class comes first among these classes."""
    rows = pictures.splits["test"]
    found = learner.logits(rows["image"], pictures.names).argmax(-1).numpy()
    return found == label_column(rows)


MAIN = {
    "base-to-new": "harmonic_mean",
    "few-shot": "all",
    "cross": "average",
    "domain": "average",
}
"""The figure that a protocol compares learners by."""


def adapter_difference(
    protocol: Protocol,
    host: str,
    shots: int,
    without: Sequence[dict[str, Any]],
    with_it: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What an adapter adds to its host, paired by seed, with a bootstrap interval of 95 %."""

    def read(run: dict[str, Any]) -> dict[str, np.ndarray]:
        return {part: np.array(list(text)) == "1" for part, text in run["right"].items()}

    pairs = [(read(one), read(other)) for one, other in zip(with_it, without, strict=True)]
    found = paired_difference(protocol, pairs, MAIN[protocol])
    return {
        "host": host,
        "adapter": LABELS[with_it[0]["adapter"]],
        "shots": shots,
        "figure": MAIN[protocol],
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "pairs": found.pairs,
    }


def _row(
    protocol: Protocol,
    key: tuple[str, str, int],
    group: Sequence[dict[str, Any]],
    several: bool,
) -> dict[str, Any]:
    """The mean over seeds; of base and new the harmonic mean of the means, as published."""
    host, adapter, shots = key
    named = [LABELS[name] for name in (host, adapter) if name != "none"]
    figures = average_of_sets(protocol, [run["parts"] for run in group])
    main = MAIN[protocol]
    shown: dict[str, float] = {
        name: figures[name] for name in ("base", "new", "harmonic_mean") if name in figures
    }
    if protocol != "base-to-new":
        shown = {"accuracy": figures.get("all", figures.get("source", figures[main]))}
    if "average" in figures:
        shown["others"] = figures["average"]
    return {
        "method": f"{host}-{adapter}-{shots}",
        "label": " + ".join(named) + (f", {shots} shots" if several and shots else ""),
        "trainable_parameters": group[0]["trainable_parameters"],
        "seconds": round(sum(run["seconds"] for run in group), 2),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in group),
        "seeds": len(group),
        **shown,
        "parts": figures,
    }


def _stage(name: str, adapter: str, shots: int, seed: int) -> str:
    return f"{name}-{adapter}-{shots}-shots-seed-{seed}"
