"""Trains language models on the same rows and measures them on the same held-out rows, in
stages."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from geodapt.cards import write_card
from geodapt.data.corpus import load_corpus
from geodapt.data.corpus.packing import packed
from geodapt.data.corpus.tokens import tokenizer_for
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.lm.fair import compared, row_stages
from geodapt.lm.pretraining import held_out_loss, pretrain
from geodapt.lm.settings import PretrainingSettings
from geodapt.memory import free_memory_mb
from geodapt.models import dtype_of
from geodapt.processes import is_main_process
from geodapt.runs import RunFolder
from geodapt.training import TrainingSettings, trainable_parameters

Hooks = Callable[[PreTrainedModel], AbstractContextManager[Mapping[str, Tensor]]]


class PretrainingExperiment:
    """One corpus as rows of tokens, and the causal language models that are trained on it.

    ``configure`` gives the models' configurations by name, for the corpus's tokenizer; any that
    ``AutoModelForCausalLM`` knows. ``labels`` are their names in the table. ``hooks`` is entered
    around each model's training, and gives the scalars to log beside the loss.
    """

    def __init__(
        self,
        settings: PretrainingSettings,
        configure: Callable[[PreTrainedTokenizerBase], dict[str, PreTrainedConfig]],
        labels: Mapping[str, str],
        hooks: Hooks,
        seed: int,
        folder: RunFolder,
    ) -> None:
        self.settings, self.labels, self.hooks = settings, labels, hooks
        self.seed, self.folder = seed, folder
        self.corpus = load_corpus(settings.data)
        self.tokenizer = tokenizer_for(self.corpus, settings.tokenizer)
        self.configurations = configure(self.tokenizer)
        longest = min(c.max_position_embeddings for c in self.configurations.values())
        if settings.length > longest:
            raise InputError(
                f"length is {settings.length}, but the models take {longest} tokens at most; "
                f"lower it, or set config.max_position_embeddings={settings.length}"
            )
        self.rows = packed(self.corpus, self.tokenizer, settings.length)
        for split in ("validation", "test"):
            self.rows[split] = evenly(self.rows[split], settings.tested_rows)
        self._require_memory()
        dtype = dtype_of(settings.precision)
        self.autocast = None if dtype is torch.float32 else dtype

    def _require_memory(self) -> None:
        """Linux kills a process that takes too much memory, without a message. So what is known
        beforehand is checked: a batch's logits and their gradient."""
        free, training = free_memory_mb(), self.settings.training
        rows = min(training.batch_size, len(self.rows["train"]))
        needed = 2 * 4 * rows * self.settings.length * len(self.tokenizer) / 2**20
        if not torch.cuda.is_available() and free is not None and needed > free:
            raise InputError(
                f"training.batch_size is {training.batch_size}, but the logits of {rows:,} rows "
                f"and their gradient take {needed:,.0f} MB, and {free:,.0f} MB are free; lower it, "
                "and raise training.gradient_accumulation by as much to train alike"
            )

    def row(self, name: str) -> dict[str, Any]:
        """One row of the table: a model trained and measured, as often as the settings say."""
        if self.settings.learning_rates or self.settings.seeds > 1:
            found = compared(self, name)
            return {"method": name, "label": self.labels[name], **found}
        found = self.folder.timed_stage(f"model-{name}", partial(self._trained, name))
        return {"method": name, "label": self.labels[name], **found}

    def _trained(self, name: str, work: Path) -> dict[str, Any]:
        return self.trained(name, work, f"model-{name}", self._model_folder(name))

    def trained(
        self,
        name: str,
        work: Path,
        stage: str,
        kept: str | None,
        rate: float | None = None,
        seed: int | None = None,
        validated: bool = False,
    ) -> dict[str, Any]:
        """One model trained and measured: the figures of its row.

        ``kept`` is the folder that it is left in, within the run's; none: it is not. ``rate`` and
        ``seed`` replace the settings'. With ``validated`` the loss on validation rows is there too.
        """
        training = self.settings.training
        if rate is not None:
            training = training.model_copy(update={"learning_rate": rate})
        seed = self.seed if seed is None else seed
        model = self._fitted(self.configurations[name], training, work, stage, seed)
        if kept is not None and is_main_process():
            with atomic_folder(self.folder / kept) as temporary:
                model.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                self._write_card(name, model, temporary, training.learning_rate, seed)
        batch, label = training.evaluation_batch_size, f"measuring {name}"
        tested = held_out_loss(model, self.rows["test"], batch, label, self.autocast)
        if validated:
            held = held_out_loss(model, self.rows["validation"], batch, label, self.autocast)
            tested["validation_loss"] = held["loss"]
        return {
            **tested,
            "tokens_per_second": self._speed(stage),
            "trainable_parameters": trainable_parameters(model),
        }

    def validation_loss(
        self, config: PreTrainedConfig, training: TrainingSettings, work: Path, stage: str
    ) -> float:
        """The loss on validation rows of a configuration's model after a training of its own."""
        model = self._fitted(config, training, work, stage, self.seed)
        batch = training.evaluation_batch_size
        rows = self.rows["validation"]
        return held_out_loss(model, rows, batch, f"measuring {stage}", self.autocast)["loss"]

    def _fitted(
        self,
        config: PreTrainedConfig,
        training: TrainingSettings,
        work: Path,
        stage: str,
        seed: int,
    ) -> PreTrainedModel:
        set_seed(seed)
        model = build_model(config)
        if self.settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        with self.hooks(model) as watched:
            return pretrain(
                model,
                self.rows["train"],
                self.rows["validation"],
                training,
                watched=watched,
                work=work,
                seed=seed,
                autocast=self.autocast,
                label=stage,
                **self.folder.watch(stage),
            )

    def _write_card(
        self, name: str, model: PreTrainedModel, folder: Path, rate: float, seed: int
    ) -> None:
        training, label = self.settings.training, self.labels[name]
        package = type(model).__module__.rpartition(".")[0]
        ours = package.startswith("geodapt.")
        rows = training.steps * training.batch_size * training.gradient_accumulation
        write_card(
            folder,
            label,
            f"A language model ({label}) from scratch, on {self.corpus.name}.",
            library="transformers",
            tags=[model.config.model_type, "text-generation"],
            facts={
                "text": self.corpus.name,
                "rows of tokens": f"{rows} of {self.settings.length}",
                "learning rate": rate,
                "seed": seed,
            },
            usage=(
                (f"import {package}  # registers the model\n" if ours else "")
                + "from transformers import AutoModelForCausalLM\n\n"
                'model = AutoModelForCausalLM.from_pretrained("this folder")'
            ),
        )

    def stages(self, names: list[str]) -> dict[str, float]:
        """The stages of these rows with their costs."""
        return {stage: 1.0 for name in names for stage in row_stages(self.settings, name)}

    def model_folder(self, name: str) -> Path:
        """Where a model is left."""
        return self.folder / self._model_folder(name)

    def _model_folder(self, name: str) -> str:
        """``model`` for the run's first model, ``models/NAME`` for the others."""
        return "model" if name == next(iter(self.configurations)) else f"models/{name}"

    def _speed(self, stage: str) -> float | None:
        """Tokens per second while training: the median of the log's lines."""
        lines = (line for line in self.folder.metrics() if line["stage"] == stage)
        speeds = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
        return round(median(speeds), 1) if speeds else None

    def results(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What goes into ``results.json``."""
        training = self.settings.training
        return {
            "task": "language",
            "rows": rows,
            "data": {
                "name": self.corpus.name,
                "key": self.corpus.key,
                **self.corpus.facts,
                "length": self.settings.length,
                "vocabulary": len(self.tokenizer),
                **{split: len(rows) for split, rows in self.rows.items()},
            },
            "training": {
                "steps": training.steps,
                "tokens": training.steps
                * training.batch_size
                * training.gradient_accumulation
                * self.settings.length,
                "precision": "float32" if self.autocast is None else "bfloat16 autocast",
            },
        }


def build_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of a configuration, with random weights, in float32."""
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def evenly(rows: Dataset, most: int) -> Dataset:
    """A number of rows at equal distances, since neighbouring rows come from one document or
    package."""
    count = min(len(rows), most)
    return rows.select([number * len(rows) // count for number in range(count)])
