"""Trains and measures one method of a comparison."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.adapters import AdapterBank, Gate, Mix
from geodapt.adapters.base_model.targets import choose_layers
from geodapt.files import atomic_folder
from geodapt.models import fingerprint, transformer_blocks
from geodapt.paths import child, given
from geodapt.processes import is_main_process
from geodapt.runs import RunFolder
from geodapt.training import TrainingSettings, fit, predict, trainable_parameters
from geodapt.xcross.encoders import Encoder, XCrossEncoder
from geodapt.xcross.explain import ContributionSums, explain_row
from geodapt.xcross.head import Head
from geodapt.xcross.methods import ComparedMethod
from geodapt.xcross.model import SourceReference, XCross, XCrossConfig
from geodapt.xcross.prompts import PromptCollator
from geodapt.xcross.recipe import XCrossRecipe
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import IntegratorSettings
from geodapt.xcross.tasks import ClassificationTask, RankingTask, Task, visits_needed

CURVE_ROWS = 40
"""Validation rows to measure while training, where they only draw a curve and decide nothing."""
EXPLAINED = 16
"""Test rows over which contributions are averaged."""


@dataclass
class Job:
    """Where one stage logs, keeps its checkpoints, and how much of the data it trains on."""

    stage: str
    work: Path
    fraction: float = 1.0
    factor: float = 1.0
    """Of all learning rates."""
    split: str = "test"
    """What is measured; with validation rows nothing is kept."""

    @property
    def keeps(self) -> bool:
        """Whether what is trained is saved."""
        return self.fraction == 1 and self.split == "test"


class MethodTrainer:
    """Methods on one frozen base: each trains on a task's rows, and is measured on the target's."""

    def __init__(
        self,
        settings: XCrossRecipe,
        folder: RunFolder,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        target: Task,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.base, self.tokenizer, self.target = base, tokenizer, target
        self.bank = AdapterBank(base)
        self.collate = PromptCollator(tokenizer)

    def trained_adapter(self, name: str) -> Path:
        """Where the run keeps an adapter that it trained; the name is the data's."""
        return child(self.folder / "adapters", name)

    def method(self, name: str, method: ComparedMethod, head: Head, job: Job) -> dict[str, Any]:
        """Train a method on the target as it needs, and measure it."""
        if method.integrator is not None:
            return self._xcross(name, method, head, job)
        if method.gate is None:
            return self._target_lora(head, job)
        return self._gated(method, head, job)

    def source(self, name: str, task: Task, head: Head, work: Path) -> dict[str, Any]:
        """Train a source's adapter and head on all of its rows, and save them."""
        with self._new_lora(name, head) as scorer:
            self._fit(scorer, task, self.settings.source_training, Job(f"source-{name}", work))
            self._save(name, scorer.head)
            return {"trainable_parameters": trainable_parameters(scorer)}

    def _gated(self, method: ComparedMethod, head: Head, job: Job) -> dict[str, Any]:
        """A gate over the sources: as it is, or with its head trained on the target."""
        assert method.gate is not None
        self.bank.train_only()
        gate = method.gate(self.bank, self.settings.sources)
        scorer = Scorer(self._encoder(gate), head.requires_grad_(method.trains))
        if method.trains:
            self._fit(scorer, self.target, self.settings.training, job)
        return self._evaluate(scorer, job)

    def _target_lora(self, head: Head, job: Job) -> dict[str, Any]:
        """A LoRA adapter and a head trained on the target."""
        name = self.settings.target
        with self._new_lora(name, head) as scorer:
            self._fit(scorer, self.target, self.settings.lora_training, job)
            if job.keeps:
                self._save(name, scorer.head)
            return self._evaluate(scorer, job)

    def _xcross(self, name: str, method: ComparedMethod, head: Head, job: Job) -> dict[str, Any]:
        """X-Cross over the sources, or one of its ablations."""
        settings = IntegratorSettings.model_validate(
            {**self.settings.integrator.model_dump(), **(method.integrator or {})}
        )
        self.bank.train_only()
        encoder = XCrossEncoder(
            self.base, self.bank, self.settings.sources, settings, self.settings.pooling
        )
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
            self._fit(model, self.target, self.settings.training, job, groups)
            result = self._evaluate(model, job)
            if name == "xcross" and job.keeps:
                if is_main_process():
                    with atomic_folder(self.folder / "model") as temporary:
                        model.save_pretrained(temporary)
                result |= self._explained(model)
            return result
        finally:
            encoder.close()

    # Work shared by the methods

    def _encoder(self, gate: Gate) -> Encoder:
        return Encoder(self.base, self.bank, gate, self.settings.pooling)

    @contextmanager
    def _new_lora(self, name: str, head: Head) -> Iterator[Scorer]:
        """A fresh adapter that trains together with a head, in the bank for the block."""
        lora = self.settings.lora
        torch.manual_seed(self.settings.seed)
        # A pooler after the blocks takes no part in any method.
        targets = choose_layers(self.base, lora.targets, transformer_blocks(self.base))
        self.bank.create(name, lora.rank, lora.alpha, targets, lora.dropout, lora.rslora)
        try:
            self.bank.train_only(name)
            yield Scorer(self._encoder(Mix({name: 1.0})), head.requires_grad_(True))
        finally:
            self.bank.remove(name)

    def _save(self, name: str, head: Head) -> None:
        if is_main_process():
            with atomic_folder(self.trained_adapter(name)) as temporary:
                self.bank.save(name, temporary)
                head.save(temporary)

    def _fit(
        self,
        scorer: Scorer,
        task: Task,
        training: TrainingSettings,
        job: Job,
        groups: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        seed, curve = self.settings.seed, self.settings.curve
        if job.factor != 1:
            rate = training.learning_rate * job.factor
            training = training.model_copy(update={"learning_rate": rate})
            groups = groups and [
                {**g, "lr": g["lr"] * job.factor} if "lr" in g else g for g in groups
            ]
        if job.fraction < 1:
            assert curve is not None
            steps = round(training.steps * job.fraction**curve.steps_exponent)
            training = training.model_copy(update={"steps": max(1, steps)})
            if not training.keep_best:  # the curve is of test figures: validation decides nothing
                training = training.model_copy(update={"evaluate_every": None})
        rows = training.batch_size * training.gradient_accumulation
        validation = task.rows("validation")
        if not training.keep_best and len(validation) > CURVE_ROWS:
            places = torch.linspace(0, len(validation) - 1, CURVE_ROWS).long().tolist()
            validation = Subset(validation, places)  # type: ignore[arg-type]  # any Rows will do
        visits = visits_needed(round(task.sizes()["train"] * job.fraction), training.steps, rows)
        fit(
            scorer,
            task.training_rows(job.fraction, visits, seed),
            training,
            work=job.work,
            collate=self.collate,
            validation=validation,
            metrics=task.metrics,
            best_by=task.headline,
            groups=groups,
            seed=seed,
            label=job.stage,
            **self.folder.watch(job.stage),
        )

    def _evaluate(self, scorer: Scorer, job: Job) -> dict[str, Any]:
        """The figures of the target's rows, each row's rank, and how many parameters train."""
        rows = self.target.rows(job.split)
        logits = predict(
            scorer,
            rows,
            collate=self.collate,
            work=job.work,
            label=f"{job.stage}, {job.split}",
            batch_size=self.settings.training.evaluation_batch_size,
        )
        labels = torch.tensor([rows[index]["labels"] for index in range(len(rows))])
        trainable = {"trainable_parameters": trainable_parameters(scorer)}
        answers = {"answers": self.target.ranks(logits, labels)} if job.split == "test" else {}
        return self.target.metrics(logits, labels) | trainable | answers

    def _config(self, integrator: IntegratorSettings, head: Head) -> XCrossConfig:
        settings, target = self.settings, self.target
        return XCrossConfig(
            base=_lasting(settings.base),
            base_fingerprint=fingerprint(self.base),
            sources=[
                SourceReference(name=name, sha256=self.bank[name].sha256)
                for name in settings.sources
            ],
            integrator=integrator,
            pooling=settings.pooling,
            prompt=settings.prompt,
            head_width=head.pool.out_features,
            outputs=target.outputs,
            task="ranking" if isinstance(target, RankingTask) else "classification",
            labels=target.domain.labels if isinstance(target, ClassificationTask) else [],
        )

    def _explained(self, model: XCross) -> dict[str, Any]:
        """Contributions over some test rows, and a few rows explained in full."""
        rows, device = self.target.rows("test"), model.encoder.weights.device
        count = min(len(rows), EXPLAINED)
        spread = torch.linspace(0, len(rows) - 1, count).long().unique().tolist()
        total, examples = ContributionSums(model), list[dict[str, Any]]()
        chosen = set(spread[:: max(1, len(spread) // max(self.settings.examples, 1))])
        for index in spread:
            batch = {k: v.to(device) for k, v in self.collate([rows[index]]).items()}
            logits, contributions = explain_row(model, batch)
            total.merge(contributions)
            if index in chosen and len(examples) < self.settings.examples:
                example, means = self.target.example(index, logits), contributions.means()
                example.direct, example.interaction = means.direct, means.interaction
                examples.append(example.model_dump(exclude_unset=True))
        return {"contributions": total.means().model_dump(), "examples": examples}


def _lasting(name: str) -> str:
    """A hub name as it is; a folder by its absolute path."""
    path = given(name)
    return str(path.absolute()) if path.is_dir() else name
