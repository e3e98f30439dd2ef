"""What an operator names, loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.paths import given
from geodapt.serve.scoring import Run, Scoring, own_thread
from geodapt.serve.text_shelf import TextShelf


@dataclass(frozen=True)
class Served:
    """What an operator wants served."""

    base: str | None = None
    """A causal language model: a folder or a hub name."""
    adapters: Path | None = None
    rank: str | None = None
    """A saved X-Cross that ranks."""
    classify: str | None = None
    """A saved X-Cross that classifies."""
    embed: str | None = None
    """A radial model's folder, or any encoder."""
    store: Path | None = None
    """Where catalogues and indexes are kept."""
    capacity: int | None = None
    most_loaded: int | None = None
    slots: int = 16
    queue: int = 256
    kv_tokens: int = 65_536

    @property
    def scores(self) -> bool:
        """Whether a system that scores is named."""
        return bool(self.rank or self.classify or self.embed)


def load_scoring(served: Served, run: Run | None = None) -> Scoring:
    """The systems that score, in ``run``'s thread or in one of their own.

    Raises :class:`InputError` for what cannot be loaded.
    """
    scoring = Scoring(run or own_thread())
    if served.store is not None:
        scoring.catalogues = TextShelf(_folder(served.store, "catalogues"))
        scoring.indexes = TextShelf(_folder(served.store, "indexes"))
    if served.rank:
        scoring.ranker = _xcross(served.rank, "ranking")
    if served.classify:
        scoring.classifier = _xcross(served.classify, "classification")
    if served.embed:
        from geodapt.radial import RadialModel

        scoring.encoder = RadialModel.load(model_folder(served.embed)).eval()
    return scoring


def _xcross(source: str, task: str) -> Any:
    from geodapt.xcross.model import XCross

    model = XCross.from_pretrained(model_folder(source))
    if model.settings.task != task:
        raise InputError(f"'{source}' is an X-Cross for {model.settings.task}, not for {task}")
    return model


def model_folder(source: str) -> str:
    """A run's folder stands for the model in it."""
    folder = given(source)
    return str(folder / "model") if (folder / "results.json").is_file() else source


def _folder(store: Path, name: str) -> Path:
    folder = given(store) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
