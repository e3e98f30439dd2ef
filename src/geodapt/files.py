"""Atomic writing of files, and safe reading of JSON and tensors.

Everything geodapt writes goes through here: to a temporary name in the same folder, flushed,
then renamed, so that a kill or a loss of power at any moment leaves either the old file or the new
one. Symbolic links are followed, and what is no regular file, such as ``/dev/null``, is written to.
"""

import ctypes
import hashlib
import json
import math
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from geodapt.errors import InputError
from geodapt.paths import synchronise

if TYPE_CHECKING:  # the command line copies and lists files without waiting for torch
    import torch

    from geodapt.headers import Header

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}

UNFINISHED = ".unfinished"
LARGEST_JSON = 64_000_000
MAPPED = 256_000_000
"""Bytes of a file above which its tensors are mapped: that never gives back 64 bytes a tensor
(safetensors 0.8), which counts where small files are read for days."""


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically, making its folder where needed."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a device or a pipe; a folder raises OSError
        with path.open("wb") as file:
            file.write(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")


def sweep(folder: Path, below: bool = True) -> None:
    """Remove temporary files of killed writers from a folder that nobody is writing to.

    And, with ``below``, from all folders in it.
    """
    pattern = f".*{UNFINISHED}"
    for path in list(folder.rglob(pattern) if below else folder.glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path | str, content: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path | str, content: Any) -> None:
    """Write a JSON file atomically; a NaN is refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str, finite: bool = True) -> Any:
    """Read a JSON file.

    Raises :class:`InputError` when it is missing, larger than 64 MB or not JSON. NaN and infinity,
    which Python's reader takes, are not JSON; ``finite=False`` lets them pass, since some
    configurations of transformers models have them.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size > LARGEST_JSON:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes; geodapt reads JSON of 64 MB")
    try:
        text = path.read_text(encoding="utf-8-sig")
        check = _finite if finite else None
        content = json.loads(text, parse_float=check, parse_constant=check)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # half a character is no text
        return content
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    except RecursionError:
        raise InputError(f"{path} is not valid JSON: it is nested too deep") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def write_tensors(
    path: Path | str,
    tensors: Mapping[str, "torch.Tensor"],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file atomically, marked as torch's, as transformers wants it."""
    from safetensors.torch import save

    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(contents, metadata={"format": "pt", **(metadata or {})})
    write_bytes(path, _ordered(content) if metadata else content)


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its metadata in order, which the library writes in any: equal tensors
    give equal bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_tensors(path: Path | str, header: "Header | None" = None) -> dict[str, "torch.Tensor"]:
    """Read a safetensors file onto the CPU; ``header`` is its own, where it was read already.

    Raises :class:`InputError` when the file is missing, is a pickle (which could run code when
    it is loaded), is corrupt, or holds a NaN or an infinity. For a moment it needs the memory of
    the tensors again, if that is less than 256 MB; a larger file needs little beside them.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    from geodapt.headers import read_header

    path = Path(path)
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run any code when it is loaded; geodapt reads "
            "safetensors only. Save it again as safetensors (safetensors.torch.save_file)"
        )
    if header is None:
        read_header(path)
    try:
        if path.stat().st_size <= MAPPED:
            tensors = dict(sorted(load(path.read_bytes()).items()))
        else:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); "
            "it may be cut short: download or save it again"
        ) from error
    for name, tensor in tensors.items():
        if not _all_finite(tensor):
            raise InputError(
                f"{path}: tensor '{name}' holds NaN or infinite values; it was probably saved "
                "from a training run that diverged"
            )
    return tensors


def _all_finite(tensor: "torch.Tensor") -> bool:
    """Whether no value is NaN or infinite, found in pieces: whole, it would take a copy or more."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    for piece in tensor.flatten().split(1 << 20):
        values = piece.float() if piece.itemsize == 1 else piece  # float8 has no isfinite
        if not values.isfinite().all():
            return False
    return True


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A new folder that appears under its name only when the block ends without an error.

    An existing folder of that name is replaced as a whole, if it holds no file that the new one
    does not hold: raises :class:`InputError` rather than delete what somebody else put there.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            synchronise(file)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            _refuse_loss(path, temporary)
            _exchange(temporary, path)
        synchronise(path.parent)
    finally:  # what is left here is the unfinished folder, or the one that was replaced
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_loss(old: Path, new: Path) -> None:
    for path in old.rglob("*"):
        inside = path.relative_to(old)
        if not os.path.lexists(new / inside) and not path.name.endswith(UNFINISHED):
            raise InputError(
                f"{old} is not replaced, as that would delete '{inside}' in it; move it away, or "
                "give another folder"
            )


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders' names, in one step where the system can.

    Elsewhere there is a moment without the second name, in which a kill leaves its old content
    under a hidden name beside it.
    """
    if sys.platform == "linux":
        renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if renameat2 and not renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange):
            return
    aside = _beside(other)
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def build_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``; where it is missing, with what ``make`` writes into the folder that it is given.

    Another process that wants the same folder waits, then finds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        for left in folder.parent.glob(f".{escape(folder.name)}.*{UNFINISHED}"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                make(temporary)
    return folder


def hash_tensors(tensors: Mapping[str, "torch.Tensor"]) -> str:
    """SHA-256 over names, types, shapes and bytes, independent of the order of the mapping."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def short_hash(content: Any) -> str:
    """Sixteen digits that tell contents, as JSON, from each other: the key of a cache."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where geodapt keeps what it can recreate: ``$GEODAPT_CACHE`` or ``~/.cache/geodapt``."""
    root = os.environ.get("GEODAPT_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geodapt"
    )
    return Path(root).expanduser()
