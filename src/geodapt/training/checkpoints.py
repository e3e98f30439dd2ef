"""Which checkpoints of a training are complete: all files present, each as it was written.

A checkpoint that lacks a file of the optimizer or of the schedule would be resumed silently and end
with other weights. So each has a list of its files, written after all of them.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.files import read_json, write_json, write_text
from geodapt.paths import synchronise
from geodapt.processes import is_main_process

STATE = "trainer_state.json"
FILES = "files.json"
"""The list: file -> hash of its content."""


def seal(checkpoint: Path) -> None:
    """List a checkpoint's files, once all of them outlast a loss of power.

    The training's state is not listed: it is written after the list, and edited where a folder
    was moved.
    """
    files = [
        path
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name not in (FILES, STATE)
    ]
    for path in files:
        synchronise(path)
    hashes = {path.relative_to(checkpoint).as_posix(): _hash(path) for path in files}
    write_json(checkpoint / FILES, hashes)


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint; those that are not whole are removed."""
    found = sorted(work.glob("checkpoint-*"), key=_step)
    whole = {path.name: state for path in found if (state := _state(path)) is not None}
    for path in reversed(found):
        best = Path((whole.get(path.name) or {}).get("best_model_checkpoint") or path).name
        if path.name not in whole or best not in whole:
            if is_main_process():
                shutil.rmtree(path, ignore_errors=True)
            continue
        state = whole[path.name]
        # The folder may have moved since, or be named from another place.
        if state.get("best_model_checkpoint"):
            state["best_model_checkpoint"] = str(work / best)
            write_text(path / STATE, json.dumps(state, indent=2))
        return path
    return None


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _state(checkpoint: Path) -> dict[str, Any] | None:
    """What a whole checkpoint says of the training; None where it is not whole."""
    try:
        state, hashes = (read_json(checkpoint / name) for name in (STATE, FILES))
        if all(_hash(checkpoint / name) == found for name, found in hashes.items()):
            return state if isinstance(state, dict) else None
    except (InputError, OSError, AttributeError):  # missing, cut short, or no list
        pass
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
