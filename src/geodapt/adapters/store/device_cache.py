"""Which adapters lie on the device: at most ``capacity``, evicting the least recently used."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection

from geodapt.errors import InputError


class DeviceCache:
    """Counts who uses what, and calls ``put`` and ``drop`` as adapters come and go.

    ``check`` raises for names that are not there (any more).

    Gates *hold* the adapters that they let act. What no gate holds may make room; a gate that
    needs room where everything is held waits until another thread's gate ends.
    """

    def __init__(
        self,
        capacity: int | None,
        put: Callable[[str], None],
        drop: Callable[[str], None],
        lock: threading.RLock,
        check: Callable[[Collection[str]], None] = lambda names: None,
    ) -> None:
        self.capacity, self._put, self._drop, self._check = capacity, put, drop, check
        self._changed = threading.Condition(lock)
        self._resident: OrderedDict[str, None] = OrderedDict()  # least recently used first
        self._held: Counter[str] = Counter()

    @property
    def resident(self) -> list[str]:
        """The adapters on the device, least recently used first."""
        return list(self._resident)

    def held(self, name: str) -> bool:
        """Whether a gate uses an adapter now."""
        return self._held[name] > 0

    def others_hold(self, names: Collection[str]) -> bool:
        """Whether gates hold anything beside one hold of these names."""
        return (self._held - Counter(names)).total() > 0

    def hold(
        self,
        names: Collection[str],
        elsewhere: Collection[str] = (),
        wait: bool = True,
        beside: Collection[str] = (),
    ) -> None:
        """Bring adapters onto the device and keep them there until :meth:`release`.

        ``elsewhere`` are names that need no place here, ``beside`` names that stay held however
        long one waits. Raises :class:`InputError` when there is no room, at once if ``wait`` is
        False or waiting could not help.
        """
        stacked = [name for name in names if name not in elsewhere]
        needed = len({*stacked, *beside})
        with self._changed:
            if self.capacity is not None and needed > self.capacity:
                raise InputError(
                    f"the gate uses {len(stacked)} adapters, the bank holds {self.capacity} on the "
                    f"device at a time{_beside(needed - len(stacked))}; raise AdapterBank's "
                    "capacity or split the batch"
                )
            while not self._has_room(stacked):
                if not wait:
                    raise InputError(
                        f"no room for {', '.join(sorted(stacked))}: the running gates hold "
                        f"all {self.capacity} adapters that the bank keeps on the device; raise "
                        "AdapterBank's capacity"
                    )
                self._changed.wait()
            self._check(names)  # another thread may have removed one
            self._held.update(names)  # first, so that none of them makes room for another
            try:
                for name in stacked:
                    if name not in self._resident:
                        self._make_room()
                        self._put(name)
                    self._resident[name] = None
                    self._resident.move_to_end(name)
            except BaseException:
                self.release(names)
                raise

    def release(self, names: Collection[str]) -> None:
        """End one :meth:`hold`."""
        with self._changed:
            self._held.subtract(names)
            for name in names:
                if self._held[name] <= 0:
                    del self._held[name]
            self._changed.notify_all()

    def forget(self, name: str) -> None:
        """An adapter leaves the device, whoever used it."""
        with self._changed:
            if name in self._resident:
                del self._resident[name]
                self._drop(name)
                self._changed.notify_all()

    def _has_room(self, names: list[str]) -> bool:
        if self.capacity is None:
            return True
        stuck = sum(1 for name in self._resident if self._held[name] and name not in names)
        return stuck + len(names) <= self.capacity

    def _make_room(self) -> None:
        if self.capacity is not None and len(self._resident) >= self.capacity:
            oldest = next(name for name in self._resident if not self._held[name])
            self.forget(oldest)


def _beside(others: int) -> str:
    return f" and {others} of them for the gate that is set" if others else ""
