"""Checks of plain numbers and texts among arguments."""

import numbers
from collections.abc import Iterable

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


def texts_of(value: object, what: str = "texts") -> list[str]:
    """Texts as a list; one text in place of a list would be read letter by letter."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"give a list of {what}, not {value!r:.60}")
    texts = list(value)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"number {number} of the {what} is {text!r:.60}; expected a text")
    return texts
