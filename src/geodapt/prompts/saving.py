"""A learner in a folder: ``prompts.json`` and ``prompts.safetensors``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from geodapt.errors import InputError
from geodapt.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from geodapt.prompts.base import base_fingerprint
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.settings import AnyHost, HostSettings
from geodapt.vision.clip import Clip

FORMAT = 1
SETTINGS, TENSORS = "prompts.json", "prompts.safetensors"


@dataclass(frozen=True)
class SavedLearner:
    """What ``prompts.json`` says."""

    folder: Path
    host: HostSettings
    saved: dict[str, Any]
    base: dict[str, str]
    classes: list[str]
    adapter: dict[str, Any] | None
    teacher: bool

    @property
    def dtype(self) -> torch.dtype:
        """The base's when it was learned on."""
        found = getattr(torch, self.base["dtype"], None)
        if not isinstance(found, torch.dtype):
            raise InputError(f"'{self.folder}': base.dtype '{self.base['dtype']}' is no type")
        return found

    def check_base(self, clip: Clip) -> None:
        """Raises :class:`InputError` for another base than the one that it was learned on."""
        here = base_fingerprint(clip)
        for part in ("dtype", "configuration", "weights"):
            if here[part] != self.base.get(part):
                was = f": {self.base.get(part)} then, {here[part]} now" if part == "dtype" else ""
                raise InputError(
                    f"the learner in '{self.folder}' was learned on '{self.base['name']}'; "
                    f"'{clip.name}' has other {part}{was}"
                )


def write_learner(learner: PromptedClip, folder: Path | str) -> None:
    """Write a learner and, within it, its teacher."""
    with atomic_folder(folder) as temporary:
        _write(learner, temporary)


def _write(learner: PromptedClip, folder: Path) -> None:
    adapter = learner.adapter
    write_json(
        folder / SETTINGS,
        {
            "format": FORMAT,
            "host": learner.host.settings.model_dump(mode="json"),
            "saved": learner.host.saved(),
            "base": base_fingerprint(learner.clip),
            "classes": list(learner.classes),
            "adapter": None
            if adapter is None
            else {"kind": adapter.kind, "configuration": adapter.configuration()},
            "teacher": learner.teacher is not None,
        },
    )
    write_tensors(folder / TENSORS, learner.state_dict())
    if learner.teacher is not None:
        (folder / "teacher").mkdir()
        _write(learner.teacher, folder / "teacher")


def read_learner(folder: Path | str) -> SavedLearner:
    """What a folder says of its learner; raises :class:`InputError` where it is none."""
    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        raise InputError(f"'{folder}' holds no learner: it has no {SETTINGS}")
    found = read_json(folder / SETTINGS)
    try:
        if found["format"] != FORMAT:
            raise InputError(
                f"'{folder}' has format {found['format']}; this version reads {FORMAT}"
            )
        read = SavedLearner(
            folder,
            TypeAdapter(AnyHost).validate_python(found["host"]),
            dict(found["saved"]),
            dict(found["base"]),
            list(found["classes"]),
            found["adapter"],
            bool(found["teacher"]),
        )
        if not {"name", "dtype"} <= read.base.keys():
            raise KeyError("base.name, base.dtype")
        if read.adapter is not None and not {"kind", "configuration"} <= read.adapter.keys():
            raise KeyError("adapter.kind, adapter.configuration")
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise InputError(f"'{folder}/{SETTINGS}' was not written by a learner: {error}") from error
    return read


def load_state(learner: PromptedClip, folder: Path | str) -> None:
    """Put the tensors of a folder into a learner; raises :class:`InputError` if they do not fit."""
    path = Path(folder) / TENSORS
    saved, own = read_tensors(path), learner.state_dict()
    for name in sorted(saved.keys() | own.keys()):
        here, there = own.get(name), saved.get(name)
        if here is None or there is None or here.shape != there.shape:
            shapes = [None if each is None else tuple(each.shape) for each in (there, here)]
            raise InputError(
                f"'{path}': tensor '{name}' has shape {shapes[0]}, expected {shapes[1]}; the files "
                "of the folder do not belong together"
            )
    learner.load_state_dict(saved)
