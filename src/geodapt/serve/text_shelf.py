"""Lists of texts under names, which requests refer to: catalogues to rank, indexes to search."""

import threading
from collections.abc import Sequence
from pathlib import Path

from geodapt.errors import InputError
from geodapt.files import read_json, write_json
from geodapt.serve.requested_gate import ADAPTER_NAME

Seen = tuple[int, ...]
"""What tells a file from the one that was there before."""


class TextShelf:
    """Named lists of texts, kept as ``NAME.json`` in a folder, or in memory where there is none.

    Several servers may share a folder: a file that another one wrote is read when it is asked for.
    """

    def __init__(self, folder: Path | None) -> None:
        """Raises :class:`InputError` for a folder that holds something else under such a name."""
        self.folder, self._lock = folder, threading.Lock()
        self._lists: dict[str, tuple[Seen, tuple[str, ...]]] = {}
        for name in self._names():
            self._look(name)

    @property
    def lasting(self) -> bool:
        """Whether the lists outlast the server."""
        return self.folder is not None

    def sizes(self) -> dict[str, int]:
        """How many texts each name has."""
        with self._lock:
            found = {name: self._look(name) for name in self._names()}
            return {name: len(texts) for name, texts in found.items() if texts is not None}

    def get(self, name: str) -> tuple[str, ...] | None:
        """The texts of a name; None where there are none."""
        with self._lock:
            return self._look(name)

    def put(self, name: str, texts: Sequence[str]) -> None:
        """Keep texts under a name, in place of those that it had.

        Raises :class:`InputError` for what cannot be a name.
        """
        if not ADAPTER_NAME.fullmatch(name):
            raise InputError(
                f"'{name[:100]}' cannot be a name here; use letters, digits, '.', '_' and '-'"
            )
        with self._lock:
            if self.folder is not None:
                write_json(self.folder / f"{name}.json", list(texts))
                self._look(name)
            else:
                self._lists[name] = (), tuple(texts)

    def delete(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        with self._lock:
            if self._look(name) is None:
                return False
            if self.folder is not None:
                (self.folder / f"{name}.json").unlink(missing_ok=True)
            del self._lists[name]
            return True

    def _names(self) -> list[str]:
        if self.folder is None:
            return sorted(self._lists)
        found = (path.stem for path in self.folder.glob("*.json"))
        return sorted(name for name in found if ADAPTER_NAME.fullmatch(name))

    def _look(self, name: str) -> tuple[str, ...] | None:
        """The texts of a name as they are now; its file is read where it has changed."""
        if self.folder is not None and ADAPTER_NAME.fullmatch(name):
            path = self.folder / f"{name}.json"
            try:
                status = path.stat()
            except FileNotFoundError:
                self._lists.pop(name, None)
                return None
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if name not in self._lists or self._lists[name][0] != seen:
                self._lists[name] = seen, _texts(path)
        return self._lists[name][1] if name in self._lists else None


def _texts(path: Path) -> tuple[str, ...]:
    texts = read_json(path)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path} is not a list of texts; move it away")
    return tuple(texts)
