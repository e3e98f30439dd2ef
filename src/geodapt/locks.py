"""One process at a time in a folder."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from geodapt.errors import InputError
from geodapt.files import read_json, write_json

LOCK, HOLDER = ".lock", ".holder.json"


@contextmanager
def only_user(folder: Path, inside: str = ".") -> Iterator[None]:
    """Hold a folder for the block; other processes are refused meanwhile.

    ``inside`` is the folder in it, made where it is missing, that takes the lock's own files. The
    system lets go of the lock when its process ends, however that ends, so it is never stale.

    Raises :class:`InputError` with the process and the host that hold the folder.
    """
    place = folder / inside
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder} is in use by {_holder(place)}; wait until that has ended, stop it, or "
            "give another folder"
        ) from None
    try:
        write_json(place / HOLDER, {"process": os.getpid(), "host": platform.node()})
        yield
    finally:
        (place / HOLDER).unlink(missing_ok=True)
        lock.release()


def holds_only_lock(folder: Path) -> bool:
    """Whether a folder is missing, or empty but for a lock's own files."""
    return not folder.exists() or {path.name for path in folder.iterdir()} <= {LOCK, HOLDER}


def _holder(folder: Path) -> str:
    try:
        found = read_json(folder / HOLDER)
        return f"process {found['process']} on {found['host']}"
    except (InputError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"
