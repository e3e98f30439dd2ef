"""A run's folder: the results of `geodapt run`, and the state that lets it continue after a kill.

::

    config.yaml     the resolved recipe; running it again repeats the run
    metrics.jsonl   one line per log step: {"stage": ..., "step": ..., "loss": ...}
    results.json    final figures
    model/          safetensors, reloadable by one documented call
    report.html     the pictures
    stages/         one JSON file per finished stage; with --resume these are not computed again
    work/           checkpoints of the stage in progress, and what the run has cost so far

Of several processes (``accelerate launch``) only the main one writes. torch is imported late,
so that a recipe is checked first.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from geodapt import progress
from geodapt.errors import InputError
from geodapt.files import read_json, write_json, write_text
from geodapt.locks import holds_only_lock
from geodapt.paths import child
from geodapt.processes import from_main_process, is_main_process, wait_for_everyone
from geodapt.registration import named_object
from geodapt.settings import Seed, Settings

VERSIONED = ("geodapt", "torch", "transformers", "peft", "datasets", "numpy")


class RunFolder:
    """One run's folder. Stages are memoised: a finished stage is read, not computed again."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._started = time.perf_counter()
        self._seconds_before, self._peak_mb = self._spent_before()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def untouched(self) -> bool:
        """Whether no work is in the folder yet: nothing logged, no stage begun."""
        begun = any((self.path / name).exists() for name in ("metrics.jsonl", "stages"))
        return not begun and holds_only_lock(self.path / "work")

    @property
    def finished(self) -> bool:
        """Whether the run is done: ``results.json`` is the last thing that it writes."""
        return from_main_process((self.path / "results.json").is_file())

    def stage(self, name: str, compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The result of a stage: read where it is finished, else computed and kept.

        ``compute`` gets a folder for its checkpoints, which is removed when the stage is done.
        Every process computes, and gets the main process's result.
        """
        done = child(self.path / "stages", f"{name}.json")
        if from_main_process(done.is_file()):
            progress.stages.end(name, computed=False)
            return _mapping(done)
        progress.stages.begin(name)
        work = child(self.path / "work", name)
        work.mkdir(parents=True, exist_ok=True)
        result = from_main_process(compute(work))
        wait_for_everyone()
        if is_main_process():
            write_json(done, result)
            self._keep_spent()
            shutil.rmtree(work, ignore_errors=True)
        wait_for_everyone()
        progress.stages.end(name)
        return result

    def timed_stage(self, name: str, compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """A :meth:`stage` whose result also holds its ``seconds`` and ``peak_memory_mb``."""

        from geodapt.memory import peak_memory

        def with_costs(work: Path) -> dict[str, Any]:
            started = time.perf_counter()
            with peak_memory() as peak:
                result = compute(work)
            seconds = round(time.perf_counter() - started, 2)
            return {**result, "seconds": seconds, "peak_memory_mb": peak.mb}

        return self.stage(name, with_costs)

    def watch(self, stage: str) -> dict[str, Any]:
        """Where :func:`geodapt.training.fit` reports a stage's training, as its arguments."""
        return {
            "log": partial(self.log, stage),
            "forget_after": partial(self.forget_after, stage),
            "tensorboard": child(self.path / "tensorboard", stage),
        }

    def log(self, stage: str, step: int, **values: float) -> None:
        """Append a line to ``metrics.jsonl``."""
        if not is_main_process():
            return
        line = json.dumps({"stage": stage, "step": step, **values}) + "\n"
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a kill cut the last line short
                    line = "\n" + line
            file.write(line.encode())
        self._keep_spent()

    def forget_after(self, stage: str, step: int) -> None:
        """Drop a stage's log lines beyond a step: it is about to continue from there."""
        path = self.path / "metrics.jsonl"
        if is_main_process() and path.is_file():
            kept = [
                line for line in self.metrics() if line["stage"] != stage or line["step"] <= step
            ]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """All log lines; a last line that a kill cut short is dropped."""
        path = self.path / "metrics.jsonl"
        lines = []
        for line in (
            path.read_text(encoding="utf-8", errors="replace").splitlines()
            if path.is_file()
            else ()
        ):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict) and {"stage", "step"} <= found.keys():
                lines.append(found)
        return lines

    def results(self) -> dict[str, Any]:
        """The run's ``results.json``; raises :class:`InputError` when the run has none yet."""
        if not (self.path / "results.json").is_file():
            if not (self.path / "config.yaml").is_file():
                raise InputError(f"{self.path} is not a run's folder: it has no config.yaml")
            raise InputError(
                f"{self.path} has no results.json: the run is not finished; "
                f"continue it with --resume"
            )
        return _mapping(self.path / "results.json")

    def finish(self, results: dict[str, Any], seed: int) -> dict[str, Any]:
        """Write ``results.json`` with what every run records, and clear the checkpoints.

        Seconds add up over all the runs of a resumed one; memory is the most of any of them.
        """
        results = {
            **results,
            "seed": seed,
            **self._spent(),
            "device": device_name(),
            "versions": {name: _version(name) for name in VERSIONED},
            "python": platform.python_version(),
        }
        wait_for_everyone()
        if is_main_process():
            write_json(self.path / "results.json", results)
            shutil.rmtree(self.path / "work", ignore_errors=True)
        return results

    def _spent_before(self) -> tuple[float, float]:
        """The run's cost so far; nothing where it was not kept or cannot be read."""
        try:
            spent = read_json(self.path / "work" / "spent.json")
            return float(spent["seconds"]), float(spent["peak_memory_mb"])
        except (InputError, KeyError, TypeError, ValueError):
            return 0.0, 0.0

    def _spent(self) -> dict[str, float]:
        from geodapt.memory import peak_memory_mb

        seconds = self._seconds_before + time.perf_counter() - self._started
        self._peak_mb = max(self._peak_mb, peak_memory_mb())
        return {"seconds": round(seconds, 2), "peak_memory_mb": self._peak_mb}

    def _keep_spent(self) -> None:
        write_json(self.path / "work" / "spent.json", self._spent())


def _mapping(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} was not written by a run; remove it, and continue with --resume")
    return found


class Recipe(Settings):
    """What a YAML recipe becomes. A system's ``recipe.py`` holds the subclass."""

    recipe: str
    """The system that runs it."""
    title: str = ""
    """One line that `geodapt ls` and the report show."""
    needs: str = ""
    """What it needs, for `geodapt ls`: data, extras, the network."""
    seed: Seed = 0
    """Seed of everything random; the same seed repeats the run."""

    experiment: ClassVar[str]
    """``module:Class`` of what does the work: ``Class(recipe, folder).run()`` gives the results.
    It is imported when the recipe runs, so that a recipe is checked before torch is imported."""

    def run(self, folder: RunFolder) -> dict[str, Any]:
        """Do the work in the folder; returns what goes into ``results.json``."""
        found = named_object(self.experiment)(self, folder).run()
        return {"recipe": self.recipe, "title": self.title, **found}


def device_name() -> str:
    """The GPU's name, or the processor architecture and its number of threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
