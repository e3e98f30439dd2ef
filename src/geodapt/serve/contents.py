"""What answers are made from: digests of the files of models and of adapters."""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from geodapt.files import read_json
from geodapt.models import locate_base
from geodapt.paths import given
from geodapt.radial import settings as radial
from geodapt.serve.adapter_files import ALIASES, FILES, read_aliases
from geodapt.serve.requested_gate import ADAPTER_NAME
from geodapt.serve.served import Served, model_folder

WHOLE = 256_000_000
"""Bytes of a file above which pieces of it are read, so that no model is read twice."""
PIECES, PIECE = 4096, 4096
"""Of such a file: how many, evenly spaced, and bytes of each; and as many of every tensor, since a
training may change a small head alone, but changes all of that."""


def contents_of(served: Served, adapters: Collection[str]) -> dict[str, str | None]:
    """A digest of each model and of each adapter named; None for what is not there.

    Equal files give equal digests, wherever they lie and however old they are.
    """
    sources = (served.base, served.rank, served.classify, served.embed)
    found = {f"'{source}'": _of_model(model_folder(source)) for source in sources if source}
    if served.adapters is not None:
        root = given(served.adapters)
        found |= {f"adapter '{name}'": _of_adapter(root, name) for name in sorted(adapters)}
    return found


def _of_model(source: str) -> str | None:
    """Of the files in a folder; of a name on the hub, the commit that was downloaded."""
    folder = given(source)
    if not folder.is_dir():
        located = locate_base(source)
        if located == source:
            return _commit(source)
        folder = Path(located)
    digest = _of_files(folder, _files(folder))
    if (folder / radial.CONFIG).is_file():  # whose encoder may lie elsewhere
        base = read_json(folder / radial.CONFIG).get("base")
        if isinstance(base, str) and given(base).is_dir():
            digest += _of_files(given(base), _files(given(base)))
    return hashlib.sha256(digest.encode()).hexdigest()


def _commit(name: str) -> str | None:
    try:
        path = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def _of_adapter(root: Path, name: str) -> str | None:
    aliases = read_aliases(root / ALIASES) if (root / ALIASES).is_file() else {}
    if name in aliases:
        return aliases[name]
    files = [root / name / file for file in FILES] if ADAPTER_NAME.fullmatch(name) else []
    present = files and all(file.is_file() for file in files)
    return _of_files(root / name, files) if present else None


def _files(folder: Path) -> list[Path]:
    """Those that are no notes and not hidden."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".md"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _of_files(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}|{path.stat().st_size}|".encode())
        digest.update(_of_file(path))
    return digest.hexdigest()


def _of_file(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256()
        for number in range(PIECES):
            file.seek(number * (size - PIECE) // (PIECES - 1))
            digest.update(file.read(PIECE))
    if path.suffix == ".safetensors":
        digest.update(_of_tensors(path))
    return digest.digest()


def _of_tensors(path: Path) -> bytes:
    """Of how each tensor of a file begins, none of which is read as a whole."""
    import torch
    from safetensors import SafetensorError, safe_open

    digest = hashlib.sha256()
    with suppress(SafetensorError), safe_open(path, framework="pt") as file:  # loading refuses it
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name).flatten()
            start = tensor[: PIECE // tensor.itemsize].view(torch.uint8)
            digest.update(name.encode() + start.numpy().tobytes())
    return digest.digest()
