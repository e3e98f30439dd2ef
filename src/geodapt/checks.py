"""Checks of plain numbers among arguments."""

import numbers

from geodapt.errors import InputError


def check_count(name: str, value: object) -> None:
    """Refuse a number of dimensions, steps or samples below 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r:.60}; expected a whole number of 1 or more")


def number(name: str, value: object, expected: str) -> float:
    """A plain real number as a float."""
    if not isinstance(value, numbers.Real):
        raise InputError(f"{name} is a {type(value).__name__}, {value!r:.60}; expected {expected}")
    return float(value)
