"""Adapters by name from one folder, where they come, go and change while requests run.

Below the folder lie PEFT folders under the names that clients use, and, for what was put there
over HTTP, ``sha256/DIGEST`` with copies of them and ``aliases.json``, which says which copy a name
stands for (null: the name was deleted). Several servers may share the folder: whoever is asked for
a name looks at ``aliases.json`` again if it has changed.

A loaded adapter is called ``name#digest`` in the bank, so that whatever is kept by an adapter's
name is never another adapter's. A request *leases* what it uses: a version that was replaced
leaves the bank when its last lease ends.
"""

import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from filelock import FileLock, Timeout

from geodapt.adapters import Adapter
from geodapt.errors import InputError
from geodapt.files import UNFINISHED, build_once, sweep, write_json
from geodapt.serve.adapter_files import (
    ALIASES,
    COPIES,
    FILES,
    PUTS,
    adapter_in,
    check_name,
    checked_folder,
    copy_files,
    is_plain,
    named_folder,
    read_aliases,
    version_name,
)
from geodapt.serve.requested_gate import ADAPTER_NAME, UnknownModel
from geodapt.serve.served import require_folder


class Shelf(Protocol):
    """What is needed of an :class:`geodapt.adapters.AdapterBank`."""

    def add(self, name: str, adapter: Adapter) -> None: ...
    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter that clients can name."""

    name: str
    version: str | None
    """``name#digest``; None before it is first read."""
    loaded: bool
    """Whether it is in memory."""
    requests: int
    """Requests that use it now."""
    rank: int | None = None
    parameters: int | None = None


class Lease:
    """The versions that one request uses, by the names that it gave, until :meth:`release`."""

    def __init__(self, folder: "AdapterFolder", versions: Mapping[str, str]) -> None:
        self._folder, self.versions, self._held = folder, versions, True

    def release(self) -> None:
        """The request has ended. Further calls do nothing."""
        with self._folder.lock:
            if self._held:
                self._held = False
                self._folder.released(self.versions.values())


class AdapterFolder:
    """The adapters of a folder, read into a bank when they are first asked for."""

    def __init__(self, folder: Path | None, bank: Shelf, most_loaded: int | None = None) -> None:
        """``most_loaded``: adapters in memory; beyond it, those least recently used leave.

        Without a ``folder`` there are no adapters. Raises :class:`InputError` where the folder is
        none, or its ``aliases.json`` is broken.
        """
        if folder is not None:
            require_folder(folder)
        self.root = folder.resolve() if folder is not None else None
        self.lock = threading.RLock()
        self._loading = threading.Lock()
        self._bank, self._most_loaded = bank, most_loaded
        self._loaded: OrderedDict[str, tuple[int, int]] = OrderedDict()  # version: rank, parameters
        self._plain: dict[str, str] = {}
        self._leases: Counter[str] = Counter()
        self._aliases: dict[str, str | None] = {}
        self._seen: tuple[int, ...] | None = None
        if self.root is not None:
            self._sweep()
            self._refresh()

    # Asking

    def names(self) -> list[str]:
        """The names that clients can use, sorted."""
        with self.lock:
            self._refresh()
            found = {name for name, digest in self._aliases.items() if digest is not None}
            for place in self.root.iterdir() if self.root is not None else ():
                if is_plain(place) and place.name not in self._aliases:
                    found.add(place.name)
            return sorted(found)

    def __contains__(self, name: str) -> bool:
        with self.lock:
            self._refresh()
            try:
                return self._version(name) is not None or self._folder_of(name).is_dir()
            except InputError:
                return False

    def served(self, name: str) -> ServedAdapter:
        """What is known of an adapter. Raises :class:`UnknownModel` for a name without one."""
        with self.lock:
            self._refresh()
            self._folder_of(name)
            version = self._version(name)
            rank, parameters = self._loaded.get(version or "", (None, None))
            uses = self._leases[version] if version else 0
            return ServedAdapter(name, version, version in self._loaded, uses, rank, parameters)

    def lease(self, names: Collection[str]) -> Lease:
        """Keep the present versions of adapters in the bank, reading those that are not there.

        Raises :class:`UnknownModel` for names without an adapter, and :class:`InputError` for
        adapters that cannot be read or do not fit the base.
        """
        held: dict[str, str] = {}
        try:
            for name in names:
                held[name] = self._hold(name)
        except BaseException:
            with self.lock:
                self.released(held.values())
            raise
        return Lease(self, held)

    def is_loaded(self, names: Collection[str]) -> bool:
        """Whether a lease would read no file of an adapter."""
        with self.lock:
            self._refresh()
            return all(self._version(name) in self._loaded for name in names)

    # Changing

    def put(self, name: str, source: str | None = None) -> ServedAdapter:
        """Let a name stand for the adapter in a folder below the root, from now on.

        ``source`` is that folder's name; without it, the folder of the adapter's own name. It is
        read and fitted to the base before anything changes. Requests that run keep their version.
        """
        root = self._need_root()
        place = checked_folder(root, named_folder(root, name if source is None else source))
        check_name(name)
        staged = root / f".{uuid4().hex}{UNFINISHED}"
        one_put = FileLock(root / PUTS)
        try:
            one_put.acquire()
            staged.mkdir()
            for file in FILES:  # copied first, so that what is checked is what is kept
                shutil.copyfile(place / file, staged / file, follow_symlinks=False)
            with self._loading:
                adapter = adapter_in(staged, name)
                version = version_name(name, adapter.sha256)
                self._add(version, adapter)  # held until the name stands for it
                try:
                    build_once(root / COPIES / adapter.sha256, lambda new: copy_files(staged, new))
                    self._rename({name: adapter.sha256})
                finally:
                    with self.lock:
                        self.released([version])
        except OSError as error:
            raise InputError(
                f"adapter '{name}' cannot be kept in the adapters' folder: {error.strerror}"
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            one_put.release()
        return self.served(name)

    def delete(self, name: str, missing_ok: bool = False) -> None:
        """Let a name stand for nothing; its files stay. Requests that run keep their version.

        Raises :class:`UnknownModel` for a name without an adapter, unless ``missing_ok``.
        """
        with self.lock:
            self._refresh()
            try:
                self._folder_of(name)
            except UnknownModel:
                if missing_ok:
                    return
                raise
        self._rename({name: None})

    def _rename(self, changes: Mapping[str, str | None]) -> None:
        root = self._need_root()
        with FileLock(root / f".{ALIASES}.lock"), self.lock:
            self._refresh()
            aliases = self._aliases | dict(changes)
            gone = {
                name
                for name, digest in aliases.items()
                if digest is None and not (root / name).is_dir()
            }
            write_json(root / ALIASES, {n: d for n, d in sorted(aliases.items()) if n not in gone})
            self._refresh()
            self._retire()

    # Leases

    def _hold(self, name: str) -> str:
        with self.lock:
            self._refresh()
            self._folder_of(name)
            version = self._version(name)
            if version in self._loaded:
                assert version is not None
                return self._count(version)
        with self._loading:  # one at a time; others answer meanwhile
            with self.lock:
                self._refresh()
                place, version = self._folder_of(name), self._version(name)
                if version in self._loaded:
                    assert version is not None
                    return self._count(version)
            adapter = adapter_in(checked_folder(self._need_root(), place), name)
            found = version_name(name, adapter.sha256)
            if version is not None and found != version:
                raise InputError(f"adapter '{name}': its copy is not what it was; put it anew")
            self._add(found, adapter)
            with self.lock:
                if name not in self._aliases:
                    self._plain[name] = found
            return found

    def _count(self, version: str) -> str:
        self._leases[version] += 1
        self._loaded.move_to_end(version)
        return version

    def _add(self, version: str, adapter: Adapter) -> None:
        """Bring an adapter into the bank and count a request that uses it.

        Fitting it takes its time, in which others answer: only :attr:`_loading` is held.
        """
        with self.lock:
            if version in self._loaded:
                self._count(version)
                return
        self._bank.add(version, adapter)
        with self.lock:
            rank = max((factors.rank for factors in adapter.factors.values()), default=0)
            self._loaded[version] = rank, adapter.parameters
            self._leases[version] += 1
            self._make_room()

    def released(self, versions: Collection[str]) -> None:
        """Count a request's versions off; the caller holds :attr:`lock`."""
        self._leases.subtract(versions)
        self._retire()

    def _retire(self) -> None:
        """Take what no name stands for and no request uses out of the bank."""
        current = {version_name(n, d) for n, d in self._aliases.items() if d is not None}
        current |= {v for n, v in self._plain.items() if n not in self._aliases}
        for version in [v for v in self._loaded if v not in current and not self._leases[v]]:
            self._drop(version)
        self._make_room()

    def _make_room(self) -> None:
        over = len(self._loaded) - self._most_loaded if self._most_loaded is not None else 0
        idle: Iterator[str] = (v for v in list(self._loaded)[:-1] if not self._leases[v])
        for version in list(idle)[: max(over, 0)]:
            self._drop(version)

    def _drop(self, version: str) -> None:
        with suppress(InputError):  # the step that just ended still holds it: next time
            self._bank.remove(version)
            del self._loaded[version]
            del self._leases[version]

    # Places

    def _refresh(self) -> None:
        if self.root is None:
            return
        path = self.root / ALIASES
        try:
            status = path.stat()
        except FileNotFoundError:
            self._aliases, self._seen = {}, None
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            self._aliases, self._seen = read_aliases(path), seen
            self._retire()

    def _version(self, name: str) -> str | None:
        """The version that a name stands for; None where it was never read."""
        digest = self._aliases.get(name)
        return version_name(name, digest) if digest is not None else self._plain.get(name)

    def _folder_of(self, name: str) -> Path:
        """Where a name's adapter lies. Raises :class:`UnknownModel` where there is none."""
        if self.root is None or not ADAPTER_NAME.fullmatch(name):
            raise UnknownModel(f"there is no adapter '{name[:100]}'")
        if name in self._aliases:
            digest = self._aliases[name]
            if digest is None:
                raise UnknownModel(f"there is no adapter '{name}'; it was deleted")
            return self.root / COPIES / digest
        place = self.root / name
        if not is_plain(place):
            raise UnknownModel(f"there is no adapter '{name}'")
        return place

    def _sweep(self) -> None:
        """Remove what killed puts left, unless another server is putting something just now."""
        root = self._need_root()
        try:
            with (
                FileLock(root / PUTS, timeout=0),
                FileLock(root / f".{ALIASES}.lock", timeout=0),
            ):
                sweep(root, below=False)
                if (root / COPIES).is_dir():
                    sweep(root / COPIES)
        except (Timeout, OSError):  # a folder that may not be written holds nothing unfinished
            return

    def _need_root(self) -> Path:
        if self.root is None:
            raise InputError("this server has no folder of adapters; start it with --adapters")
        return self.root
