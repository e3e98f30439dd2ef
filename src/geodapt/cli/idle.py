"""Options that would have no effect are refused, rather than disregarded."""

from collections.abc import Mapping

from geodapt.errors import InputError


def refuse_idle(options: Mapping[str, object], needed: object, of: str) -> None:
    """Raises :class:`InputError` for an option that was given without what it needs.

    ``of`` says what the options are for, and how to name it.
    """
    given = [option for option, value in options.items() if value is not None]
    if given and not needed:
        raise InputError(f"{given[0]} is {of}")
