"""Base class of objects that act on a model and stand in for it."""

import gc
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Self
from weakref import WeakSet

from torch import Tensor, nn

from geodapt.errors import InputError

_views: "WeakSet[ModelView]" = WeakSet()


class ModelView(nn.Module):
    """Stands in place of a model that it does not own: calls and attributes are the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)  # used, not owned
        # Trainer reads the signature, to know which columns the model takes.
        self.forward = wraps(model.forward)(partial(self.forward))  # type: ignore[method-assign]

    @property
    def closed(self) -> bool:
        """Whether it no longer acts on the model."""
        return False

    def open(self) -> None:
        """Begin to act on the model: another view of it closes this one."""
        _views.add(self)

    def close(self) -> None:
        """Stop acting on the model."""

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
        """The model's own forward."""
        if labels is not None:  # named here because Trainer looks for it in the class
            kwargs["labels"] = labels
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the view does not have, the model has: ``config``, ``generate``, ``device``, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "model" not in self.__dict__:
                raise
            return getattr(self.__dict__["model"], name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Neither pickle nor copy take what reaches into a model that is not its own."""
        raise InputError(
            f"an {type(self).__name__} cannot be copied or pickled; write its adapters with "
            "bank.save(name, folder), and load them into an AdapterBank on the other model"
        )

    def train(self, mode: bool = True) -> Self:
        self.model.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self.model._apply(fn)
        return super()._apply(fn, recurse)


def close_views_of(model: nn.Module) -> None:
    """Close the view of a model, or of a part of it, that there is already.

    Raises :class:`InputError` while it is at work.
    """
    parts = set(model.modules())
    for view in list(_views):
        if not view.closed and not parts.isdisjoint(view.model.modules()):
            gc.collect()  # checkpoints of finished passes hold their gate until then
            try:
                view.close()
            except InputError as error:
                raise InputError(
                    f"the {type(model).__name__} already has an {type(view).__name__}, and {error}"
                ) from None
