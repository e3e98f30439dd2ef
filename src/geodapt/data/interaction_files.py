"""The user's own sequences: a table of who took what and when, in one or several domains."""

import math
from datetime import UTC, date, datetime
from typing import Any

from geodapt.data.domain import Domain
from geodapt.data.interactions import Interactions
from geodapt.data.settings import InteractionFileSettings
from geodapt.data.table_files import cell, named_among, table
from geodapt.errors import InputError

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
    for place, row in table(settings.path, "interactions"):
        domain = str(cell(row, settings.domain, place, "data.domain"))
        user, item, time = (
            cell(row, column, place, f"data.{key}")
            for key, column in (
                ("user", settings.user),
                ("item", settings.item),
                ("time", settings.time),
            )
        )
        title = cell(row, settings.title, place, "data.title (or to the item's own column)")
        interactions = tables.setdefault(domain, Interactions())
        if not wanted or domain in wanted:
            titles.setdefault(domain, {}).setdefault(str(item), " ".join(str(title).split()))
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
