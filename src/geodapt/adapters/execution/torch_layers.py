"""PyTorch's own attention and encoder layers, which read weights of layers that they hold.

``nn.MultiheadAttention`` never calls its ``out_proj``, and ``nn.TransformerEncoder`` has a fast
path that calls none of its layers. Where adapters act, the output projection is called with what
the attention gives it, and the slow path is taken.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import multi_head_attention_forward
from torch.overrides import TorchFunctionMode


def run_calling(module: nn.Module, base: Callable, *args: Any, **kwargs: Any) -> Any:
    """The module's output, in which every layer that it holds is called."""
    if torch.compiler.is_compiling():
        torch._dynamo.graph_break()
    with _Calling(module):
        return base(*args, **kwargs)


class _Calling(TorchFunctionMode):
    """Lets attention call its output projection; while any such mode is on, no fast path is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._layer = module.out_proj if isinstance(module, nn.MultiheadAttention) else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not multi_head_attention_forward or self._layer is None:
            return func(*args, **kwargs)
        query, width = args[0], args[3]
        identity = torch.eye(width, dtype=query.dtype, device=query.device)
        changed = (*args[:11], identity, None, *args[13:])
        context, weights = func(*changed, **kwargs)
        return self._layer(context), weights
