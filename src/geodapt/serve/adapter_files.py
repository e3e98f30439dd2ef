"""An adapter's files: what they are called, read, copied, and which version a name stands for."""

import shutil
from pathlib import Path

from geodapt.adapters import Adapter
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.serve.requested_gate import ADAPTER_NAME, BASE, UnknownModel

ALIASES, COPIES, PUTS = "aliases.json", "sha256", ".puts.lock"
RESERVED = {ALIASES, COPIES, BASE}
"""What no adapter can be called."""
FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What of a PEFT folder is read, and kept."""
LARGEST = 8 * 2**30
"""Bytes of an adapter's files."""


def adapter_in(place: Path, name: str) -> Adapter:
    """The adapter in a folder. Raises :class:`InputError`, which does not show the folder."""
    try:
        return Adapter.from_pretrained(place)
    except InputError as error:  # without the server's paths
        said = str(error).replace(f"adapter '{place}'", f"adapter '{name}'")
        raise InputError(said.replace(str(place), f"adapter '{name}'")) from error


def is_plain(place: Path) -> bool:
    """Whether a folder holds an adapter under the name that clients use."""
    usable = ADAPTER_NAME.fullmatch(place.name) and place.name not in RESERVED
    return bool(usable) and not place.is_symlink() and (place / FILES[0]).is_file()


def named_folder(root: Path, source: str) -> Path:
    """The folder of a name directly below the root, or of its path."""
    name = source.removeprefix(f"{root}/")
    if not ADAPTER_NAME.fullmatch(name):
        raise InputError(
            "an adapter is read from a folder directly below the adapters' folder; give that "
            "folder's name (letters, digits, '.', '_' and '-')"
        )
    return root / name


def checked_folder(root: Path, place: Path) -> Path:
    """A folder whose files are regular ones, small enough, and lie below the root."""
    relative = place.relative_to(root)
    steps = [root.joinpath(*relative.parts[: n + 1]) for n in range(len(relative.parts))]
    for path in [*steps, *(place / file for file in FILES)]:
        if path.is_symlink():
            raise InputError(f"'{path.relative_to(root)}' is a link; links are not followed")
    if not place.is_dir():
        raise UnknownModel(f"there is no folder '{relative}' in the adapters' folder")
    for file in FILES:
        if not (place / file).is_file():
            raise InputError(
                f"'{relative}' holds no {file}; adapters are read as PEFT writes them, with "
                "their weights as safetensors (a pickle is not read)"
            )
    size = sum((place / file).stat().st_size for file in FILES)
    if size > LARGEST:
        raise InputError(f"'{relative}' has {size:,} bytes; adapters may have {LARGEST:,}")
    return place


def copy_files(source: Path, target: Path) -> None:
    """Copy what is kept of an adapter."""
    for file in FILES:
        shutil.copyfile(source / file, target / file)


def version_name(name: str, digest: str) -> str:
    """What a version is called in the bank."""
    return f"{name}#{digest[:16]}"


def check_name(name: str) -> None:
    """Raises :class:`InputError` for what an adapter cannot be called."""
    if not ADAPTER_NAME.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"an adapter cannot be called '{name[:100]}'; use letters, digits, '.', '_' and '-', "
            f"up to 100, and none of {', '.join(sorted(RESERVED))}"
        )


def read_aliases(path: Path) -> dict[str, str | None]:
    """The file's content. Raises :class:`InputError` where it is not as it should be."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a mapping from names to digests")
    for name, digest in content.items():
        hexadecimal = isinstance(digest, str) and len(digest) == 64 and digest.isalnum()
        if not ADAPTER_NAME.fullmatch(name) or not (digest is None or hexadecimal):
            raise InputError(f"{path}: '{name[:100]}' does not stand for a digest")
    return content
