"""The work of the recipe, in stages that a killed run does not repeat.

Moments and compressed layers wait in the run's ``work/`` folder; one layer's are in memory at a
time. A stage is whole or absent, and depends on nothing but the recipe and the stages before it,
so that a resumed run ends with the same bytes.
"""

import copy
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geodapt.cards import short
from geodapt.compress import measures
from geodapt.compress.analysis import analyse_layer
from geodapt.compress.budget import Option
from geodapt.compress.calibration import check_size, observable, passes
from geodapt.compress.compression import (
    by_stack,
    check_fits,
    choose,
    compress_layer,
    count_weights,
    describe_shares,
    options,
)
from geodapt.compress.forms import Form, Method
from geodapt.compress.install import install
from geodapt.compress.integers import require_torchao
from geodapt.compress.layers import survey, weight_of
from geodapt.compress.originals import load_original
from geodapt.compress.storage import load, save
from geodapt.compress.svd import Whitening
from geodapt.compress.texts import calibration_texts, described, measured_on, measured_texts
from geodapt.compress.verdict import verdict
from geodapt.compress.weights import Compressed, put_together, take_apart
from geodapt.files import read_tensors, write_tensors
from geodapt.models import text_batches
from geodapt.models.layer_inputs import second_moments
from geodapt.models.perplexity import language_loss, perplexity
from geodapt.progress import track
from geodapt.runs import RunFolder

if TYPE_CHECKING:
    from geodapt.compress.recipe import CompressRecipe

TIMED = 8  # texts of the batch that is timed


class Job:
    """One run of the recipe."""

    def __init__(self, recipe: "CompressRecipe", folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        self.method = Method.named(recipe.method)
        recipe.target.check(self.method)  # before a model is loaded for nothing
        if self.method.integers or recipe.analyse:
            require_torchao()
        self.model, self.tokenizer = load_original(
            recipe.model, getattr(torch, recipe.precision), recipe.adapter
        )
        self.untouched_tokenizer = copy.deepcopy(self.tokenizer)  # reading texts sets its lengths
        self.survey = survey(self.model)
        self.layers = self.survey.layers
        check_fits(self.layers, self.method, recipe.target)
        self.calibration = self._batches(calibration_texts(recipe))
        self.held_out = measured_texts(recipe)
        if self.calibration:
            check_size(observable(self.layers), self.calibration)

    def run(self) -> dict[str, Any]:
        before = self.folder.stage("before", lambda work: self._measure())
        self._calibrate()
        forms = self._choose()
        reports = self._compress(forms)
        analysis = self._analyse(reports) if self.recipe.analyse else None
        embeddings = self._embeddings
        weights = {
            path: self._finished(number, forms[path], report)
            for number, (path, report) in enumerate(zip(self.layers, reports, strict=True))
        }
        install(self.model, self.layers, weights)
        save(self.model, self.folder / "model", self.untouched_tokenizer, self._facts(reports))
        self.model = load(self.folder / "model")
        after = self.folder.stage("after", lambda work: self._measure(embeddings))
        return self._results(before, after, reports, analysis)

    def _batches(self, texts: list[str]) -> list[Mapping[str, Any]]:
        return list(text_batches(self.tokenizer, texts, self.model, self.recipe.max_tokens))

    # Stages

    def _calibrate(self) -> None:
        """The inputs' moments of all layers, a file a layer."""
        if not self.calibration:
            return
        numbers = {path: number for number, path in enumerate(self.layers)}
        seen = observable(self.layers)

        def compute(group: list[str], work: Path) -> dict[str, Any]:
            layers = {path: seen[path] for path in group}
            found = second_moments(self.model, layers, self.calibration)
            for path, moments in found.items():
                write_tensors(self._moments_file(numbers[path]), {"moments": moments.matrix})
            return {path: moments.tokens for path, moments in found.items()}

        for number, group in enumerate(track(passes(seen), "calibrating")):
            self.folder.stage(f"calibrate-{number:03}", partial(compute, group))

    def _choose(self) -> dict[str, Form]:
        """Every layer's form, from the options of all layers."""

        def measure(number: int, path: str, work: Path) -> dict[str, Any]:
            W, whitening = weight_of(self.layers[path]), Whitening(self._moments(number))
            found = options(W, self.method, self.recipe.target, whitening)
            return {
                "options": [
                    [o.form.width, o.form.group, o.form.rank, o.bytes, o.error] for o in found
                ]
            }

        curves = {}
        for number, path in enumerate(track(self.layers, "measuring layers")):
            stage = self.folder.stage(f"measure-{number:03}", partial(measure, number, path))
            curves[path] = [Option(Form(*o[:3]), *o[3:]) for o in stage["options"]]
        return choose(curves, self.method, self.recipe.target, count_weights(self.layers))

    def _compress(self, forms: dict[str, Form]) -> list[dict[str, Any]]:
        """The compressed weights, a file a layer, and what each lost."""

        def compute(number: int, path: str, work: Path) -> dict[str, Any]:
            W = weight_of(self.layers[path])
            weight, report = compress_layer(path, W, forms[path], self._moments(number))
            write_tensors(self._layer_file(number), take_apart(weight))
            return report.as_dict()

        return [
            self.folder.stage(f"compress-{number:03}", partial(compute, number, path))
            for number, path in enumerate(track(self.layers, "compressing layers"))
        ]

    def _analyse(self, reports: list[dict[str, Any]]) -> dict[str, Any]:
        taken = 8 * sum(report["bytes"] for report in reports) / count_weights(self.layers)
        bits = self.recipe.bits_per_weight or taken
        drawn = {0, len(self.layers) // 2, len(self.layers) - 1}

        def compute(number: int, path: str, work: Path) -> dict[str, Any]:
            W = weight_of(self.layers[path])
            return analyse_layer(path, W, self._moments(number), bits, number in drawn)

        layers = [
            self.folder.stage(f"analyse-{number:03}", partial(compute, number, path))
            for number, path in enumerate(track(self.layers, "analysing errors"))
        ]
        return {"bits_per_weight": bits, "verdict": verdict(layers), "layers": layers}

    # Measures

    @property
    def _causal(self) -> bool:
        return type(self.model).__name__.endswith("ForCausalLM")

    @cached_property
    def _embeddings(self) -> Tensor | None:
        """The held-out texts under the model before compression."""
        if self._causal:
            return None
        return measures.embeddings(self.model, self.tokenizer, self.held_out)

    def _measure(self, before: Tensor | None = None) -> dict[str, Any]:
        """The task's figures of the model as it is now, and the time of a forward pass."""
        model, tokenizer, texts = self.model, self.tokenizer, self.held_out
        batch = self._batches(texts[:TIMED])[0]
        found = {"forward_ms": 1e3 * measures.seconds_a_forward(model, batch)}
        if self._causal:
            return {**found, "perplexity": perplexity(language_loss(model, tokenizer, texts))}
        queries, documents = (
            measures.embeddings(model, tokenizer, half) for half in measures.halves(texts)
        )
        found |= measures.retrieval(queries, documents)
        if before is not None:
            now = measures.embeddings(model, tokenizer, texts)
            found["cosine_agreement"] = measures.cosine_agreement(before, now)
        return found

    # Files

    def _moments_file(self, number: int) -> Path:
        return self.folder / "work" / "moments" / f"{number:03}.safetensors"

    def _moments(self, number: int) -> Tensor | None:
        file = self._moments_file(number)  # none without calibration, and for what is never called
        return read_tensors(file)["moments"] if file.is_file() else None

    def _layer_file(self, number: int) -> Path:
        return self.folder / "work" / "layers" / f"{number:03}.safetensors"

    def _finished(self, number: int, form: Form, report: dict[str, Any]) -> Compressed:
        parts = read_tensors(self._layer_file(number))
        out_features, in_features = report["shape"]
        return put_together(parts, form, (out_features, in_features), self.model.dtype)

    def _facts(self, reports: list[dict[str, Any]]) -> dict[str, Any]:
        """How the model was made, for its card."""
        recipe = self.recipe
        size = sum(report["bytes"] for report in reports)
        return {
            "base": recipe.model,
            "method": recipe.method,
            "bits per weight of the layers": 8 * size / count_weights(self.layers),
            "adapter merged before": recipe.adapter and short(recipe.adapter),
            "calibrated on": recipe.calibrate and described(recipe.calibrate),
            "seed": recipe.seed if recipe.calibrate else None,
        }

    def _comparison(self, before: dict[str, Any], after: dict[str, Any]) -> str:
        """What compression did to the figures, in a sentence."""
        if "perplexity" in after:
            change = after["perplexity"] / before["perplexity"] - 1
            said = (
                f"Perplexity is {before['perplexity']:.2f} for the full model and "
                f"{after['perplexity']:.2f} compressed ({change:+.1%}; lower is better)"
            )
        else:
            said = (
                f"The cosine similarities of the texts agree with the full model's by a rank "
                f"correlation of {after['cosine_agreement']:.3f}; the second half of a text is "
                f"found by its first in {before['hit_at_1']:.1%} of the cases by the full model, "
                f"in {after['hit_at_1']:.1%} compressed"
            )
        return f"{said}. Measured on {measured_on(self.recipe, len(self.held_out))}."

    def _results(
        self,
        before: dict[str, Any],
        after: dict[str, Any],
        reports: list[dict[str, Any]],
        analysis: dict[str, Any] | None,
    ) -> dict[str, Any]:
        weights = sum(report["shape"][0] * report["shape"][1] for report in reports)
        left = dict(self.survey.left)
        small = sum(report["bytes"] for report in reports)
        word = self.model.dtype.itemsize
        file = (self.folder / "model" / "model.safetensors").stat().st_size
        whole = file + weights * word - small
        return {
            "recipe": self.recipe.recipe,
            "title": self.recipe.title or f"{self.recipe.model}, {self.recipe.method}",
            "base": self.recipe.model,
            "comparison": self._comparison(before, after),
            "rows": [
                {"method": "before", "label": "Full model", "size_mb": whole / 2**20, **before},
                {"method": "compress", "label": "Compressed", "size_mb": file / 2**20, **after},
            ],
            "compression": {
                "method": self.recipe.method,
                "weights": weights,
                "numbers": self.survey.numbers,
                "left": left,
                "sentence": describe_shares(weights, self.survey.numbers, left),
                "bytes_before": weights * word,
                "bytes": small,
                "bits_per_weight": 8 * small / weights,
                "calibrated": bool(self.calibration),
                "measured_on": measured_on(self.recipe, len(self.held_out)),
                "layers": by_stack(self.layers, reports),
            },
            "analysis": analysis,
        }
