"""What an operator names, loaded."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.models import dtype_of, load_base
from geodapt.paths import given
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.engine import Engine
from geodapt.serve.generating import Generating
from geodapt.serve.generation import EngineSettings
from geodapt.serve.scoring import Run, Scoring, own_thread
from geodapt.serve.served import Served, model_folder
from geodapt.serve.text_shelf import TextShelf
from geodapt.serve.text_tokens import TextTokens


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


def load_text_engine(served: Served) -> tuple[Engine, AdapterFolder, TextTokens]:
    """The engine around a language model, its adapters and its tokenizer.

    Raises :class:`InputError` for what cannot be loaded or makes no text.
    """
    import geodapt.helm  # noqa: F401  # so that a HELM loads, too

    base = served.base or ""
    dtype = dtype_of(served.dtype)
    model, tokenizer = load_base(model_folder(base), dtype, head=True)
    if not model.can_generate():
        raise InputError(
            f"'{base}' is no language model; give one, or serve it as an encoder (--embed)"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device)
    bank = AdapterBank(model, served.capacity)
    folder = given(served.adapters) if served.adapters is not None else None
    adapters = AdapterFolder(folder, bank, served.most_loaded)
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    tokens = TextTokens(tokenizer, config.vocab_size, longest)
    settings = EngineSettings(slots=served.slots, queue=served.queue, kv_tokens=served.kv_tokens)
    return Engine(model, tokenizer, bank, settings), adapters, tokens


def load_for_bulk(served: Served) -> Scoring | Generating:
    """What answers the lines of a file. Raises :class:`InputError` for what cannot be loaded."""
    return (
        Generating(*load_text_engine(served)) if served.base is not None else load_scoring(served)
    )


def _xcross(source: str, task: str) -> Any:
    from geodapt.xcross.model import XCross

    model = XCross.from_pretrained(model_folder(source))
    if model.settings.task != task:
        raise InputError(f"'{source}' is an X-Cross for {model.settings.task}, not for {task}")
    return model


def _folder(store: Path, name: str) -> Path:
    folder = given(store) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
