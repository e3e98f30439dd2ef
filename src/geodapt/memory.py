"""The peak memory of one piece of work, on the GPU or of this process; and what is free."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/meminfo")


class PeakMemory:
    """What :func:`peak_memory` yields; ``mb`` is the highest use in MiB since the block began."""

    mb: float = 0.0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the highest memory in use within the block.

    On a GPU it is what PyTorch allocated; else this process's resident memory, whose high-water
    mark Linux can reset. Where it cannot be reset the mark of the whole process is given.
    """
    peak = PeakMemory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            _CLEAR.write_text("5")
    try:
        yield peak
    finally:
        peak.mb = peak_memory_mb()


def peak_memory_mb() -> float:
    """The high-water mark in MiB: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = _megabytes(_STATUS, "VmHWM")
    if peak is None:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)
    return peak


def free_memory_mb() -> float | None:
    """Memory available without swapping, in MiB; None where it is unknown."""
    return _megabytes(_MACHINE, "MemAvailable")


def _megabytes(file: Path, name: str) -> float | None:
    try:
        lines = file.read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None
    return round(kilobytes / 2**10, 1)
