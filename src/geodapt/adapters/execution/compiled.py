"""A layer's update as one opaque operator, for ``torch.compile``.

The gate is looked up when the operator runs, not when the graph is traced: another gate, other
weights or another route need no new graph, and threads keep their own gates.
"""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.bank import AdapterBank

banks: "WeakValueDictionary[int, AdapterBank]" = WeakValueDictionary()


@torch.library.custom_op("geodapt::add_update", mutates_args=("y",))
def add_update(y: Tensor, x: Tensor, bank: int, path: str) -> None:
    """Add the active gate's update of ``x`` at a layer into the base's output ``y``."""
    owner = banks[bank]
    owner.rows.compiled(path)
    plan = owner.active_plan()
    plan.note(path, owner.site(path).module, x, y)
    step = plan.step(path)
    if step is not None:
        if step.tells_rows_apart and owner.rows.call is None:
            raise InputError(
                f"layer {path} is in a part of the model that was compiled and called on its own, "
                "where its rows are not known; compile the whole model, or run this part as it is"
            )
        result = step.add(x, y, training=False)
        if result.data_ptr() != y.data_ptr():
            y.copy_(result)


@add_update.register_fake
def _(y: Tensor, x: Tensor, bank: int, path: str) -> None:
    return None
