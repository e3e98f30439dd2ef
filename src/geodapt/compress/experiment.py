"""Measures a model, compresses it and measures it again, in stages; a resumed run skips finished
ones.

Moments and compressed layers wait in the run's ``work/`` folder; one layer's are in memory at a
time. A stage is stored whole or not at all, and depends only on the recipe and on earlier stages,
so that a resumed run writes the same bytes.
"""

import copy
import math
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geodapt.cards import short
from geodapt.compress import quality
from geodapt.compress.analysis import analyse_layer
from geodapt.compress.budget import Option
from geodapt.compress.calibration import check_size, observable, passes
from geodapt.compress.compressed_tensor import Compressed, put_together, take_apart
from geodapt.compress.compression import (
    by_stack,
    check_fits,
    choose_formats,
    compress_layer,
    count_weights,
    describe_shares,
    options,
)
from geodapt.compress.findings import error_findings
from geodapt.compress.install import install_weights
from geodapt.compress.layer_format import CompressionMethod, LayerFormat
from geodapt.compress.layers import survey, weight_of
from geodapt.compress.recipe import CompressRecipe
from geodapt.compress.results import AnalysedLayer, CompressionSummary, ErrorAnalysis, LayerReport
from geodapt.compress.source_model import load_original
from geodapt.compress.storage import load, save
from geodapt.compress.svd import Whitening
from geodapt.compress.texts import calibration_texts, described, held_out_phrase, measured_texts
from geodapt.extras import require_torchao
from geodapt.files import read_tensors, write_tensors
from geodapt.models import text_batches
from geodapt.models.layer_inputs import second_moments
from geodapt.models.perplexity import language_loss, perplexity
from geodapt.pages.columns import PERPLEXITY
from geodapt.progress import track
from geodapt.runs import RunFolder

TIMED = 8  # texts of the batch that is timed


class CompressExperiment:
    """One run of the settings."""

    def __init__(self, settings: CompressRecipe, folder: RunFolder) -> None:
        self.settings, self.folder = settings, folder
        self.method = CompressionMethod.named(settings.method)
        settings.target.check(self.method)  # before a model is loaded for nothing
        if self.method.integers or settings.analyse:
            require_torchao()
        self.model, self.tokenizer = load_original(
            settings.model, getattr(torch, settings.precision), settings.adapter
        )
        self.untouched_tokenizer = copy.deepcopy(self.tokenizer)  # reading texts sets its lengths
        self.survey = survey(self.model)
        self.layers = self.survey.layers
        check_fits(self.layers, self.method, settings.target)
        self.calibration = self._batches(calibration_texts(settings))
        self.held_out = measured_texts(settings)
        if self.calibration:
            check_size(observable(self.layers), self.calibration)

    def run(self) -> dict[str, Any]:
        before = self.folder.stage("before", lambda work: self._measure())
        self._calibrate()
        forms = self._choose()
        reports = self._compress(forms)
        analysis = self._analyse(reports) if self.settings.analyse else None
        embeddings = self._embeddings
        weights = {
            path: self._finished(number, forms[path], report)
            for number, (path, report) in enumerate(zip(self.layers, reports, strict=True))
        }
        install_weights(self.model, self.layers, weights)
        save(self.model, self.folder / "model", self.untouched_tokenizer, self._facts(reports))
        self.model = load(self.folder / "model")
        after = self.folder.stage("after", lambda work: self._measure(embeddings))
        return self._results(before, after, reports, analysis)

    def _batches(self, texts: list[str]) -> list[Mapping[str, Any]]:
        return list(text_batches(self.tokenizer, texts, self.model, self.settings.max_tokens))

    # Stages

    def _calibrate(self) -> None:
        """The inputs' moments of all layers, one file per layer."""
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

    def _choose(self) -> dict[str, LayerFormat]:
        """Each layer's format, chosen from the options of all layers."""

        def measure(number: int, path: str, work: Path) -> dict[str, Any]:
            W, whitening = weight_of(self.layers[path]), Whitening(self._moments(number))
            found = options(W, self.method, self.settings.target, whitening)
            return {
                "options": [
                    [o.form.width, o.form.group, o.form.rank, o.bytes, o.error] for o in found
                ]
            }

        curves = {}
        for number, path in enumerate(track(self.layers, "measuring layers")):
            stage = self.folder.stage(f"measure-{number:03}", partial(measure, number, path))
            curves[path] = [Option(LayerFormat(*o[:3]), *o[3:]) for o in stage["options"]]
        return choose_formats(curves, self.method, self.settings.target, count_weights(self.layers))

    def _compress(self, forms: dict[str, LayerFormat]) -> list[LayerReport]:
        """The compressed weights, one file per layer, and what each lost."""

        def compute(number: int, path: str, work: Path) -> dict[str, Any]:
            W = weight_of(self.layers[path])
            weight, report = compress_layer(path, W, forms[path], self._moments(number))
            write_tensors(self._layer_file(number), take_apart(weight))
            return report.as_dict()

        stages = (
            self.folder.stage(f"compress-{number:03}", partial(compute, number, path))
            for number, path in enumerate(track(self.layers, "compressing layers"))
        )
        return [LayerReport(**stage) for stage in stages]

    def _analyse(self, reports: list[LayerReport]) -> ErrorAnalysis:
        taken = 8 * sum(report.bytes for report in reports) / count_weights(self.layers)
        bits = self.settings.bits_per_weight or taken
        drawn = {0, len(self.layers) // 2, len(self.layers) - 1}

        def compute(number: int, path: str, work: Path) -> dict[str, Any]:
            W = weight_of(self.layers[path])
            return analyse_layer(path, W, self._moments(number), bits, number in drawn)

        layers = [
            self.folder.stage(f"analyse-{number:03}", partial(compute, number, path))
            for number, path in enumerate(track(self.layers, "analysing errors"))
        ]
        return ErrorAnalysis(
            bits_per_weight=bits,
            verdict=error_findings(layers),
            layers=[AnalysedLayer(**layer) for layer in layers],
        )

    # Measures

    @property
    def _causal(self) -> bool:
        return type(self.model).__name__.endswith("ForCausalLM")

    @cached_property
    def _embeddings(self) -> Tensor | None:
        """The held-out texts under the model before compression."""
        if self._causal:
            return None
        return quality.embeddings(self.model, self.tokenizer, self.held_out)

    def _measure(self, before: Tensor | None = None) -> dict[str, Any]:
        """The task's figures of the model as it is now, and the time of a forward pass."""
        model, tokenizer, texts = self.model, self.tokenizer, self.held_out
        batch = self._batches(texts[:TIMED])[0]
        found = {"forward_ms": 1e3 * quality.seconds_a_forward(model, batch)}
        if self._causal:
            return {**found, "perplexity": perplexity(language_loss(model, tokenizer, texts))}
        queries, documents = (
            quality.embeddings(model, tokenizer, half) for half in quality.halves(texts)
        )
        found |= quality.retrieval(queries, documents)
        if before is not None:
            now = quality.embeddings(model, tokenizer, texts)
            found["cosine_agreement"] = quality.cosine_agreement(before, now)
        return found

    # Files

    def _moments_file(self, number: int) -> Path:
        return self.folder / "work" / "moments" / f"{number:03}.safetensors"

    def _moments(self, number: int) -> Tensor | None:
        file = self._moments_file(number)  # none without calibration, and for what is never called
        return read_tensors(file)["moments"] if file.is_file() else None

    def _layer_file(self, number: int) -> Path:
        return self.folder / "work" / "layers" / f"{number:03}.safetensors"

    def _finished(self, number: int, form: LayerFormat, report: LayerReport) -> Compressed:
        parts = read_tensors(self._layer_file(number))
        out_features, in_features = report.shape
        return put_together(parts, form, (out_features, in_features), self.model.dtype)

    def _facts(self, reports: list[LayerReport]) -> dict[str, Any]:
        """How the model was made, for its card."""
        settings = self.settings
        size = sum(report.bytes for report in reports)
        return {
            "base": settings.model,
            "method": settings.method,
            "bits per weight of the layers": 8 * size / count_weights(self.layers),
            "adapter merged before": settings.adapter and short(settings.adapter),
            "calibrated on": settings.calibrate and described(settings.calibrate),
            "seed": settings.seed if settings.calibrate else None,
        }

    def _comparison(self, before: dict[str, Any], after: dict[str, Any]) -> str:
        """What compression did to the figures, in a sentence."""
        if "perplexity" in after:
            change = after["perplexity"] / before["perplexity"] - 1
            full, small = (PERPLEXITY.show(each["perplexity"]) for each in (before, after))
            said = (
                f"Perplexity is {full} for the full model and {small} compressed "
                f"({100 * change:+.1f} %; lower is better)"
            )
        else:
            said = (
                f"The cosine similarities of the texts agree with the full model's by a rank "
                f"correlation of {after['cosine_agreement']:.3f}; the second half of a text is "
                f"found by its first in {100 * before['hit_at_1']:.1f} % of the cases by the full "
                f"model, in {100 * after['hit_at_1']:.1f} % compressed"
            )
        return f"{said}. Measured on {held_out_phrase(self.settings, len(self.held_out))}."

    def _results(
        self,
        before: dict[str, Any],
        after: dict[str, Any],
        reports: list[LayerReport],
        analysis: ErrorAnalysis | None,
    ) -> dict[str, Any]:
        weights = sum(math.prod(report.shape) for report in reports)
        left = dict(self.survey.left)
        small = sum(report.bytes for report in reports)
        word = self.model.dtype.itemsize
        file = (self.folder / "model" / "model.safetensors").stat().st_size
        whole = file + weights * word - small
        return {
            "base": self.settings.model,
            "comparison": self._comparison(before, after),
            "rows": [
                {"method": "before", "label": "Full model", "size_mb": whole / 2**20, **before},
                {"method": "compress", "label": "Compressed", "size_mb": file / 2**20, **after},
            ],
            "compression": CompressionSummary(
                method=self.settings.method,
                weights=weights,
                numbers=self.survey.numbers,
                left=left,
                sentence=describe_shares(weights, self.survey.numbers, left),
                bytes_before=weights * word,
                bytes=small,
                bits_per_weight=8 * small / weights,
                calibrated=bool(self.calibration),
                measured_on=held_out_phrase(self.settings, len(self.held_out)),
                layers=by_stack(self.layers, reports),
            ).model_dump(mode="json"),
            "analysis": analysis and analysis.model_dump(mode="json"),
        }
