"""Tuning a CLIP by several methods, each a row of a table: what every task shares."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.files import atomic_folder
from geodapt.hyperclip.averaging import mean_over_seeds
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.open_model import OpenModel
from geodapt.hyperclip.tuned_towers import TowerTuner, check_method
from geodapt.hyperclip.tuning_settings import MethodSettings
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.tinyclip.base import TINYCLIP, load_base_clip, must_be_trained
from geodapt.tinyclip.cache import train_in_stage
from geodapt.training import fit, trainable_parameters
from geodapt.vision import Clip

WORK = 10.0
"""What training the small CLIP takes, in trainings of a method."""
DETAILS = ("radius", "confused", "per_class", "pictures", "sets", "trials")
"""What is measured for the page: a method's row in the table does not hold it."""


class MethodExperiment(ABC):
    """One CLIP, data of one task, and the methods that tune the one for the other."""

    task: str
    """Names the task in ``results.json``."""
    tuning: MethodSettings

    def __init__(self, settings: Any, folder: RunFolder) -> None:
        self.tuning = self.settings = settings
        self.folder = folder
        self.methods = [TuningMethod.parse(name) for name in settings.methods]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.missing = must_be_trained(settings.base, settings.glyph_base)

    # What a task has to say

    @abstractmethod
    def model_of(self, clip: Clip) -> OpenModel:
        """The task's model of a CLIP, with untrained heads."""

    @abstractmethod
    def tuner(self, model: Any, method: TuningMethod) -> TowerTuner:
        """What trains."""

    @abstractmethod
    def batches(self, model: Any, seed: int) -> Any:
        """Training batches, with ``collate``."""

    @abstractmethod
    def measure(self, model: Any) -> dict[str, Any]:
        """A tuned model's figures on the test, and the :data:`DETAILS`."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What ``results.json`` says of the data."""

    def begin(self, tuner: Any, batches: Any) -> None:  # noqa: B027 - most tasks need none
        """What comes before a training."""

    def check_model(self, model: Any) -> None:  # noqa: B027 - most models fit
        """Refuse what does not fit the data."""

    # What all do

    def check(self) -> None:
        """Refuse what does not fit before anything is trained."""
        if self.missing:
            return
        model = self.model()
        self.check_model(model)
        for method in self.methods:
            check_method(model.clip.model, method, self.tuning)

    def model(self) -> Any:
        """The task's model of a fresh copy of the base, on the device."""
        clip = load_base_clip(self.tuning.base, self.tuning.glyph_base)
        clip.model.to(self.device)
        return self.model_of(clip)

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds that each method trains with."""
        return [self.tuning.seed]

    def run(self) -> dict[str, Any]:
        """Tune and measure by each method; returns what goes into ``results.json``."""
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        first = {TINYCLIP: WORK} if self.missing else {}
        schedule({**first, **{stage_of(*run): self.work_of(run[0]) for run in runs}})
        if self.missing:
            train_in_stage(self.folder, self.tuning.glyph_base)
        rows, details = [], {}
        for method in self.methods:
            row = mean_over_seeds([self.row(method, seed) for seed in self.seeds])
            row.pop("draws", None)
            details[method.name] = {name: row.pop(name) for name in DETAILS if name in row}
            rows.append({"method": method.name, "label": method.label, **row})
        return {
            "task": self.task,
            "base": self.tuning.base,
            "rows": rows,
            self.task: {"kept": self.tuning.kept, "methods": details},
            **self.about(),
        }

    def work_of(self, method: TuningMethod) -> float:
        """How long a method takes, in trainings."""
        return 1.0

    def row(self, method: TuningMethod, seed: int) -> dict[str, Any]:
        """A method's figures with one seed."""
        stage = stage_of(method, seed)
        return self.folder.timed_stage(stage, partial(self.tuned, method, seed, stage))

    def keeps(self, method: TuningMethod, seed: int) -> bool:
        """Whether the run keeps the model of a method and a seed."""
        return method.name == self.tuning.kept and seed == self.tuning.seed

    def tuned(self, method: TuningMethod, seed: int, stage: str, work: Path) -> dict[str, Any]:
        """Train, keep and measure."""
        model, counts = self.train(method, seed, stage, work, self.keeps(method, seed))
        return {**self.measure(model), **counts}

    def train(
        self, method: TuningMethod, seed: int, stage: str, work: Path, keep: bool
    ) -> tuple[Any, dict[str, int]]:
        """The model that a method tunes, its training logged under ``stage``; and what trained.

        With ``keep`` it is written into the run's folder.
        """
        torch.manual_seed(seed)  # the heads' start
        model = self.model()
        tuner, batches = self.tuner(model, method), self.batches(model, seed)
        self.begin(tuner, batches)
        fit(
            tuner,
            range(len(batches)),
            self.tuning.training,
            work=work,
            collate=batches.collate,
            groups=tuner.groups(),
            seed=seed,
            label=stage,
            **self.folder.watch(stage),
        )
        own = sum(parameter.numel() for parameter in tuner.clip_parameters())
        counts = {"trainable_parameters": trainable_parameters(tuner), "clip_numbers": own}
        keep = keep and is_main_process()
        if keep and tuner.tuned.scaling is not None:
            tuner.tuned.scaling.save_pretrained(self.folder / "scaling")
        tuner.tuned.merge()
        model.eval()
        if keep:
            with atomic_folder(self.folder / "model") as temporary:
                model.save_pretrained(temporary)
        return model, counts


def stage_of(method: TuningMethod, seed: int) -> str:
    """What a method's training with a seed is called in the run's folder."""
    return f"method-{method.name}-seed-{seed}"
