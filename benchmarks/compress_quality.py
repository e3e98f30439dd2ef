"""What each way of compressing costs in quality, at equal sizes.

    geodapt run helm-tiny 'models=[llama]' training.steps=1500 --out runs/llama
    python benchmarks/compress_quality.py --models minilm runs/llama/model
    python benchmarks/compress_quality.py --models minilm --bits 4.5 --draws 1   # quick

MiniLM: Spearman correlation of all cosine similarities with the full model's, and retrieval of
the second half of a text by its first. A language model that the recipe `helm-tiny` trained (a
HELM, a Llama): perplexity. Every figure is on held-out texts; methods that are calibrated are
measured over several draws of calibration texts. A call that was cut short goes on where it was.
Prints JSON.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import geodapt.helm  # noqa: F401 - so that Auto classes know HELM
from geodapt.compress import quality
from geodapt.compress.budget import SizeBudget, allocate, allocate_uniform, hull
from geodapt.compress.calibration import moments_by_group
from geodapt.compress.compression import compress_layer, count_weights
from geodapt.compress.install import install_weights
from geodapt.compress.layer_format import CompressionMethod, LayerFormat
from geodapt.compress.layers import compressible, weight_of
from geodapt.compress.rate_distortion import curve
from geodapt.compress.recipe import CompressRecipe
from geodapt.compress.svd import Whitening
from geodapt.compress.texts import calibration_texts, measured_texts
from geodapt.data.corpus import ApiTextsSettings, CorpusSettings, DocsSettings
from geodapt.errors import InputError
from geodapt.models import load_base, text_batches
from geodapt.models.perplexity import language_loss, perplexity
from geodapt.progress import console
from geodapt.runs import RunFolder, device_name

BITS = (8.0, 6.0, 4.5, 4.0, 3.0)
WAYS = {  # name: method, whether it is calibrated, whether all layers take one form
    "svd, plain": ("svd", False, False),
    "svd, whitened": ("svd", True, False),
    "integers, one form": ("int", False, True),
    "integers, by layer": ("int", True, False),
    "int4 + low rank": ("lowrank_plus_int4", True, False),
    "integers + low rank": ("lowrank_plus_int", True, False),
}


class World:
    """A model, its texts, and what it is measured by."""

    def __init__(self, model: Any, tokenizer: Any, source: CorpusSettings, causal: bool) -> None:
        self.model, self.tokenizer, self.source, self.causal = model, tokenizer, source, causal
        self.layers = compressible(model)
        self.weights = count_weights(self.layers)
        self.held_out = measured_texts(CompressRecipe(calibrate=source))
        if not self.causal:
            self.before = quality.embeddings(model, tokenizer, self.held_out)

    def moments(self, seed: int) -> dict[str, Tensor]:
        recipe = CompressRecipe(calibrate=self.source, seed=seed)
        texts = calibration_texts(recipe)
        given = list(text_batches(self.tokenizer, texts, self.model, recipe.max_tokens))
        found = {}
        for group in moments_by_group(self.model, self.layers, given):
            found |= {path: moments.matrix for path, moments in group.items()}
        return found

    def figures(self, model: Any) -> dict[str, float]:
        if self.causal:
            return {"perplexity": perplexity(language_loss(model, self.tokenizer, self.held_out))}
        queries, documents = (
            quality.embeddings(model, self.tokenizer, half)
            for half in quality.halves(self.held_out)
        )
        now = quality.embeddings(model, self.tokenizer, self.held_out)
        agreement = quality.cosine_agreement(self.before, now)
        return {"agreement": agreement, **quality.retrieval(queries, documents)}


def minilm() -> World:
    model, tokenizer = load_base("minilm")
    return World(model, tokenizer, ApiTextsSettings(), causal=False)


def language_model(trained: str) -> World:
    """A model folder of the recipe `helm-tiny`, and the documentation that it was trained on."""
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    return World(model.eval().requires_grad_(False), tokenizer, DocsSettings(), causal=True)


class Study:
    """All ways at all sizes for one model."""

    def __init__(self, name: str, world: World, folder: RunFolder) -> None:
        self.name, self.world, self.folder = name, world, folder
        self.curves: dict[tuple[str, int | None], dict[str, list]] = {}
        self.drawn: dict[int, dict[str, Tensor]] = {}

    def rows(self, bits: list[float], draws: int) -> list[dict[str, Any]]:
        full = self.folder.stage(
            f"{self.name}-full", lambda _: self.world.figures(self.world.model)
        )
        rows = [{"model": self.name, "way": "full model", "bits": 32.0, **spread([full])}]
        for draw in range(draws):  # draw after draw, so that what is cut short is whole for some
            for size in bits:
                for way, (_, calibrated, _) in WAYS.items():
                    if calibrated or not draw:
                        self.measured(way, size, draw if calibrated else None)
            self.curves = {key: c for key, c in self.curves.items() if key[1] is None}
            self.drawn.clear()
        for size in bits:
            for way, (_, calibrated, _) in WAYS.items():
                found = [
                    self.measured(way, size, draw)
                    for draw in (range(draws) if calibrated else [None])
                ]
                if all(found):
                    rows.append({"model": self.name, "way": way, "bits": size, **spread(found)})
        return rows

    def measured(self, way: str, bits: float, draw: int | None) -> dict[str, Any]:
        """The figures of one way at one size; empty where it cannot be so small."""
        name = f"{self.name}-{way}-{bits:g}-{draw}".replace(" ", "_").replace(",", "")
        return self.folder.stage(name, lambda _: self._measure(way, bits, draw))

    def _measure(self, way: str, bits: float, draw: int | None) -> dict[str, Any]:
        method, _, uniform = WAYS[way]
        moments = {} if draw is None else self._moments(draw)
        share: Callable = allocate_uniform if uniform else allocate
        try:
            chosen = share(
                self._curves(method, uniform, draw), SizeBudget(bits * self.world.weights / 8)
            )
        except InputError:
            return {}
        model = copy.deepcopy(self.world.model)
        size, lost, weights = 0, [], {}
        for path, option in chosen.items():
            W = weight_of(self.world.layers[path])
            weight, report = compress_layer(path, W, option.form, moments.get(path))
            weights[path] = weight
            size += report.bytes
            lost.append(report.output_error if moments else report.weight_error)
        install_weights(model, compressible(model), weights)
        found = {"true_bits": 8 * size / self.world.weights, "lost": statistics.mean(lost)}
        found |= self.world.figures(model)
        found["form"] = _summary([option.form for option in chosen.values()])
        console.print(json.dumps({"way": way, "bits": bits, "draw": draw, **found}))
        return found

    def _moments(self, draw: int) -> dict[str, Tensor]:
        if draw not in self.drawn:
            self.drawn[draw] = self.world.moments(draw)
        return self.drawn[draw]

    def _curves(self, method: str, uniform: bool, draw: int | None) -> dict[str, list]:
        key = (f"{method} {uniform}", draw)
        if key not in self.curves:
            moments = {} if draw is None else self._moments(draw)
            options = {
                path: curve(
                    weight_of(layer), CompressionMethod.named(method), Whitening(moments.get(path))
                )
                for path, layer in self.world.layers.items()
            }
            self.curves[key] = options if uniform else {p: hull(o) for p, o in options.items()}
        return self.curves[key]


def _summary(forms: list[LayerFormat]) -> str:
    """The forms in a few words: which widths, and the median rank."""
    widths = sorted({form.width for form in forms if form.width})
    rank = statistics.median(form.rank for form in forms)
    said = [f"int{min(widths)} to int{max(widths)}" if len(widths) > 1 else ""] if widths else []
    said = [f"int{widths[0]}"] if len(widths) == 1 else said
    return ", ".join([*said, *([f"median rank {rank:g}"] if rank else [])])


def spread(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of every number over the draws."""
    found: dict[str, Any] = {}
    for key, value in runs[0].items():
        if isinstance(value, str):
            found[key] = value
            continue
        values = [run[key] for run in runs]
        found[key] = round(statistics.mean(values), 5)
        if len(values) > 1:
            found[f"{key}_std"] = round(statistics.stdev(values), 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["minilm"], metavar="minilm|FOLDER")
    parser.add_argument("--bits", nargs="+", type=float, default=list(BITS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/compress-quality"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = RunFolder(args.out)
    rows = []
    for name in args.models:
        world = minilm() if name == "minilm" else language_model(name)
        rows += Study(world.model.config.model_type, world, folder).rows(args.bits, args.draws)
    print(json.dumps({"draws": args.draws, "device": device_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
