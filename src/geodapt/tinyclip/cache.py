"""The trained CLIP in the cache folder, which other recipes start from."""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from geodapt.files import atomic_folder, cache_folder, short_hash
from geodapt.processes import from_main_process, several_processes, wait_for_everyone
from geodapt.runs import RunFolder
from geodapt.tinyclip.fitting import save_clip, train_clip
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings

if TYPE_CHECKING:
    from geodapt.data.glyphs import Font, Glyphs


def checkpoint(settings: TinyClipSettings | None = None, **watched: Any) -> Path:
    """The folder of the CLIP that these settings give, trained now where the cache has none.

    A training that was cut short continues where it was; ``watched`` goes to
    :func:`geodapt.training.fit`.
    """
    from geodapt.data.glyphs import load_glyphs

    settings = settings or TinyClipSettings()
    folder = cached(settings, _fonts(settings))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another command may want the same model: it waits, then finds it. Processes that a launcher
    # started together train together.
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    with nullcontext() if several_processes() else lock:
        if not from_main_process(folder.is_dir()):
            work = folder.with_name(folder.name + ".work")
            save_clip(*train_clip(settings, load_glyphs(settings.data), work, **watched), folder)
            wait_for_everyone()
            shutil.rmtree(work, ignore_errors=True)
    return folder


def train_in_stage(
    folder: RunFolder, settings: TinyClipSettings | None = None, stage: str = TINYCLIP
) -> None:
    """:func:`checkpoint` as a stage of a run, which shows and logs its training."""

    def train(work: Path) -> dict[str, Any]:
        checkpoint(settings, **folder.watch(stage))
        return {}

    folder.timed_stage(stage, train)


def is_cached(settings: TinyClipSettings | None = None) -> bool:
    """Whether :func:`checkpoint` would find the CLIP of these settings."""
    settings = settings or TinyClipSettings()
    return cached(settings, _fonts(settings)).is_dir()


def keep(trained: Path, settings: TinyClipSettings, glyphs: "Glyphs") -> None:
    """Put a trained model into the cache, in place of one of the same settings."""
    with atomic_folder(cached(settings, glyphs.fonts)) as temporary:
        shutil.copytree(trained, temporary, dirs_exist_ok=True)


def cached(settings: TinyClipSettings, fonts: "Sequence[Font]") -> Path:
    """Where the cache has the model of these settings and of these very fonts."""
    from geodapt.data.glyphs.store import drawn_with

    said = settings.model_dump(mode="json")
    for name in (
        "moved",
        "zoomed",
        "still",
    ):  # younger than some caches, which they say nothing new of
        if not said[name]:
            del said[name]
    return cache_folder() / "clip" / f"glyphs-{short_hash([said, drawn_with(fonts)])}"


def _fonts(settings: TinyClipSettings) -> "Sequence[Font]":
    from geodapt.data.glyphs.fonts import find_fonts

    return find_fonts(settings.data.fonts)
