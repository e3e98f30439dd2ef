"""From names that users, recipes and data give to paths on disk."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from geodapt.errors import InputError

LONGEST = 200  # bytes; most systems allow 255, and files are first written under longer names
DEEPEST = 100
RESERVED = set('/\\:*?"<>|%')


def child(folder: Path, name: str) -> Path:
    """The place in a folder of what a recipe or data calls ``name``: directly in it, never outside.

    Most names stand as they are. Separators, control characters, dots at the ends and other signs
    that some system reads as more than a letter are written as ``%XX``, as in an address, so that
    different names have different places. This is the only way from such a name to a path.

    Raises :class:`InputError` for a name that is empty, too long, or no text.
    """
    if not name:
        raise InputError(f"an empty name cannot be a file in {folder}; give it at least a letter")
    last = len(name) - 1
    quoted = "".join(
        sign
        if sign.isprintable() and sign not in RESERVED and not (sign in ". " and place in (0, last))
        else _escaped(sign, name)
        for place, sign in enumerate(name[: LONGEST + 1])
    )
    if len(quoted.encode()) > LONGEST:
        raise InputError(
            f"the name '{name[:40]}...' is too long for a file in {folder}; give one of at most "
            f"{LONGEST} bytes"
        )
    return folder / quoted


def _escaped(sign: str, name: str) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in sign.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"the name '{name}' is no text: it holds half a character") from error


def given(path: str | Path) -> Path:
    """A path that a user gave, with ``~`` expanded, whether or not something is there.

    Raises :class:`InputError` for what no file can be called, and for what lies in a folder that
    may not be entered.
    """
    if not str(path):
        raise InputError("a path is empty; give a file or a folder ('.' is the current folder)")
    try:
        found = Path(path).expanduser()
        found.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except TypeError:
        raise InputError(f"a path is text, got {path!r:.60}") from None
    except (RuntimeError, ValueError, OSError) as error:  # no such user; no text; too long
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = str(path) if len(str(path)) <= 80 else f"{str(path)[:77]}..."
        raise InputError(f"path '{shown}' cannot be used: {reason}; give another") from error
    if len(found.parts) > DEEPEST:
        raise InputError(f"path '{str(path)[:77]}...' is nested too deeply; give a shorter one")
    return found


def page_to_write(path: str | Path) -> Path:
    """The path of a page to write, checked before the work that it shows.

    A device or a pipe is written to as it is. Raises :class:`InputError` for a folder, and where
    no file can be made.
    """
    found = given(path).absolute()
    if found.is_dir():
        raise InputError(
            f"{path} is a folder; give a file in it, such as {Path(path) / 'page.html'}"
        )
    existing = found if os.path.lexists(found) else found.parent
    while not os.path.lexists(existing):
        existing = existing.parent
    if existing == found:
        return found
    if not existing.is_dir():
        raise InputError(f"{path} cannot be written: {existing} is a file; give another place")
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: nothing can be written in {existing} ({error.strerror}); give another place"
        ) from error
    return found


def names_file(text: str | Path) -> bool:
    """Whether a text, which may also be another kind of name, is the path of an existing file."""
    try:
        return given(text).is_file()
    except InputError:
        return False


def regular(path: Path) -> Path:
    """The path of a file to read, which must be a regular file and hold its own content.

    Raises :class:`InputError` for what is missing, a folder, or a device or pipe (whose reading
    might never end), what may not be read, and for a pointer that stands for a file of Git LFS.
    """
    if not given(path).exists():
        raise InputError(f"{path} does not exist; give a file that does")
    if not path.is_file():
        kind = "folder" if path.is_dir() else "pipe or device"
        raise InputError(f"{path} is a {kind}; give a file")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise InputError(
            f"{path} is not the data but a pointer of Git LFS to it; fetch it with: git lfs pull"
        )
    return path


def synchronise(path: Path) -> None:
    """Make sure that a file's or a folder's present content outlasts a loss of power."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # a file system without it
    finally:
        os.close(descriptor)
