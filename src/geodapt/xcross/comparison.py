"""Trains and measures the methods of one comparison, each as a resumable stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geodapt.adapters import AdapterBank, Gate, Mix
from geodapt.adapters.base_model.targets import choose_layers
from geodapt.data import load_domains
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.models import default_dtype, fingerprint, load_base, transformer_blocks
from geodapt.paths import child, given
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import RunFolder
from geodapt.training import TrainingSettings, fit, predict, trainable_parameters
from geodapt.xcross.encoders import Encoder, XCrossEncoder, exchange_layers
from geodapt.xcross.explain import Contributions, explain
from geodapt.xcross.head import FILE as HEAD_FILE
from geodapt.xcross.head import Head
from geodapt.xcross.methods import METHODS, Method
from geodapt.xcross.model import SourceReference, XCross, XCrossConfig
from geodapt.xcross.prompts import Collator
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings
from geodapt.xcross.tasks import ClassificationTask, RankingTask, Task, make_task, visits_needed

if TYPE_CHECKING:
    from geodapt.xcross.recipe import XCrossRecipe

SOURCE = "source:"


class Comparison:
    """One base, one bank, the sources' heads and the target's task."""

    def __init__(self, recipe: XCrossRecipe, folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        names = [*recipe.sources, recipe.target]
        domains = load_domains(recipe.data.model_copy(update={"domains": names}))
        dtype = {"auto": default_dtype(), "float32": torch.float32, "bfloat16": torch.bfloat16}
        self.base, self.tokenizer = load_base(recipe.base, dtype[recipe.precision])
        self.bank = AdapterBank(self.base)
        self.tasks: dict[str, Task] = {
            name: make_task(domains[name], self.tokenizer, recipe.prompt, recipe.training_negatives)
            for name in names
        }
        self.target = self.tasks[recipe.target]
        self.collate = Collator(self.tokenizer)
        self.source_heads: dict[str, Head] = {}
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        """What the base cannot do is said before anything is trained."""
        recipe, config = self.recipe, self.base.config.get_text_config()
        choose_layers(self.base, recipe.lora.targets, transformer_blocks(self.base))
        exchange_layers(recipe.integrator.layers, len(transformer_blocks(self.base)))
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and recipe.prompt.max_tokens > longest:
            raise InputError(
                f"prompt.max_tokens is {recipe.prompt.max_tokens}, but base '{recipe.base}' has "
                f"{longest} positions; set it to {longest} or fewer"
            )

    # Sources

    def prepare_sources(self) -> None:
        """Load the source adapters that are given, train the others, and read their heads."""
        for name, path in self.recipe.adapters.items():
            self.bank.load(name, path)
        for name in self.recipe.sources:
            path = self._adapter_path(name)
            if name not in self.bank:
                self.folder.measured(f"source-{name}", partial(self._source, name))
                self.bank.load(name, path)
            head = self._head(self.tasks[name].outputs)
            if (Path(path) / HEAD_FILE).is_file():
                head.load(Path(path))
            self.source_heads[name] = head

    def _adapter_path(self, name: str) -> str:
        return self.recipe.adapters.get(name) or str(self._own_adapter(name))

    def _own_adapter(self, name: str) -> Path:
        """Where the run keeps an adapter that it trained; the name is the data's."""
        return child(self.folder / "adapters", name)

    def _head(self, outputs: int) -> Head:
        """A head of the shared start, so that heads of several sources can be averaged."""
        width = self.base.config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return Head(width, self.recipe.head_width or width // 2, outputs)

    def _starting_head(self) -> Head:
        """The mean of the source heads that score as the target does."""
        head = self._head(self.target.outputs)
        fitting = [
            other
            for other in self.source_heads.values()
            if other.score.out_features == self.target.outputs
        ]
        return head.average(fitting) if fitting else head

    # Rows

    def expand(self, methods: Sequence[str]) -> list[str]:
        """The rows behind the methods' names: `sources` is one row for each."""
        rows: list[str] = []
        for name in methods:
            rows += [SOURCE + s for s in self.recipe.sources] if name == "sources" else [name]
        return rows

    def row(self, name: str) -> dict[str, Any]:
        """One row of the table."""
        if name.startswith(SOURCE):
            source = name.removeprefix(SOURCE)
            method = Method(f"Source: {source}", gate=lambda bank, sources: Mix({source: 1.0}))
            heads = self.source_heads
            head = (
                heads[source] if heads[source].score.out_features == self.target.outputs else None
            )
            return self._stage(f"method-source-{source}", name, method, head=head)
        return self._stage(f"method-{name}", name, METHODS[name])

    def schedule(self) -> None:
        """Announce the stages; a stage costs what its forward and backward passes do."""
        recipe, tested = self.recipe, self.target.sizes()["test"]
        weights = {
            f"source-{name}": _passes(recipe.source_training)
            for name in recipe.sources
            if name not in recipe.adapters
        }
        for name in self.expand(recipe.methods):
            source = name.removeprefix(SOURCE) if name.startswith(SOURCE) else None
            weights[f"method-source-{source}" if source else f"method-{name}"] = tested + (
                0 if source else self._training_passes(name)
            )
        curve = recipe.curve
        for fraction in sorted(curve.fractions) if curve else []:
            for name in curve.methods if curve else []:
                share = fraction**curve.steps_exponent if curve else 1.0
                weights[f"curve-{name}-{fraction:g}"] = tested + share * self._training_passes(name)
        schedule(weights)

    def _training_passes(self, name: str) -> float:
        """What a method's training costs, in forward passes of one row."""
        recipe, method = self.recipe, METHODS[name]
        if not method.trains:
            return 0.0
        if method.integrator is not None:
            return len(recipe.sources) * _passes(recipe.training)
        return _passes(recipe.lora_training if method.gate is None else recipe.training)

    def curve_point(self, name: str, fraction: float) -> dict[str, Any]:
        """One method trained on a share of the target's training rows."""
        point = self._stage(f"curve-{name}-{fraction!r}", name, METHODS[name], fraction=fraction)
        return {**point, "fraction": fraction}

    def _stage(
        self, stage: str, name: str, method: Method, fraction: float = 1.0, head: Head | None = None
    ) -> dict[str, Any]:
        def compute(work: Path) -> dict[str, Any]:
            start = head or self._starting_head()
            job = _Job(stage, work, fraction)
            if method.integrator is not None:
                return self._xcross(name, method, start, job)
            if method.gate is None:
                return self._lora(start, job)
            return self._gated(method, start, job)

        result = self.folder.measured(stage, compute)
        return {"method": name, "label": method.label, **result}

    def _gated(self, method: Method, head: Head, job: _Job) -> dict[str, Any]:
        """A gate over the sources: as it is, or with its head trained on the target."""
        assert method.gate is not None
        self.bank.train_only()
        gate = method.gate(self.bank, self.recipe.sources)
        scorer = Scorer(self._encoder(gate), head.requires_grad_(method.trains))
        if method.trains:
            self._fit(scorer, self.target, self.recipe.training, job)
        return self._evaluate(scorer, job)

    def _source(self, name: str, work: Path) -> dict[str, Any]:
        """Train a source's adapter and head on all of its rows, and save them."""
        task, settings = self.tasks[name], self.recipe.source_training
        job = _Job(f"source-{name}", work)
        with self._new_lora(name, self._head(task.outputs)) as scorer:
            self._fit(scorer, task, settings, job)
            self._save(name, scorer.head)
            return {"trainable_parameters": trainable_parameters(scorer)}

    def _lora(self, head: Head, job: _Job) -> dict[str, Any]:
        """A LoRA adapter and a head trained on the target."""
        name = self.recipe.target
        with self._new_lora(name, head) as scorer:
            self._fit(scorer, self.target, self.recipe.lora_training, job)
            if job.fraction == 1:
                self._save(name, scorer.head)
            return self._evaluate(scorer, job)

    def _xcross(self, name: str, method: Method, head: Head, job: _Job) -> dict[str, Any]:
        """X-Cross over the sources, or one of its ablations."""
        recipe = self.recipe
        settings = IntegratorSettings.model_validate(
            {**recipe.integrator.model_dump(), **(method.integrator or {})}
        )
        self.bank.train_only()
        encoder = XCrossEncoder(self.base, self.bank, recipe.sources, settings, recipe.pooling)
        config = self._config(settings, head)
        model = XCross(encoder, head.requires_grad_(True), config, self.tokenizer)
        exchange = [*encoder.exchange.parameters()]
        if encoder.weights.requires_grad:
            exchange.append(encoder.weights)
        groups: list[dict[str, Any]] = [
            {"params": list(head.parameters())},
            {"params": exchange, "lr": settings.learning_rate},
        ]
        try:
            self._fit(model, self.target, recipe.training, job, groups)
            result = self._evaluate(model, job)
            if name == "xcross" and job.fraction == 1:
                if is_main_process():
                    with atomic_folder(self.folder / "model") as temporary:
                        model.save_pretrained(temporary)
                result |= self._explained(model)
            return result
        finally:
            encoder.close()

    # Work shared by the methods

    def _encoder(self, gate: Gate) -> Encoder:
        return Encoder(self.base, self.bank, gate, self.recipe.pooling)

    @contextmanager
    def _new_lora(self, name: str, head: Head) -> Iterator[Scorer]:
        """A fresh adapter that trains together with a head, in the bank for the block."""
        lora = self.recipe.lora
        torch.manual_seed(self.recipe.seed)
        # A pooler behind the blocks takes no part in any method.
        targets = choose_layers(self.base, lora.targets, transformer_blocks(self.base))
        self.bank.create(name, lora.rank, lora.alpha, targets, lora.dropout, lora.rslora)
        try:
            self.bank.train_only(name)
            yield Scorer(self._encoder(Mix({name: 1.0})), head.requires_grad_(True))
        finally:
            self.bank.remove(name)

    def _save(self, name: str, head: Head) -> None:
        if is_main_process():
            with atomic_folder(self._own_adapter(name)) as temporary:
                self.bank.save(name, temporary)
                head.save(temporary)

    def _fit(
        self,
        scorer: Scorer,
        task: Task,
        settings: TrainingSettings,
        job: _Job,
        groups: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        if job.fraction < 1:
            assert self.recipe.curve is not None
            steps = round(settings.steps * job.fraction**self.recipe.curve.steps_exponent)
            settings = settings.model_copy(update={"steps": max(1, steps)})
        seed = self.recipe.seed
        rows = settings.batch_size * settings.gradient_accumulation
        visits = visits_needed(round(task.sizes()["train"] * job.fraction), settings.steps, rows)
        fit(
            scorer,
            task.training_rows(job.fraction, visits, seed),
            settings,
            work=job.work,
            collate=self.collate,
            validation=task.rows("validation"),
            metrics=task.metrics,
            best_by=task.headline,
            groups=groups,
            seed=seed,
            label=job.stage,
            **self.folder.watch(job.stage),
        )

    def _evaluate(self, scorer: Scorer, job: _Job) -> dict[str, Any]:
        """The figures of the target's test rows, and how many parameters train."""
        rows = self.target.rows("test")
        logits = predict(
            scorer,
            rows,
            collate=self.collate,
            work=job.work,
            label=f"{job.stage}, test",
            batch_size=self.recipe.training.evaluation_batch_size,
        )
        labels = torch.tensor([rows[index]["labels"] for index in range(len(rows))])
        trainable = {"trainable_parameters": trainable_parameters(scorer)}
        return self.target.metrics(logits, labels) | trainable

    def _config(self, settings: IntegratorSettings, head: Head) -> XCrossConfig:
        recipe = self.recipe
        ranking = isinstance(self.target, RankingTask)
        return XCrossConfig(
            base=_lasting(recipe.base),
            base_fingerprint=fingerprint(self.base),
            sources=[
                SourceReference(name=name, sha256=self.bank[name].sha256) for name in recipe.sources
            ],
            integrator=settings,
            pooling=recipe.pooling,
            prompt=recipe.prompt,
            head_width=head.pool.out_features,
            outputs=self.target.outputs,
            task="ranking" if ranking else "classification",
            labels=self.target.domain.labels if isinstance(self.target, ClassificationTask) else [],
        )

    def _explained(self, model: XCross) -> dict[str, Any]:
        """Contributions over some test rows, and a few rows told in full."""
        rows, device = self.target.rows("test"), model.encoder.weights.device
        spread = torch.linspace(0, len(rows) - 1, min(len(rows), 16)).long().unique().tolist()
        total, examples = Contributions(model), list[dict[str, Any]]()
        chosen = set(spread[:: max(1, len(spread) // max(self.recipe.examples, 1))])
        for index in spread:
            batch = {k: v.to(device) for k, v in self.collate([rows[index]]).items()}
            logits, contributions = explain(model, batch)
            total.merge(contributions)
            if index in chosen and len(examples) < self.recipe.examples:
                examples.append(self.target.told(index, logits) | contributions.figures())
        return {"contributions": total.figures(), "examples": examples}

    def results(self, rows: list[dict], curve: list[dict]) -> dict[str, Any]:
        """What ``results.json`` holds."""
        told: dict[str, Any] = {}
        for row in rows:
            for key in ("contributions", "examples"):
                if key in row:
                    told[key] = row.pop(key)
        drop = ("contributions", "examples")
        return {
            "recipe": self.recipe.recipe,
            "title": self.recipe.title,
            "task": "ranking" if isinstance(self.target, RankingTask) else "classification",
            "base": self.recipe.base,
            "target": self.recipe.target,
            "sources": self.recipe.sources,
            "rows": rows,
            "curve": [{k: v for k, v in point.items() if k not in drop} for point in curve],
            "data": self.target.sizes(),
            **told,
        }


@dataclass
class _Job:
    """Where one stage logs, keeps its checkpoints, and how much of the data it trains on."""

    stage: str
    work: Path
    fraction: float = 1.0


def _passes(settings: TrainingSettings) -> float:
    """What a training costs, in forward passes of one row: a backward pass counts as two."""
    return 3.0 * settings.steps * settings.batch_size * settings.gradient_accumulation


def _lasting(name: str) -> str:
    """A hub name as it is; a folder by a path that means the same from everywhere."""
    path = given(name)
    return str(path.absolute()) if path.is_dir() else name
