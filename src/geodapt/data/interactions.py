"""Tables of who took what and when, as the public data sets hold them."""

from array import array
from collections.abc import Sequence

import numpy as np

from geodapt.data.domain import Domain
from geodapt.data.sequences import SequenceSettings, Trail, build_domain, k_core, leave_one_out


def moment(value: str | float) -> int:
    """A time in whole numbers; raises ValueError or OverflowError for more than 64 bits hold."""
    time = int(value)
    if not -(2**63) <= time < 2**63:
        raise ValueError("beyond 64 bits")
    return time


class Interactions:
    """User, item and time of each interaction, in 24 bytes each."""

    def __init__(self) -> None:
        self.user_numbers: dict[str, int] = {}
        self.item_numbers: dict[str, int] = {}
        self._users, self._items, self._times = array("q"), array("q"), array("q")

    def add(self, user: str, item: str, time: int) -> None:
        self._users.append(self.user_numbers.setdefault(user, len(self.user_numbers)))
        self._items.append(self.item_numbers.setdefault(item, len(self.item_numbers)))
        self._times.append(time)

    def trails(self, settings: SequenceSettings) -> list[Trail]:
        """The k-core's users, each with the items in order of time.

        Those of one moment keep the order in which they were added.
        """
        users, items, times = map(np.asarray, (self._users, self._items, self._times))
        per_user = max(settings.k_core, settings.min_history + 1)
        stays = k_core(users, items, per_user, settings.k_core)
        users, items, times = users[stays], items[stays], times[stays]
        order = np.lexsort((times, users))
        users, items = users[order], items[order]
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        names = list(self.user_numbers)
        return [
            Trail(names[users[start]], tuple(items[start:end].tolist()))
            for start, end in zip(starts, [*starts[1:], len(users)], strict=False)
        ]

    def domain(
        self, name: str, texts: Sequence[tuple[str, str]], settings: SequenceSettings
    ) -> Domain:
        """A domain split by leave-one-out; ``texts`` are the items' names and texts, in order."""
        return build_domain(name, leave_one_out(self.trails(settings), settings), texts, settings)
