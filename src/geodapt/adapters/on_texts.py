"""Merges chosen by texts: the base that adapters name, a search on it, its layers' inputs.

What ``geodapt merge --search`` and ``--calibration`` do, to be called from Python.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.calibration import calibrate
from geodapt.adapters.evaluation import METRICS, evaluator
from geodapt.adapters.search import Trial, search
from geodapt.errors import InputError
from geodapt.models import (
    as_input_errors,
    fingerprint,
    load_base,
    load_weights,
    locate_base,
    text_batches,
)

MAX_TOKENS = 512
"""How much of a text calibration reads."""


def load_base_of(
    adapters: Sequence[Adapter], base: str | None = None, causal: bool = False
) -> tuple[Any, Any]:
    """The base model that adapters name, or the one given, in eval mode, and its tokenizer.

    With ``causal`` it has its language-model head.

    Raises :class:`InputError` when the adapters name none, when it cannot be loaded, and with
    ``causal`` when it is no causal language model.
    """
    name = base or next((a.config.base_model_name_or_path for a in adapters), None)
    if not name:
        raise InputError("the adapters do not say what their base is; give it (base, --base)")
    model, tokenizer = load_base(name)
    if causal:
        with as_input_errors(name):
            try:
                model = load_weights(name, locate_base(name), kind=AutoModelForCausalLM)
            except ValueError as error:
                raise InputError(
                    f"base '{name}' is no causal language model, which the metric needs; "
                    "use the metric accuracy with labelled rows"
                ) from error
        model.eval()
    return model, tokenizer


def search_on_texts(
    adapters: Sequence[Adapter],
    rows: Sequence[Mapping[str, Any]],
    folder: str | Path,
    metric: str = "loss",
    budget: int = 50,
    base: str | None = None,
    seed: int = 0,
    same_base: bool = False,
) -> tuple[Adapter, list[Trial]]:
    """The merge of adapters that is best on texts, and all trials, best first.

    Args:
        rows: mappings with a ``text``, and for ``accuracy`` a ``label``.
        folder: keeps the trials; the same call goes on where it was cut short.
        metric: ``loss`` or ``perplexity`` of the next token, or ``accuracy``, see
            :func:`geodapt.adapters.evaluation.evaluator`.
        budget: how many merges are tried, see :func:`geodapt.adapters.search.search`.
        base: the base's folder or hub name; the one that the adapters name by default.

    Raises:
        InputError: as :func:`load_base_of`, ``evaluator`` and ``search`` do.
    """
    if metric not in METRICS:
        raise InputError(f"no metric '{metric}'; there are {', '.join(METRICS)}")
    model, tokenizer = load_base_of(adapters, base, causal=metric != "accuracy")
    evaluate = evaluator(AdapterBank(model), tokenizer, rows, metric)
    text = json.dumps([dict(row) for row in rows], sort_keys=True, default=str)
    about = {"metric": metric, "data": sha256(text.encode()).hexdigest()}
    return search(
        adapters,
        evaluate,
        budget,
        folder,
        maximise=METRICS[metric],
        seed=seed,
        same_base=same_base,
        about={**about, "base": fingerprint(model)},
    )


def calibrate_on_texts(
    adapters: Sequence[Adapter], texts: Sequence[str], base: str | None = None
) -> dict[str, Float[Tensor, "tokens in_features"]]:
    """Inputs of the adapters' layers while their base reads texts, for the method ``atoms``.

    Of each text the first 512 tokens. Raises :class:`InputError` as :func:`load_base_of` does.
    """
    model, tokenizer = load_base_of(adapters, base)
    batches = list(text_batches(tokenizer, texts, model, MAX_TOKENS))
    return calibrate(model, batches, dict.fromkeys(p for a in adapters for p in a.factors))
