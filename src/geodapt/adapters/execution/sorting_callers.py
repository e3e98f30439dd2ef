"""Callers that put rows into an order of their own before they call a model.

sentence-transformers sorts what it encodes by length and puts the results back, so that the rows
that a model gets are not those that its user wrote a route for. The order is a local variable of
its methods ``encode`` and ``predict``.
"""

import sys
from types import FrameType

SORTED = "length_sorted_idx"


def sorted_by_caller() -> bool:
    """Whether the running call's rows are in another order than its user's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("sentence_transformers.") and SORTED in frame.f_code.co_varnames:
            order = [*frame.f_locals.get(SORTED, ())]
            return order != [*range(len(order))]
        frame = frame.f_back
    return False
