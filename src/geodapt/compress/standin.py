"""A tensor that represents a matrix without holding it.

A subclass may compute products from its parts; every other operation sees the dense matrix, so that
any model code works. Only changes in place are refused.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from geodapt.errors import InputError

aten = torch.ops.aten
READS: ContextVar[list[Any]] = ContextVar("reads")
"""When set to a list, it collects the operators that took the dense matrix of a weight."""
_COPIES = (aten.detach.default, aten.clone.default, aten.alias.default)


class StandIn(torch.Tensor):
    """Base of weights that are made of parts; each kind defines both ``parts`` and ``dequantize``.

    (A tensor's class cannot have ABC's metaclass, which would refuse one without them.)
    """

    def parts(self) -> dict[str, Tensor]:
        """The tensors that it is made of, by attribute."""
        raise NotImplementedError

    def rebuilt(self, parts: dict[str, Tensor]) -> "StandIn":
        """A tensor like this one, made of other parts."""
        return type(self)(**parts)

    def dequantize(self) -> Tensor:
        """The matrix that it stands for."""
        raise NotImplementedError

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "StandIn":
        """A tensor like this one, with a function applied to each part."""
        return self.rebuilt({name: change(part) for name, part in self.parts().items()})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return list(self.parts()), None

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], *_: Any) -> "StandIn":
        return cls(**parts)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _COPIES:
            return args[0].mapped(lambda part: func(part))
        if func is aten._to_copy.default:
            device, dtype = kwargs.get("device"), kwargs.get("dtype")
            return args[0].mapped(lambda part: moved(part, device, dtype))
        if func._schema.is_mutable and _written(func, args):
            raise InputError(
                f"a compressed weight cannot be changed in place ({func}); merge into or train the "
                "model that it was made from and compress that, or put an adapter on top "
                "(AdapterBank), which acts without changing the weight"
            )
        READS.get([]).append(func)
        args, kwargs = tree_map(_dense, (args, kwargs))
        return func(*args, **kwargs)


def moved(part: Any, device: Any, dtype: Any) -> Any:
    """A part on another device, or one that computes in another float type."""
    part = part if device is None else part.to(device=device)
    if dtype is None:
        return part
    if type(part).__name__ == "Int8Tensor":  # torchao's has no change of type of its own
        return type(part)(
            part.qdata, part.scale, part.block_size, dtype, zero_point=part.zero_point
        )
    return part.to(dtype=dtype)


def _dense(value: Any) -> Any:
    return value.dequantize() if isinstance(value, StandIn) else value


def _written(func: Any, args: tuple) -> bool:
    """Whether an operator writes into one of these weights."""
    return any(
        isinstance(value, StandIn)
        and argument.alias_info is not None
        and argument.alias_info.is_write
        for argument, value in zip(func._schema.arguments, args, strict=False)
    )
