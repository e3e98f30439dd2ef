"""Which merge method, and with which weights? Black-box search over all of it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.merging import METHODS, merge
from geodapt.errors import InputError
from geodapt.extras import missing
from geodapt.files import write_json
from geodapt.progress import bar

JOURNAL, TABLE = "search.journal", "trials.json"


@dataclass(frozen=True)
class Trial:
    """One merge that was tried."""

    number: int
    value: float
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
) -> tuple[Adapter, list[Trial]]:
    """The best merge of some adapters, by at most ``budget`` evaluations.

    Each method is first tried as it comes; then tree-structured Parzen estimators (Bergstra et
    al. 2011, through optuna) choose method, weights (-0.5 to 1.5), rank (up to twice the
    largest) and density.

    ``folder`` keeps a journal and, after every trial, the table of all of them as
    ``trials.json``; a search that was cut short goes on from there.

    Args:
        evaluate: what a merged adapter is worth, on data held out from training.
        maximise: whether more is better.

    Returns:
        The best adapter, and all trials, best first.

    Raises:
        InputError: optuna is not installed, or a budget or method that does not exist.
    """
    optuna = _optuna()
    if budget < 1:
        raise InputError(f"budget {budget} is out of range; give at least 1 trial")
    names = list(methods or METHODS)
    for name in names:
        if name not in METHODS:
            raise InputError(f"no merge method '{name}'; there are {', '.join(METHODS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        study_name="merge",
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize" if maximise else "minimize",
        load_if_exists=True,
    )
    done = len(_finished(study))
    study.sampler = optuna.samplers.TPESampler(seed=seed + done, multivariate=True, group=True)
    if not study.trials:
        for name in names:
            study.enqueue_trial({"method": name, **_defaults(name, adapters)})

    with bar("search", total=budget) as progress:
        progress.advance(done)

        def objective(trial: Any) -> float:
            options = suggest(trial, names, adapters)
            trial.set_user_attr("options", options)
            return evaluate(merge(adapters, **options, same_base=same_base))

        def after(study: Any, _: Any) -> None:
            write_json(folder / TABLE, [asdict(trial) for trial in table(study, maximise)])
            best = table(study, maximise)[0]
            progress.note(f"best {best.value:.4g} by {best.method}")
            progress.advance()

        study.optimize(objective, n_trials=max(budget - done, 0), callbacks=[after])
    trials = table(study, maximise)
    options = study.best_trial.user_attrs["options"]
    return merge(adapters, **options, same_base=same_base), trials


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


def table(study: Any, maximise: bool) -> list[Trial]:
    """All finished trials, best first."""
    trials = [
        Trial(
            trial.number,
            trial.value,
            trial.user_attrs["options"]["method"],
            trial.user_attrs["options"]["weights"],
            trial.user_attrs["options"].get("rank"),
            trial.user_attrs["options"].get("density"),
        )
        for trial in _finished(study)
    ]
    return sorted(trials, key=lambda trial: -trial.value if maximise else trial.value)


def _defaults(name: str, adapters: Sequence[Adapter]) -> dict[str, float]:
    share = 1.0 if METHODS[name].averages else 1 / len(adapters)
    values: dict[str, float] = {f"weight_{i}": share for i in range(len(adapters))}
    if METHODS[name].truncates or "rank" in METHODS[name].options:
        values["rank"] = min(max(a.rank for a in adapters), largest_rank(adapters))
    if "density" in METHODS[name].options:
        values["density"] = 0.5
    return values


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise missing("the search needs optuna", "search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The journal and the grouped sampler carry this label; what they do is tested here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
