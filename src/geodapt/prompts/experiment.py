"""Fits every host with every adapter for every set, seed and number of shots, and asks each."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from geodapt.data.loading import load_labelled_pictures
from geodapt.data.vision.pictures import Pictures
from geodapt.errors import InputError
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.prompts.adapter import adapter_of
from geodapt.prompts.base import load_host_base
from geodapt.prompts.learner import PromptLearner
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.protocols import ProtocolTask, answers_as_text, plan_task
from geodapt.prompts.recipe import ADAPTER, NONE, TUNED, PromptsRecipe
from geodapt.prompts.saving import SETTINGS
from geodapt.prompts.settings import PlainClip, PromptKD
from geodapt.prompts.study_results import (
    adapter_differences,
    learner_rows,
    right_answers,
)
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP
from geodapt.tinyclip.cache import checkpoint, is_cached, train_in_stage
from geodapt.tinyclip.settings import TinyClipSettings
from geodapt.training import trainable_parameters
from geodapt.vision.clip import Clip, load_clip

TEACHER = "promptsrc"
"""The host that a tuned teacher is."""


class Cell(NamedTuple):
    """One learner of a study."""

    place: int
    """Of its set among all, from 0."""
    host: str
    adapter: str
    shots: int
    seed: int

    @property
    def stage(self) -> str:
        of_set = f"set-{self.place + 1}-" if self.place else ""
        return f"{of_set}{self.host}-{self.adapter}-{self.shots}-shots-seed-{self.seed}"


class PromptsExperiment:
    """One CLIP, sets of pictures, and the learners that tune the one on each of the others."""

    def __init__(self, settings: PromptsRecipe, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.sets = [load_labelled_pictures(each) for each in (settings.data, *settings.further)]
        self.others = [load_labelled_pictures(each) for each in settings.others]
        self._clips: dict[str, Clip] = {}
        self._check()

    def _check(self) -> None:
        """Refuse what does not fit before anything is trained."""
        settings = self.settings
        for place in range(len(self.sets)):
            for shots in settings.shots:
                self._task(place, shots, settings.seeds[0])
        for each in (*self.sets, *self.others):
            if "test" not in each.splits or not len(each.splits["test"]):
                raise InputError(f"the pictures '{each.title}' have no test pictures")
        for adapter in settings.adapter:
            if adapter != NONE:
                adapter_of(ADAPTER)(1, **settings.adapter_settings(adapter))
        if not self._bases_to_train():
            for name in settings.learner:
                told = self._bare_teacher() if name == "promptkd" else None
                PromptLearner(self.clip, settings.host(name), teacher=told)

    def _bases_to_train(self) -> dict[str, TinyClipSettings]:
        """The small CLIPs that the cache lacks, by stage."""
        settings, found = self.settings, {}
        if settings.base == TINYCLIP:
            found[TINYCLIP] = settings.glyph_base
        if "promptkd" in settings.learner and settings.teacher_base == TINYCLIP:
            found[f"{TINYCLIP}-teacher"] = settings.teacher_glyphs
        return {stage: each for stage, each in found.items() if not is_cached(each)}

    def run(self) -> dict[str, Any]:
        """Fit and ask every learner; returns what goes into ``results.json``."""
        asked, teachers = self._cells(), self._teachers()
        bases = self._bases_to_train()
        tuned = [f"teacher-{cell.stage}" for cell in teachers]
        first = {**dict.fromkeys(bases, 10.0), **dict.fromkeys(tuned, 1.0)}
        schedule({**first, **{cell.stage: 1.0 for cell in asked}})
        for stage, each in bases.items():
            train_in_stage(self.folder, each, stage)
        spent: dict[Cell, dict[str, Any]] = {}
        runs = []
        for cell in asked:
            told = cell._replace(host=TEACHER, adapter=NONE)
            if told in teachers and told not in spent and (cell.host == "promptkd" or cell == told):
                stage = f"teacher-{told.stage}"
                tune = partial(self._tune_teacher, stage, told)
                spent[told] = self.folder.timed_stage(stage, tune)
            found = self.folder.timed_stage(cell.stage, partial(self._one, cell))
            if self._is_tuned_already(cell):
                found["seconds"] = round(found["seconds"] + spent[cell]["seconds"], 2)
            runs.append(found)
        return self._results(runs)

    def _cells(self) -> list[Cell]:
        settings = self.settings
        # Seed by seed, so that a run that is stopped has whole comparisons.
        every = [
            Cell(place, name, adapter, shots, seed)
            for seed in settings.seeds
            for name in settings.learner
            for adapter in settings.adapter
            for shots in settings.shots
            for place in range(len(self.sets))
        ]
        asked = [
            cell._replace(shots=0, seed=0) if self._needs_no_shots(cell) else cell for cell in every
        ]
        return list(dict.fromkeys(asked))

    def _needs_no_shots(self, cell: Cell) -> bool:
        return (cell.host, cell.adapter) == ("clip", NONE)

    def _teachers(self) -> list[Cell]:
        """Teachers to tune, each on the draw that its student learns from."""
        settings = self.settings
        if "promptkd" not in settings.learner or settings.teacher != TUNED:
            return []
        return [
            Cell(place, TEACHER, NONE, shots, seed)
            for shots in settings.shots
            for place in range(len(self.sets))
            for seed in settings.seeds
        ]

    @property
    def clip(self) -> Clip:
        """The base, loaded once for all learners."""
        return self._clip(self.settings.base, self.settings.glyph_base)

    def _clip(self, name: str, glyphs: TinyClipSettings) -> Clip:
        folder = str(checkpoint(glyphs)) if name == TINYCLIP else name
        if folder not in self._clips:
            self._clips[folder] = load_host_base(folder)
        return self._clips[folder]

    @property
    def _teacher_clip(self) -> Clip:
        if self.settings.teacher_base is None:
            return self.clip
        return self._clip(self.settings.teacher_base, self.settings.teacher_glyphs)

    def _bare_teacher(self) -> PromptedClip:
        """A teacher before it is tuned, or one that is given."""
        if self.settings.teacher == TUNED:
            return PromptLearner(self._teacher_clip, self.settings.host(TEACHER))
        folder = Path(str(self.settings.teacher))
        if (folder / SETTINGS).is_file():
            return PromptLearner.load(folder)
        return PromptedClip(load_clip(folder), PlainClip())

    def _tuned_folder(self, cell: Cell) -> Path:
        return self.folder / "teachers" / cell._replace(host=TEACHER, adapter=NONE).stage

    def _teacher_of(self, cell: Cell) -> PromptedClip:
        if self.settings.teacher == TUNED:
            return PromptLearner.load(self._tuned_folder(cell), self._teacher_clip)
        return self._bare_teacher()

    def _tune_teacher(self, stage: str, cell: Cell, work: Path) -> dict[str, Any]:
        host = self.settings.host(TEACHER)
        learner = PromptLearner(self._teacher_clip, host, seed=cell.seed)
        task = self._task(cell.place, cell.shots, cell.seed)
        self._fit(learner, task.train, cell, stage, work)
        if is_main_process():
            learner.save(self._tuned_folder(cell))
        right = {part: right_answers(learner, asked) for part, asked in task.tests.items()}
        return {"parts": {part: float(each.mean()) for part, each in right.items()}}

    def _fit(
        self, learner: PromptLearner, pictures: Pictures, cell: Cell, stage: str, work: Path
    ) -> None:
        watched = self.folder.watch(stage)
        learner.fit(pictures, work=work, seed=cell.seed, label=stage, **watched)

    def _learner(self, cell: Cell) -> PromptLearner:
        host = self.settings.host(cell.host)
        teacher = self._teacher_of(cell) if cell.host == "promptkd" else None
        made = None
        if cell.adapter != NONE:
            width = (teacher or PromptedClip(self.clip, PlainClip())).width
            made = adapter_of(ADAPTER)(width, **self.settings.adapter_settings(cell.adapter))
        return PromptLearner(self.clip, host, made, teacher=teacher, seed=cell.seed)

    def _one(self, cell: Cell, work: Path) -> dict[str, Any]:
        """One learner, fitted and asked."""
        task = self._task(cell.place, cell.shots or self.settings.shots[0], cell.seed)
        tuned = self._is_tuned_already(cell)
        if tuned:
            learner = PromptLearner.load(self._tuned_folder(cell), self.clip)
        else:
            learner = self._learner(cell)
        if cell.shots and not tuned:
            told = getattr(self.settings.host(cell.host), "transductive", False)
            shown = self.sets[cell.place].few_shot(cell.shots, cell.seed) if told else task.train
            self._fit(learner, shown, cell, cell.stage, work)
        if is_main_process() and cell == self._kept():
            learner.save(self.folder / "model")
        right = {part: right_answers(learner, asked) for part, asked in task.tests.items()}
        return {
            "host": cell.host,
            "adapter": cell.adapter,
            "set": self._titles()[cell.place],
            "shots": cell.shots,
            "run_seed": cell.seed,
            "trainable_parameters": trainable_parameters(learner),
            "parts": {part: float(each.mean()) for part, each in right.items()},
            "right": {part: answers_as_text(each) for part, each in right.items()},
        }

    def _is_tuned_already(self, cell: Cell) -> bool:
        """Whether a cell's learner was tuned as a teacher, on the base itself."""
        return self.settings.teacher_base is None and cell in self._teachers()

    def _task(self, place: int, shots: int, seed: int) -> ProtocolTask:
        others = {each.title or f"set {n}": each for n, each in enumerate(self.others, 1)}
        return plan_task(self.settings.protocol, self.sets[place], shots, seed, others)

    def _titles(self) -> list[str]:
        """A name of each set, none twice."""
        titles = [each.title or "pictures" for each in self.sets]
        return [
            title if titles.count(title) == 1 else f"{title} ({place})"
            for place, title in enumerate(titles, 1)
        ]

    def _kept(self) -> Cell:
        """The learner that ``model/`` holds: the last, of the most shots and the first seed."""
        settings = self.settings
        host, adapter = settings.learner[-1], settings.adapter[-1]
        return Cell(0, host, adapter, max(settings.shots), settings.seeds[0])

    def _results(self, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        settings = self.settings
        kd = settings.host("promptkd")
        told = isinstance(kd, PromptKD) and kd.transductive
        notes = [note for each in self.sets for note in each.notes]
        if told and "promptkd" in settings.learner:
            notes.append(
                "PromptKD was shown pictures and names of the new classes, without labels "
                "(transductive): its figure for new classes is not one of unseen classes"
            )
        rows = learner_rows(settings.protocol, runs, told)
        differences = adapter_differences(settings.protocol, runs)
        for run in runs:
            del run["right"]
        return {
            "task": "classification",
            "base": settings.base,
            "rows": rows,
            "data": {
                "test": sum(len(each.splits["test"]) for each in self.sets),
                "classes": sum(len(each.names) for each in self.sets),
            },
            "prompts": {
                "protocol": settings.protocol,
                "runs": runs,
                "differences": differences,
                "notes": notes,
            },
        }
