"""The texts that a model is calibrated and measured on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geodapt.data import ApiCallSettings, load_domains
from geodapt.data.text_files import json_object, lines, records
from geodapt.errors import InputError

BUILT_IN = "api-calls"
PACKAGES = ["numpy", "scipy", "torch"]  # always there: geodapt itself needs them
HELD_OUT = 0.1


def read_texts(source: str) -> list[str]:
    """The texts of a source, in its order.

    ``source`` is a ``.jsonl`` file with a ``text`` a line, any other text file (a text a line that
    is not blank), or ``api-calls``: the names and docstrings of public functions of numpy, scipy
    and torch, which need no file. Raises :class:`InputError` for what is none of these.
    """
    if source == BUILT_IN:
        domains = load_domains(ApiCallSettings.model_validate({"domains": PACKAGES}))
        return [text for domain in domains.values() for text in domain.items["text"]]
    path = Path(source).expanduser()
    texts = _file(source, path)
    if not texts:
        raise InputError(f"{source} holds no text")
    return texts


def _file(source: str, path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(
            f"{source} does not exist; give a text file, a JSONL file with a text a line, or "
            f"'{BUILT_IN}' for the built-in texts"
        )
    if path.suffix == ".jsonl":
        expected = 'a JSON object with a "text"'
        return list(records(path, lambda line: str(json_object(line)["text"]), expected))
    return [line.strip() for _, line in lines(path) if line.strip()]


def split(texts: Sequence[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """A draw of ``count`` texts to calibrate on, and others to measure on.

    A tenth of the texts, the same for every seed, is never calibrated on.
    """
    held = max(1, int(HELD_OUT * len(texts)))
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    rest = order[held:]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed)).tolist()
    return [texts[rest[i]] for i in drawn[:count]], [texts[i] for i in order[:held]]


def batches(
    tokenizer: Any, texts: Sequence[str], model: Any, max_tokens: int = 128, size: int = 16
) -> list[Mapping[str, Any]]:
    """Padded batches of texts, texts of like length together."""
    found: list[Mapping[str, Any]] = []
    by_length = sorted(texts, key=len)
    for start in range(0, len(by_length), size):
        batch = tokenizer(
            by_length[start : start + size],
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        ).to(model.device)
        batch.pop("token_type_ids", None)  # all zero, and unknown to some models
        if model.config.is_encoder_decoder:
            batch["decoder_input_ids"] = batch["input_ids"]
        found.append(dict(batch))
    return found
