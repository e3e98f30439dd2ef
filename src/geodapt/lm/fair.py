"""A fair comparison: every model at its own best learning rate, over several seeds.

Models differ in the rate that suits them, so one rate for all favours some. Each model gets the
same rates and the same number of whole trainings; validation text chooses, test text judges.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Protocol

from scipy.stats import t as student

from geodapt.errors import Diverged, InputError
from geodapt.lm.settings import PretrainingSettings
from geodapt.models.perplexity import perplexity
from geodapt.processes import is_main_process, wait_for_everyone
from geodapt.runs import RunFolder

CANDIDATES = "candidates"  # of a run's folder: models at the rates that are tried
CONFIDENCE = 0.95


class Trains(Protocol):
    """What trains a comparison's models, as ``geodapt.lm.experiment`` does."""

    settings: PretrainingSettings
    folder: RunFolder
    seed: int

    def trained(
        self,
        name: str,
        work: Path,
        stage: str,
        kept: str | None,
        rate: float | None = None,
        seed: int | None = None,
        validated: bool = False,
    ) -> dict[str, Any]: ...

    def model_folder(self, name: str) -> Path: ...


def rates_of(settings: PretrainingSettings) -> list[float]:
    return settings.learning_rates or [settings.training.learning_rate]


def row_stages(settings: PretrainingSettings, name: str) -> list[str]:
    """The stages of a model's row."""
    if not settings.learning_rates and settings.seeds == 1:
        return [f"model-{name}"]
    rates = [f"rate-{name}-{rate:g}" for rate in rates_of(settings)]
    return rates + [f"seed-{name}-{k}" for k in range(1, settings.seeds)]


def compared(experiment: Trains, name: str) -> dict[str, Any]:
    """A model's figures at the rate that validation chooses, the mean over seeds.

    The model that is left is the first seed's. A rate that diverges is not chosen; it has no loss.
    Raises :class:`InputError` where all do.
    """
    settings, folder = experiment.settings, experiment.folder
    tried: dict[float, dict[str, Any]] = {}
    for rate in rates_of(settings):
        stage = f"rate-{name}-{rate:g}"
        tried[rate] = folder.timed_stage(stage, partial(_attempt, experiment, name, rate, stage))
    losses = {rate: found.get("validation_loss") for rate, found in tried.items()}
    finite = {rate: loss for rate, loss in losses.items() if loss is not None}
    if not finite:
        raise InputError(f"{name} diverges at all of the learning_rates; give lower ones")
    best = min(finite, key=finite.__getitem__)
    runs = [tried[best]]
    for k in range(1, settings.seeds):
        stage = f"seed-{name}-{k}"
        train = partial(
            experiment.trained, name, stage=stage, kept=None, rate=best, seed=experiment.seed + k
        )
        runs.append(folder.timed_stage(stage, train))
    _keep(experiment, name, _candidate(f"rate-{name}-{best:g}"))
    every = [*tried.values(), *runs[1:]]
    loss = mean(run["loss"] for run in runs)
    speeds = [run["tokens_per_second"] for run in runs if run.get("tokens_per_second")]
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "losses": [run["loss"] for run in runs],
        "learning_rate": best,
        "validation_losses": [[rate, losses[rate]] for rate in sorted(losses)],
        "at_an_end": len(losses) > 1 and best in (min(losses), max(losses)),
        "trainings": len(every),
        "tokens_per_second": median(speeds) if speeds else None,
        "trainable_parameters": runs[0]["trainable_parameters"],
        "seconds": sum(run["seconds"] for run in every),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in every),
    }


def _attempt(experiment: Trains, name: str, rate: float, stage: str, work: Path) -> dict[str, Any]:
    """The figures of a model at one rate; nothing of one that diverged, so that others go on."""
    kept = _candidate(stage)
    try:
        found = experiment.trained(name, work, stage, kept, rate=rate, validated=True)
    except Diverged:
        return {}
    finite = all(math.isfinite(found[key]) for key in ("loss", "validation_loss", "perplexity"))
    return found if finite else {}


def _candidate(stage: str) -> str:
    return f"{CANDIDATES}/{stage}"


def _keep(experiment: Trains, name: str, chosen: str) -> None:
    """Move the chosen model to its place, and remove the others."""
    if is_main_process():
        source, target = experiment.folder / chosen, experiment.model_folder(name)
        if Path(source).is_dir():  # else a resumed run has moved it before
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(source, target)
        for other in Path(experiment.folder / CANDIDATES).glob(f"rate-{name}-*"):
            shutil.rmtree(other, ignore_errors=True)
    wait_for_everyone()


def seedwise_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Mean difference of losses seed by seed, in percent of perplexity, with Student's interval.

    ``visible`` is the smallest difference that an interval of this width would tell from none: the
    power of the comparison. One seed has a ``percent`` alone. Negative: ours is lower, which is
    better.
    """
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    middle, count = mean(pairs), len(pairs)

    def percent(loss: float) -> float:
        return 100 * math.expm1(loss)

    if count == 1:
        return {"percent": percent(middle)}
    half = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(pairs) / count**0.5
    return {
        "percent": percent(middle),
        "low": percent(middle - half),
        "high": percent(middle + half),
        "visible": percent(half),
    }


def comparisons(
    rows: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """:func:`seedwise_difference` of the pairs whose rows both have a loss for each seed."""
    by_name = {row["method"]: row for row in rows}
    found = []
    for ours, theirs in pairs:
        a, b = by_name.get(ours, {}), by_name.get(theirs, {})
        if "losses" in a and "losses" in b:
            difference = seedwise_difference(a["losses"], b["losses"])
            found.append({"model": ours, "against": theirs, **difference})
    return found
