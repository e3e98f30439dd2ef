"""Small helpers for sentences and numbers."""

import math
from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def percent(fraction: float) -> str:
    """A share without needless digits: ``25 %``, ``0.5 %``."""
    digits = f"{100 * fraction:.3g}" if fraction < 1 else f"{100 * fraction:,.0f}"
    return f"{digits}\N{NO-BREAK SPACE}%"


def decimals(largest: float, digits: int = 3) -> int:
    """How many decimals show numbers up to ``largest`` with so many digits."""
    return max(0, digits - 1 - math.floor(math.log10(largest))) if largest > 0 else 0


def duration(seconds: float) -> str:
    """Seconds as people say them: ``41 s``, ``7 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
