"""Trains models on the same rows and measures it on the same others, in stages."""

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed

from geodapt.cards import write_card
from geodapt.data.corpus import load_corpus
from geodapt.data.corpus.packing import packed
from geodapt.data.corpus.tokens import tokenizer_for
from geodapt.errors import InputError
from geodapt.files import atomic_folder
from geodapt.helm.lineup import CONTENDERS, build, configuration
from geodapt.helm.pretraining import measure, pretrain
from geodapt.lm.settings import PretrainingSettings
from geodapt.memory import free_memory_mb
from geodapt.models import default_dtype
from geodapt.processes import is_main_process
from geodapt.runs import RunFolder
from geodapt.training import trainable_parameters


class Study:
    """One corpus as rows of tokens, and the models that read it."""

    def __init__(self, settings: PretrainingSettings, seed: int, folder: RunFolder) -> None:
        self.settings, self.seed, self.folder = settings, seed, folder
        self.corpus = load_corpus(settings.data)
        self.tokenizer = tokenizer_for(self.corpus, settings.tokenizer)
        self.configurations = {
            name: configuration(name, settings.size, settings.config, self.tokenizer)
            for name in settings.models
        }
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
        wanted = {"auto": default_dtype(), "float32": None, "bfloat16": torch.bfloat16}
        dtype = wanted[settings.precision]
        self.autocast = None if dtype is torch.float32 else dtype

    def _require_memory(self) -> None:
        """Linux ends a process that takes more than there is, and it cannot say why. So what is
        certain is asked for beforehand: a batch's logits and their gradient."""
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
        """One row of the table: a model trained and measured."""
        found = self.folder.measured(f"model-{name}", partial(self._trained, name))
        return {"method": name, "label": CONTENDERS[name].label, **found}

    def _trained(self, name: str, work: Path) -> dict[str, Any]:
        settings, stage = self.settings, f"model-{name}"
        set_seed(self.seed)
        model = build(self.configurations[name])
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        model = pretrain(
            model,
            self.rows["train"],
            self.rows["validation"],
            settings.training,
            work=work,
            seed=self.seed,
            autocast=self.autocast,
            label=stage,
            **self.folder.watch(stage),
        )
        if is_main_process():
            with atomic_folder(self.folder / self._model_folder(name)) as temporary:
                model.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                self._write_card(name, temporary)
        tested = measure(
            model,
            self.rows["test"],
            settings.training.evaluation_batch_size,
            f"measuring {name}",
            self.autocast,
        )
        return {
            **tested,
            "tokens_per_second": self._speed(stage),
            "trainable_parameters": trainable_parameters(model),
        }

    def _write_card(self, name: str, folder: Path) -> None:
        training, label = self.settings.training, CONTENDERS[name].label
        rows = training.steps * training.batch_size * training.gradient_accumulation
        write_card(
            folder,
            label,
            f"A language model ({label}) from scratch, on {self.corpus.name}.",
            library="transformers",
            tags=["helm", "text-generation"],
            facts={
                "text": self.corpus.name,
                "rows of tokens": f"{rows} of {self.settings.length}",
                "learning rate": training.learning_rate,
                "seed": self.seed,
            },
            usage=(
                "import geodapt.helm  # registers the model\n"
                "from transformers import AutoModelForCausalLM\n\n"
                'model = AutoModelForCausalLM.from_pretrained("this folder")'
            ),
        )

    def _model_folder(self, name: str) -> str:
        """``model`` for the run's first model, ``models/NAME`` for the others."""
        return "model" if name == self.settings.models[0] else f"models/{name}"

    def _speed(self, stage: str) -> float | None:
        """Tokens a second while training: the median of the log's lines."""
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


def evenly(rows: Dataset, most: int) -> Dataset:
    """So many rows at equal distances, since neighbours are of one document or package."""
    count = min(len(rows), most)
    return rows.select([number * len(rows) // count for number in range(count)])
