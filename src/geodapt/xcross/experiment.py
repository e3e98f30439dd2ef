"""The stages of a comparison: sources first, then a row for each method, then the data curve."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from geodapt.adapters import Mix
from geodapt.adapters.base_model.targets import choose_layers
from geodapt.data import load_domains
from geodapt.errors import Diverged, InputError
from geodapt.models import dtype_of, load_base, transformer_blocks
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.training import TrainingSettings
from geodapt.xcross.comparing import answers_of, compared_rows
from geodapt.xcross.encoders import exchange_layers
from geodapt.xcross.head import FILE as HEAD_FILE
from geodapt.xcross.head import Head
from geodapt.xcross.method_trainer import Job, MethodTrainer
from geodapt.xcross.methods import METHODS, ComparedMethod
from geodapt.xcross.recipe import XCrossRecipe
from geodapt.xcross.tasks import RankingTask, Task, make_task

SOURCE = "source:"


class XCrossExperiment:
    """One base, one bank, the sources' heads and the target's task."""

    def __init__(self, settings: XCrossRecipe, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        names = [*settings.sources, settings.target]
        domains = load_domains(settings.data.model_copy(update={"domains": names}))
        self.base, tokenizer = load_base(settings.base, dtype_of(settings.precision))
        self.tasks: dict[str, Task] = {
            name: make_task(domains[name], tokenizer, settings.prompt, settings.training_negatives)
            for name in names
        }
        self.target = self.tasks[settings.target]
        self.trainer = MethodTrainer(settings, folder, self.base, tokenizer, self.target)
        self.bank = self.trainer.bank
        self.source_heads: dict[str, Head] = {}
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        """Refuse what the base cannot do, before anything is trained."""
        settings, config = self.settings, self.base.config.get_text_config()
        stack = transformer_blocks(self.base)
        choose_layers(self.base, settings.lora.targets, stack)
        exchange_layers(settings.integrator.layers, len(stack))
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and settings.prompt.max_tokens > longest:
            raise InputError(
                f"prompt.max_tokens is {settings.prompt.max_tokens}, but base '{settings.base}' "
                f"has {longest} positions; set it to {longest} or fewer"
            )

    def run(self) -> dict[str, Any]:
        """All stages; returns what ``results.json`` holds."""
        self._schedule()
        self.prepare_sources()
        rows = [self._row(name) for name in self._expanded(self.settings.methods)]
        curve = self.settings.curve
        points = [
            self._curve_point(name, fraction)
            for fraction in (sorted(curve.fractions) if curve else [])
            for name in (curve.methods if curve else [])
        ]
        # The point for the whole set is the row of the table.
        for name in curve.methods if curve else []:
            points += [{**row, "fraction": 1.0} for row in rows if row["method"] == name]
        return self._results(rows, points)

    # Sources

    def prepare_sources(self) -> None:
        """Load the source adapters that are given, train the others, and read their heads."""
        for name, path in self.settings.adapters.items():
            self.bank.load(name, path)
        for name in self.settings.sources:
            task = self.tasks[name]
            path = self.settings.adapters.get(name) or str(self.trainer.trained_adapter(name))
            if name not in self.bank:
                train = partial(self.trainer.source, name, task, self._new_head(task.outputs))
                self.folder.timed_stage(f"source-{name}", train)
                self.bank.load(name, path)
            head = self._new_head(task.outputs)
            if (Path(path) / HEAD_FILE).is_file():
                head.load(Path(path))
            self.source_heads[name] = head

    def _new_head(self, outputs: int) -> Head:
        """A head of the shared start, so that heads of several sources can be averaged."""
        width = self.base.config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return Head(width, self.settings.head_width or width // 2, outputs)

    def starting_head(self) -> Head:
        """The mean of the source heads that score as the target does."""
        head = self._new_head(self.target.outputs)
        fitting = [
            other
            for other in self.source_heads.values()
            if other.score.out_features == self.target.outputs
        ]
        return head.average(fitting) if fitting else head

    # Rows

    def _expanded(self, methods: list[str]) -> list[str]:
        """The rows of the methods' names: `sources` is one row for each."""
        rows: list[str] = []
        for name in methods:
            rows += [SOURCE + s for s in self.settings.sources] if name == "sources" else [name]
        return rows

    def _row(self, name: str) -> dict[str, Any]:
        """One row of the table."""
        if not name.startswith(SOURCE):
            return self._stage(_stage_name(name), name, METHODS[name])
        source = name.removeprefix(SOURCE)
        method = ComparedMethod(f"Source: {source}", gate=lambda bank, sources: Mix({source: 1.0}))
        head = self.source_heads[source]
        fits = head.score.out_features == self.target.outputs
        return self._stage(_stage_name(name), name, method, head=head if fits else None)

    def _curve_point(self, name: str, fraction: float) -> dict[str, Any]:
        """One method trained on a share of the target's training rows."""
        point = self._stage(f"curve-{name}-{fraction!r}", name, METHODS[name], fraction)
        return {**point, "fraction": fraction}

    def _stage(
        self,
        stage: str,
        name: str,
        method: ComparedMethod,
        fraction: float = 1.0,
        head: Head | None = None,
    ) -> dict[str, Any]:
        def compute(work: Path) -> dict[str, Any]:
            job = Job(stage, work, fraction, chosen)
            return self.trainer.method(name, method, head or self.starting_head(), job)

        chosen, tried = self._chosen_factor(stage, name, method, fraction)

        result = self.folder.timed_stage(stage, compute)
        return {"method": name, "label": method.label, **result, **tried}

    def _chosen_factor(
        self, stage: str, name: str, method: ComparedMethod, fraction: float
    ) -> tuple[float, dict[str, Any]]:
        """The factor of a method's learning rates that does best on validation rows, and what the
        results say of it; a factor at which it diverges has no figure, and is not chosen."""
        factors = self.settings.rate_factors
        if not method.trains or not factors:
            return 1.0, {}
        found: dict[float, dict[str, Any]] = {}
        for factor in factors:
            trial = f"{stage}-rate-{factor:g}"

            def compute(work: Path, factor: float = factor, trial: str = trial) -> dict[str, Any]:
                job = Job(trial, work, fraction, factor, "validation")
                try:
                    return self.trainer.method(name, method, self.starting_head(), job)
                except Diverged:  # so the other factors go on
                    return {}

            found[factor] = self.folder.timed_stage(trial, compute)
        figure = "mrr" if isinstance(self.target, RankingTask) else self.target.headline
        figures: dict[float, float | None] = {f: row.get(figure) for f, row in found.items()}
        known = {factor: value for factor, value in figures.items() if value is not None}
        if not known:
            raise InputError(f"{stage} diverges at all of the rate_factors; give lower ones")
        best = max(known, key=known.__getitem__)
        ends = (min(figures), max(figures))
        return best, {
            "rate_factor": best,
            "validated": [[factor, figures[factor]] for factor in sorted(figures)],
            "at_an_end": len(figures) > 1 and best in ends,
        }

    def _schedule(self) -> None:
        """Announce the stages; a stage costs what its forward and backward passes do."""
        settings, tested = self.settings, self.target.sizes()["test"]
        weights = {
            f"source-{name}": _passes(settings.source_training)
            for name in settings.sources
            if name not in settings.adapters
        }
        for name in self._expanded(settings.methods):
            own = 0 if name.startswith(SOURCE) else self._training_passes(name)
            weights[_stage_name(name)] = tested + own
            for factor in settings.rate_factors if own else []:
                weights[f"{_stage_name(name)}-rate-{factor:g}"] = tested + own
        curve = settings.curve
        for fraction in sorted(curve.fractions) if curve else []:
            for name in curve.methods if curve else []:
                share = fraction**curve.steps_exponent if curve else 1.0
                cost = tested + share * self._training_passes(name)
                weights[f"curve-{name}-{fraction!r}"] = cost
                for factor in settings.rate_factors:
                    weights[f"curve-{name}-{fraction!r}-rate-{factor:g}"] = cost
        schedule(weights)

    def _training_passes(self, name: str) -> float:
        """What a method's training costs, in forward passes of one row."""
        settings, method = self.settings, METHODS[name]
        if not method.trains:
            return 0.0
        if method.integrator is not None:
            return len(settings.sources) * _passes(settings.training)
        return _passes(settings.lora_training if method.gate is None else settings.training)

    def _results(self, rows: list[dict], curve: list[dict]) -> dict[str, Any]:
        """What ``results.json`` holds."""
        explained: dict[str, Any] = {}
        kept = ("contributions", "examples")
        answers = answers_of(rows, curve, self.target.groups())
        for row in (*rows, *curve):
            row.pop("answers", None)
        for row in rows:
            explained |= {key: row.pop(key) for key in kept if key in row}
        return {
            "task": "ranking" if isinstance(self.target, RankingTask) else "classification",
            "base": self.settings.base,
            "target": self.settings.target,
            "sources": self.settings.sources,
            "rows": rows,
            "curve": [{k: v for k, v in point.items() if k not in kept} for point in curve],
            "data": self.target.sizes(),
            "answers": answers,
            **compared_rows(answers, self.settings.against),
            **explained,
        }


def _stage_name(row: str) -> str:
    return f"method-{row.replace(SOURCE, 'source-', 1) if row.startswith(SOURCE) else row}"


def _passes(settings: TrainingSettings) -> float:
    """The cost of a training in forward passes of one row; a backward pass counts as two."""
    return 3.0 * settings.steps * settings.batch_size * settings.gradient_accumulation
