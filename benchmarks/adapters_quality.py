"""Which way of using three domains' adapters ranks best, in their domains and in an unseen one?

Trains adapters for sympy, pandas and numpy on the built-in API-call data, then ranks the next
call in each of these and in scikit-learn, which none of them saw, under every merge, under Mix
and under TopAtoms, and after a search on 30 of scikit-learn's validation rows. The scoring head
is the source's own in its domain and the mean of the three in the unseen one; nothing trains on
scikit-learn. Prints JSON with mean and standard deviation over the seeds. About twelve minutes
a seed on two cores; stages that are finished are not computed again.

    python benchmarks/adapters_quality.py [--seeds 0 1 2] [--out runs/adapters-quality]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Subset

from geodapt.adapters import METHODS, Adapter, AdapterBank, Gate, Mix, Off, TopAtoms, merge, search
from geodapt.data import ApiCallSettings
from geodapt.runs import RunFolder
from geodapt.training import TrainingSettings, predict
from geodapt.xcross.encoders import Encoder
from geodapt.xcross.experiment import XCrossExperiment
from geodapt.xcross.recipe import XCrossRecipe
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import PromptSettings

SOURCES, UNSEEN = ["sympy", "pandas", "numpy"], "scikit-learn"
SEARCHED_ROWS, TRIALS = 30, 20


class Study:
    """One seed: the trained sources, and what a gate is worth in a domain."""

    def __init__(self, seed: int, out: Path) -> None:
        self.seed, self.folder = seed, RunFolder(out / f"seed-{seed}")
        self.recipe = XCrossRecipe(
            seed=seed,
            sources=SOURCES,
            target=UNSEEN,
            data=ApiCallSettings(kind="api_calls", max_test=60),
            prompt=PromptSettings(max_tokens=48, item_tokens=16),
            training_negatives=3,
            source_training=TrainingSettings(steps=120, batch_size=4, learning_rate=1e-3),
            curve=None,
        )
        self.experiment = XCrossExperiment(self.recipe, self.folder)
        self.experiment.prepare_sources()
        self.bank: AdapterBank = self.experiment.bank
        self.bank.train_only()

    def rank(self, gate: Gate, domain: str, split: str, most: int | None, work: Path) -> dict:
        """Ranking figures of a domain's rows under a gate."""
        experiment = self.experiment
        task = experiment.tasks[domain]
        own = experiment.source_heads.get(domain)
        head = own if own is not None else experiment.starting_head()
        scorer = Scorer(Encoder(experiment.base, self.bank, gate, self.recipe.pooling), head)
        rows = task.rows(split)
        if most is not None and len(rows) > most:
            chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
            rows = Subset(rows, chosen[:most].sort().values.tolist())
        logits = predict(scorer, rows, collate=experiment.trainer.collate, work=work, label=domain)
        return task.metrics(logits)

    def gates(self) -> dict[str, Callable[[str], Gate]]:
        """Every way by name; a gate may depend on the domain, as the domain's own adapter does."""
        adapters = [self.bank[name] for name in SOURCES]
        ways: dict[str, Callable[[str], Gate]] = {
            "no adapter": lambda domain: Off(),
            "own adapter": lambda domain: Mix({domain: 1.0} if domain in SOURCES else {}),
            "mix, weights 1/3": lambda domain: Mix(dict.fromkeys(SOURCES, 1 / 3)),
            "mix, weights 1": lambda domain: Mix(dict.fromkeys(SOURCES, 1.0)),
        }
        for keep in (0.25, 0.5, 0.75):
            name = f"top atoms, {keep:.0%}"
            gate = TopAtoms(keep, Mix(dict.fromkeys(SOURCES, 1.0)))
            ways[name] = lambda domain, gate=gate: gate
        for method in METHODS:
            if method in ("linear", "cat"):
                continue  # exact: the same as a mix
            shares = [1.0] if METHODS[method].averages else [1 / 3]
            for weight in [1 / 3, 1.0] if method in ("svd", "atoms") else shares:
                merged = merge(adapters, method, weights=[weight] * len(SOURCES), same_base=True)
                name = f"merge {method}, weights {'1' if weight == 1 else '1/3'}"
                self.bank.add(name, merged)
                ways[name] = lambda domain, name=name: Mix({name: 1.0})
        return ways

    def searched(self, work: Path) -> Adapter:
        """The best merge for a few validation rows of the unseen domain."""

        def loss(adapter: Adapter) -> float:
            self.bank.add("candidate", adapter)
            try:
                gate = Mix({"candidate": 1.0})
                return -self.rank(gate, UNSEEN, "validation", SEARCHED_ROWS, work)["mrr"]
            finally:
                self.bank.remove("candidate")

        adapters = [self.bank[name] for name in SOURCES]
        best, _ = search(adapters, loss, TRIALS, self.folder / "search", seed=self.seed)
        return best

    def run(self) -> dict[str, dict[str, dict[str, float]]]:
        """Figures by way and domain."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, gate in self.gates().items():
            for domain in [*SOURCES, UNSEEN]:
                if name == "own adapter" and domain == UNSEEN:
                    continue
                stage = f"{name}-{domain}".replace("/", "_").replace(" ", "_")
                compute = partial(self._figures, gate(domain), domain)
                found.setdefault(name, {})[domain] = self.folder.stage(stage, compute)

        def after_search(work: Path) -> dict:
            self.bank.add("searched", self.searched(work))
            return self.rank(Mix({"searched": 1.0}), UNSEEN, "test", None, work)

        found["search"] = {UNSEEN: self.folder.stage("searched", after_search)}
        return found

    def _figures(self, gate: Gate, domain: str, work: Path) -> dict:
        return self.rank(gate, domain, "test", None, work)


def table(studies: list[dict]) -> list[dict]:
    """A row a way: mean and standard deviation over the seeds, in the sources and in the unseen."""
    rows = []
    for name in studies[0]:
        row: dict = {"way": name}
        for label, domains in (("in_domain", SOURCES), ("unseen", [UNSEEN])):
            for metric in ("hit_at_1", "mrr"):
                values = [
                    statistics.mean(study[name][domain][metric] for domain in domains)
                    for study in studies
                    if all(domain in study[name] for domain in domains)
                ]
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    row[f"{label}_{metric}"] = [
                        round(100 * statistics.mean(values), 1),
                        round(100 * spread, 1),
                    ]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/adapters-quality"))
    arguments = parser.parse_args()
    studies = [Study(seed, arguments.out).run() for seed in arguments.seeds]
    print(json.dumps({"seeds": arguments.seeds, "rows": table(studies)}, indent=1))


if __name__ == "__main__":
    main()
