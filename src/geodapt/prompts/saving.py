"""A learner in a folder: ``prompts.json`` and ``prompts.safetensors``."""

from pathlib import Path
from typing import Any, Literal

from geodapt.errors import InputError
from geodapt.files import atomic_folder, write_json, write_tensors
from geodapt.prompts.adapter import SavedAdapter
from geodapt.prompts.base import BaseFingerprint
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.settings import AnyHost
from geodapt.settings import Settings

SETTINGS, TENSORS = "prompts.json", "prompts.safetensors"


class SavedLearner(Settings):
    """``prompts.json``."""

    format: Literal[1] = 1
    host: AnyHost
    saved: dict[str, Any]
    """What the host says beside its settings."""
    base: BaseFingerprint
    classes: list[str]
    adapter: SavedAdapter | None
    teacher: bool
    """Whether the folder has one, in ``teacher``."""


def write_learner(learner: PromptedClip, folder: Path | str) -> None:
    """Write a learner and, within it, its teacher."""
    with atomic_folder(folder) as temporary:
        _write(learner, temporary)


def _write(learner: PromptedClip, folder: Path) -> None:
    host: Any = learner.host.settings
    saved = SavedLearner(
        host=host,
        saved=learner.host.saved(),
        base=BaseFingerprint.of(learner.clip),
        classes=list(learner.classes),
        adapter=None if learner.adapter is None else SavedAdapter.of(learner.adapter),
        teacher=learner.teacher is not None,
    )
    write_json(folder / SETTINGS, saved.model_dump(mode="json"))
    write_tensors(folder / TENSORS, learner.state_dict())
    if learner.teacher is not None:
        (folder / "teacher").mkdir()
        _write(learner.teacher, folder / "teacher")


def read_learner(folder: Path | str) -> SavedLearner:
    """What a folder says of its learner; raises :class:`InputError` where it is none."""
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise InputError(f"'{folder}' holds no learner: it has no {SETTINGS}")
    return SavedLearner.read(path)
