"""Lists of texts under names, which requests refer to: catalogues to rank, indexes to search."""

import threading
from collections.abc import Sequence
from pathlib import Path

from geodapt.errors import InputError
from geodapt.files import read_json, write_json
from geodapt.serve.requested_gate import ADAPTER_NAME


class TextShelf:
    """Named lists of texts, kept as ``NAME.json`` in a folder, or in memory where there is none."""

    def __init__(self, folder: Path | None) -> None:
        """Raises :class:`InputError` for a folder that holds something else under such a name."""
        self.folder, self._lock = folder, threading.Lock()
        self._lists: dict[str, tuple[str, ...]] = {}
        for path in sorted(folder.glob("*.json")) if folder is not None else ():
            texts = read_json(path)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise InputError(f"{path} is not a list of texts; move it away")
            if ADAPTER_NAME.fullmatch(path.stem):
                self._lists[path.stem] = tuple(texts)

    @property
    def lasting(self) -> bool:
        """Whether the lists outlast the server."""
        return self.folder is not None

    def sizes(self) -> dict[str, int]:
        """How many texts each name has."""
        with self._lock:
            return {name: len(texts) for name, texts in sorted(self._lists.items())}

    def get(self, name: str) -> tuple[str, ...] | None:
        """The texts of a name; None where there are none."""
        with self._lock:
            return self._lists.get(name)

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
            self._lists[name] = tuple(texts)

    def delete(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        with self._lock:
            if name not in self._lists:
                return False
            if self.folder is not None:
                (self.folder / f"{name}.json").unlink(missing_ok=True)
            del self._lists[name]
            return True
