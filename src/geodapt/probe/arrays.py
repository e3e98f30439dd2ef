"""Arrays of numbers in files, and whether they fit into memory."""

from pathlib import Path

import numpy as np
import psutil

from geodapt.errors import InputError, reason_of
from geodapt.files import read_tensors


def read_npy(path: Path) -> np.ndarray:
    try:
        numbers = np.load(path, mmap_mode="r", allow_pickle=False)  # rows are read as sampled
    except Exception as error:  # whatever numpy raises over a broken header
        raise InputError(
            f"{path} is not a readable .npy file of numbers: {reason_of(error)}"
        ) from error
    if not isinstance(numbers, np.ndarray):
        raise InputError(f"{path} holds several arrays (.npz); save the one to probe as .npy")
    if not np.issubdtype(numbers.dtype, np.number) or np.iscomplexobj(numbers):
        raise InputError(f"{path} holds {numbers.dtype}; expected real numbers")
    return numbers


def read_safetensors(path: Path, tensor: str | None) -> np.ndarray:
    must_fit(str(path), 3 * path.stat().st_size, "save the matrix alone, as .npy")
    tensors = read_tensors(path)
    matrices = [name for name, value in tensors.items() if value.dim() == 2]
    name = tensor or (matrices[0] if len(matrices) == 1 else None)
    if name is None:
        raise InputError(
            f"{path} holds {len(matrices)} matrices; choose one with --tensor: "
            f"{', '.join(matrices[:10]) or '(there is none)'}"
        )
    if name not in tensors:
        raise InputError(f"{path} has no tensor '{name}'; it has {', '.join(list(tensors)[:10])}")
    return tensors[name].float().numpy()


def must_fit(name: str, needed: float, advice: str) -> None:
    """Raise :class:`InputError` where ``needed`` bytes are more than are free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{name} needs about {needed / 2**30:,.1f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free; {advice}"
        )
