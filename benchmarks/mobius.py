"""Whether the Mobius form trains a scaling differently from the Euclidean one.

One small CLIP, the pages of the recipe hyperclip-glyphs, the same batches for every row:

    A  Euclidean, W S^T
    B  the released formulas with their clamps, text tower at c = 1, image tower at c = 0.01
    C  exact Mobius products (geometry.poincare), at the same curvatures
    D  the ball's points multiplied without Mobius, log0(S exp0(W)), which does differ
    E  A from start noise of 1e-7
    F  A with the batches of another seed
    G  as D in the Lorentz model, the hyperboloid's space components multiplied

Prints JSON: the share of weight rows that the released clamps touch, the difference of weights and
gradients at step 0, |D_X - D_A| / |D_A| along the way, and the mean IoU at the end, for each seed.

    python benchmarks/mobius.py --base runs/base/model [--seeds 3] [--steps 300] [--every 50]
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from geodapt.adapters.execution.hooks import Attachment
from geodapt.geometry import lorentz, poincare
from geodapt.hyperclip.evaluation import evaluate_pages
from geodapt.hyperclip.methods import TuningMethod
from geodapt.hyperclip.page_experiment import PageExperiment
from geodapt.hyperclip.projections import projections
from geodapt.hyperclip.recipe import HyperClipRecipe
from geodapt.hyperclip.scaling import BlockScaling, mobius_scaled
from geodapt.runs import RunFolder

CURVATURE = {"text": 1.0, "image": 0.01}
FORMS = "ABCDEFG"


def scaled_weight(form: str, weight: Tensor, block: BlockScaling, c: float) -> Tensor:
    """A frozen weight under a scaling, by the formulas of a row."""
    if form == "B":
        return mobius_scaled(weight, block.matrix(), c)
    if form == "C":
        return mobius_scaled(weight, block.matrix(), c, clamps=False)
    if form == "D":
        return poincare.log0(poincare.exp0(weight, c) @ block.matrix().mT, c)
    if form == "G":
        return lorentz.log0(lorentz.exp0(weight, c) @ block.matrix().mT, c)
    return block.weight(weight)


def train(experiment: PageExperiment, form: str, seed: int, given: argparse.Namespace):
    """A trained row: D on the way, the gradient of the first step, and the mean IoU."""
    torch.manual_seed(seed)
    tuner = experiment.tuner(experiment.model(), TuningMethod.parse("frozen"))
    blocks, generator = [], torch.Generator().manual_seed(seed)
    for projection in projections(tuner.segmenter.clip.model):
        block = BlockScaling(projection.module.in_features, given.block)
        if form == "E":
            with torch.no_grad():
                block.delta.normal_(std=1e-7, generator=generator)
        c = CURVATURE[projection.tower]

        def run(module, base, h, block=block, c=c):
            weight = scaled_weight(form, module.weight, block, c)
            return nn.functional.linear(h, weight, module.bias)

        Attachment(projection.module, run)
        blocks.append(block)
    order = seed + 1000 if form == "F" else seed
    batches = experiment.batches(tuner.segmenter, order)
    rows = torch.randperm(
        given.steps * given.batch, generator=torch.Generator().manual_seed(order)
    ).remainder(len(batches))
    tuner.calibrate(**batches.collate(list(range(given.batch))))
    deltas = [block.delta for block in blocks]
    head = list(tuner.segmenter.head.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": deltas, "lr": given.rate}, {"params": head, "lr": 3e-3}], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / given.steps))
    )
    path, first = [], None
    for step in range(given.steps):
        some = rows[step * given.batch : (step + 1) * given.batch].tolist()
        loss = tuner(**batches.collate(some))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if first is None:
            first = torch.cat([delta.grad.flatten() for delta in deltas])
        nn.utils.clip_grad_norm_([*deltas, *head], 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % given.every == 0:
            path.append(torch.cat([delta.detach().flatten() for delta in deltas]).clone())
    tuner.eval()
    counted = evaluate_pages(
        tuner.segmenter, experiment.pages["test"].select(range(given.pages)), [experiment.main]
    )
    miou = counted[experiment.main.level][0].means()["miou_truth"]
    return path, first, miou, loss.item()


@torch.no_grad()
def clamped(experiment: PageExperiment) -> dict[str, dict[str, float]]:
    """Rows of weights whose norm is beyond the released clamp, and the longest of them."""
    model = experiment.model().clip.model
    found: dict[str, list[Tensor]] = {"text": [], "image": []}
    for projection in projections(model):
        found[projection.tower].append(projection.module.weight.norm(dim=1))
    shown = {}
    for tower, parts in found.items():
        norms = torch.cat(parts)
        limit = math.atanh(0.999) / CURVATURE[tower] ** 0.5
        shown[tower] = {
            "limit": round(limit, 2),
            "longest": round(norms.max().item(), 2),
            "share beyond": (norms > limit).double().mean().item(),
        }
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="clip-glyphs")
    parser.add_argument("--scripts", default="Latin,Greek,Cyrillic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--forms", default=FORMS)
    given = parser.parse_args()
    settings = HyperClipRecipe.model_validate(
        {
            "base": given.base,
            "data": {"scripts": given.scripts.split(",")},
            "pages": {"train": 500, "test": given.pages},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        experiment = PageExperiment(settings, RunFolder(Path(folder)))
        print(json.dumps({"clamped": clamped(experiment)}), flush=True)
        for seed in range(given.seeds):
            reference = train(experiment, "A", seed, given)
            for form in given.forms:
                path, first, miou, loss = (
                    reference if form == "A" else train(experiment, form, seed, given)
                )
                pairs = list(zip(path, reference[0], strict=True))
                row = {
                    "seed": seed,
                    "row": form,
                    "gradient": ((first - reference[1]).norm() / reference[1].norm()).item(),
                    "difference": [((a - b).norm() / b.norm()).item() for a, b in pairs],
                    "loss": loss,
                    "miou": miou,
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
