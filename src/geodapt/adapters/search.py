"""Black-box search over merge methods, weights and their options."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.merging import METHODS, merge
from geodapt.errors import InputError
from geodapt.extras import require_optuna
from geodapt.files import read_json, write_json
from geodapt.locks import only_user
from geodapt.progress import bar

QUESTION, TABLE = "search.json", "trials.json"


@dataclass(frozen=True)
class Trial:
    """One merge that was tried."""

    number: int
    value: float | None
    """None where the merged model's value was not finite."""
    method: str
    weights: list[float]
    rank: int | None
    density: float | None


def search(
    adapters: Sequence[Adapter],
    evaluate: Callable[[Adapter], float],
    budget: int,
    folder: Path | str,
    maximise: bool = False,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    same_base: bool = False,
    about: Mapping[str, Any] | None = None,
) -> tuple[Adapter, list[Trial]]:
    """The best merge of some adapters, by at most ``budget`` evaluations.

    Each method is first tried with its defaults; then tree-structured Parzen estimators (Bergstra
    et al. 2011, through optuna) choose method, weights (-0.5 to 1.5), rank (up to twice the
    largest) and density.

    ``folder`` keeps, after every trial, the table of all of them as ``trials.json``. An interrupted
    search continues from there and ends with the same trials, since a trial depends only on its
    number and on the trials before it.

    Args:
        evaluate: rates a merged adapter, on data held out from training.
        maximise: whether more is better.
        about: what else the values depend on, such as the metric and the data: a folder of
            another search is refused.

    Returns:
        The best adapter, and all trials, best first.

    Raises:
        InputError: optuna is not installed, a budget or method that does not exist, a folder that
            another process or another search uses, or no trial with a finite value.
    """
    optuna = _optuna()
    if budget < 1:
        raise InputError(f"budget {budget} is out of range; give at least 1 trial")
    names = list(methods or METHODS)
    for name in names:
        if name not in METHODS:
            raise InputError(f"no merge method '{name}'; there are {', '.join(METHODS)}")
    merge(adapters, "cat", same_base=same_base)  # raises now what would stop the first trial
    folder = Path(folder)
    question = {
        "adapters": [adapter.sha256 for adapter in adapters],
        "methods": names,
        "maximise": maximise,
        "seed": seed,
        **(about or {}),
    }
    with only_user(folder), bar("search", total=budget) as progress:
        trials = _begun(folder, question)
        progress.advance(min(len(trials), budget))
        for number in range(len(trials), budget):
            options = _options(optuna, trials, number, names, adapters, maximise, seed)
            value = evaluate(merge(adapters, **options, same_base=same_base))
            finite = float(value) if math.isfinite(value) else None
            trials.append(
                Trial(
                    number,
                    finite,
                    options["method"],
                    options["weights"],
                    options.get("rank"),
                    options.get("density"),
                )
            )
            write_json(folder / TABLE, [asdict(trial) for trial in ranked(trials, maximise)])
            best = ranked(trials, maximise)[0]
            progress.note(f"best {best.value or math.nan:.4g} by {best.method}")
            progress.advance()
    trials = ranked(trials, maximise)
    if trials[0].value is None:
        raise InputError("no merge gave a finite value; is the data in the adapters' language?")
    return merge(adapters, **arguments(trials[0]), same_base=same_base), trials


def arguments(trial: Trial) -> dict[str, Any]:
    """The arguments of :func:`merge` for a trial."""
    found = asdict(trial)
    return {
        key: found[key]
        for key in ("method", "weights", "rank", "density")
        if found[key] is not None
    }


def ranked(trials: Sequence[Trial], maximise: bool) -> list[Trial]:
    """Trials, best first; those without a value last."""
    sign = -1 if maximise else 1
    return sorted(trials, key=lambda t: math.inf if t.value is None else sign * t.value)


def _begun(folder: Path, question: Mapping[str, Any]) -> list[Trial]:
    """The trials of a search that was begun in a folder, in their order."""
    path = folder / QUESTION
    if path.is_file():
        before = read_json(path)
        for key in question.keys() | before.keys():
            if before.get(key) != question.get(key):
                raise InputError(
                    f"{folder} holds a search with other {key}; give another folder for the "
                    "result, or remove that one"
                )
    else:
        write_json(path, question)
    if not (folder / TABLE).is_file():
        return []
    try:
        trials = [Trial(**trial) for trial in read_json(folder / TABLE)]
        return sorted(trials, key=lambda trial: trial.number)
    except TypeError as error:
        raise InputError(f"{folder / TABLE} is not a table of trials; remove {folder}") from error


def _options(
    optuna: Any,
    trials: Sequence[Trial],
    number: int,
    names: Sequence[str],
    adapters: Sequence[Adapter],
    maximise: bool,
    seed: int,
) -> dict[str, Any]:
    """What a trial tries: a method with its defaults, or what the sampler draws given the
    others."""
    if number < len(names):
        name = names[number]
        values = {"method": name, **_defaults(name, adapters)}
        return suggest(optuna.trial.FixedTrial(values), names, adapters)
    # A sampler of its own for each trial, so that nothing but the table needs to be kept.
    study = optuna.create_study(
        direction="maximize" if maximise else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed + number, multivariate=True, group=True),
    )
    for trial in trials:
        if trial.value is not None:
            drawn = optuna.trial.FixedTrial(_drawn(trial))
            suggest(drawn, names, adapters)
            study.add_trial(
                optuna.trial.create_trial(
                    value=trial.value, params=drawn.params, distributions=drawn.distributions
                )
            )
    return suggest(study.ask(), names, adapters)


def _drawn(trial: Trial) -> dict[str, Any]:
    weights = {f"weight_{i}": weight for i, weight in enumerate(trial.weights)}
    return {"method": trial.method, "rank": trial.rank, "density": trial.density, **weights}


def suggest(trial: Any, methods: Sequence[str], adapters: Sequence[Adapter]) -> dict[str, Any]:
    """The arguments of :func:`merge` that a trial draws."""
    method = METHODS[trial.suggest_categorical("method", list(methods))]
    options: dict[str, Any] = {
        "method": method.name,
        "weights": [trial.suggest_float(f"weight_{i}", -0.5, 1.5) for i in range(len(adapters))],
    }
    if method.truncates or "rank" in method.options:
        options["rank"] = trial.suggest_int("rank", 1, largest_rank(adapters))
    if "density" in method.options:
        options["density"] = trial.suggest_float("density", 0.05, 1.0)
    return options


def largest_rank(adapters: Sequence[Adapter]) -> int:
    """Twice the largest rank, as far as the narrowest layer allows."""
    shapes = [(f.A.shape[1], f.B.shape[0]) for a in adapters for f in a.factors.values()]
    return min(2 * max(adapter.rank for adapter in adapters), min(min(pair) for pair in shapes))


def _defaults(name: str, adapters: Sequence[Adapter]) -> dict[str, float]:
    share = 1.0 if METHODS[name].averages else 1 / len(adapters)
    values: dict[str, float] = {f"weight_{i}": share for i in range(len(adapters))}
    if METHODS[name].truncates or "rank" in METHODS[name].options:
        values["rank"] = min(max(a.rank for a in adapters), largest_rank(adapters))
    if "density" in METHODS[name].options:
        values["density"] = 0.5
    return values


def _optuna() -> Any:
    require_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The grouped sampler carries this label; what it does is tested here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
