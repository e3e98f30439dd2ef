"""Who took what and when: in memory, as public data sets have it, and in a file of one's own."""

import math
from array import array
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import numpy as np

from geodapt.data.domain import Domain
from geodapt.data.sequences import SequenceSettings, Trail, build_domain, k_core, leave_one_out
from geodapt.data.settings import InteractionFileSettings
from geodapt.data.table_files import cell, named_among, require_columns, table
from geodapt.errors import InputError


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


LATEST = 2**62
"""Times are kept as whole milliseconds in 64 bits."""


def load_interactions(settings: InteractionFileSettings) -> dict[str, Domain]:
    """The domains in the order asked for; without a list, all of the file, sorted.

    A user's rows in a domain are one sequence in order of time; rows of one moment stand in the
    order of the file. An item's title is that of its first row in the domain. Raises
    :class:`InputError` for a missing file or column, an empty cell, a time that is none, a domain
    that is not there, and one with too few items.
    """
    tables: dict[str, Interactions] = {}
    titles: dict[str, dict[str, str]] = {}
    wanted = set(settings.domains or ())
    columns = [
        ("data.user", settings.user),
        ("data.item", settings.item),
        ("data.time", settings.time),
        ("data.title (the item's own will do)", settings.title),
        ("data.domain", settings.domain),
    ]
    for place, row in table(settings.path, "interactions", partial(require_columns, columns)):
        user, item, time, title, domain = (cell(row, column, place) for _, column in columns)
        interactions = tables.setdefault(str(domain), Interactions())
        if not wanted or str(domain) in wanted:
            named = titles.setdefault(str(domain), {})
            named.setdefault(str(item), " ".join(str(title).split()))
            interactions.add(str(user), str(item), milliseconds(time, place, settings.time))
    if not tables:
        raise InputError(f"{settings.path} is empty: it has no rows under its header")
    domains = {}
    for name in named_among(settings.domains, list(tables), settings.path):
        texts = [(titles[name][item], titles[name][item]) for item in tables[name].item_numbers]
        domains[name] = tables[name].domain(name, texts, settings)
    return domains


def milliseconds(value: Any, place: str, column: str) -> int:
    """A moment as a whole number that grows with it.

    Numbers are seconds of any clock; text is a number or a date of ISO 8601, in UTC where it names
    no zone. Raises :class:`InputError` for anything else, and for what 64 bits cannot hold.
    """
    try:
        if isinstance(value, str):
            value = _moment(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < LATEST / 1000:  # also NaN
        raise InputError(
            f"{place}: column '{column}' holds {str(value)[:40]!r}; give a number of seconds or a "
            "date such as 2026-03-31 or 2026-03-31T12:00:00"
        )
    return round(number * 1000)


def _moment(text: str) -> float | datetime:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text)
