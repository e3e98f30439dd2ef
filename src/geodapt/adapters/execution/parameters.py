"""Adapters on parameters that a module uses by itself: fused experts, routers.

No layer is called whose output an update could be added to. So while the module runs, it sees
``W0 + sum_i w_i s_i B_i A_i`` in the parameter's place, formed anew at each call (kept, it would
double the memory of what is most of a mixture of experts). The module itself does not change: the
call goes to a twin that shares everything else, so that threads may run it under other gates.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.gates import Gate, TopAtoms
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.adapters.store.layer_factors import LayerFactors
from geodapt.errors import InputError


class ParameterUpdate:
    """What a gate adds to one parameter."""

    def __init__(
        self, store: AdapterStore, gate: Gate, path: str, training: frozenset[str]
    ) -> None:
        self.store, self.path, self.training = store, path, training
        self.site = site = store.parameters[path]
        self.parts = [path] if site.count is None else [f"{path}[{i}]" for i in range(site.count)]
        entries = store.restrict(gate.entries, self.parts[0])
        self.terms = entries[0]
        if any(entries):
            _check(gate, path)
        self._factors: tuple[Tensor, Tensor] | None = None

    def weight(self) -> Tensor | None:
        """The parameter with the updates of the gate's adapters; None where none acts."""
        if not self.terms:
            return None
        weight = self.site.weight
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            raise InputError(
                f"adapter '{self.terms[0][0]}' changes {self.path}, which is quantized; load the "
                "base without quantization for its experts"
            )
        if weight.device.type == "meta" or weight.itemsize == 1:
            raise InputError(
                f"adapter '{self.terms[0][0]}' changes {self.path}, which is offloaded or in "
                "float8; load the base's experts onto a device in bfloat16 or float32"
            )
        A, B = self._stacked(weight)
        if self.site.count is None:
            return torch.addmm(weight, B[0].T, A[0])
        if self.site.transposed:
            return torch.baddbmm(weight, A.mT, B)
        return torch.baddbmm(weight, B.mT, A)

    def _stacked(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``A (matrices, rank, in)`` and, with weights and scales in it, ``B (matrices, rank,
        out)``."""
        if self._factors is not None and self._factors[0].device == like.device:
            return self._factors
        names = [name for name, _ in self.terms]
        As, Bs = [], []
        for part in self.parts:
            factors = LayerFactors(self.store, part, self.training, like)
            A, B = factors.stacked(names)
            As.append(A)
            Bs.append(B * like.new_tensor(factors.weights(self.terms))[:, None])
        found = torch.stack(As), torch.stack(Bs)
        if not self.training:
            self._factors = found
        return found


def run_owner(
    updates: Mapping[str, ParameterUpdate],
    module: nn.Module,
    base: Callable,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A module's output under the gate that gives its parameters these ``updates``, by path."""
    changed = {}
    for path, update in updates.items():
        weight = update.weight()
        if weight is not None:
            changed[path.rpartition(".")[2]] = weight
    if not changed:
        return base(*args, **kwargs)
    if not isinstance(base, partial) or base.args != (module,):
        raise InputError(
            f"another library wraps {type(module).__name__} (parameters {', '.join(updates)}), as "
            "offloading does, and adapters change its parameters; load the base without it"
        )
    return base.func(twin(module, changed), *args, **kwargs)


def twin(module: nn.Module, parameters: dict[str, Tensor]) -> nn.Module:
    """A module that shares everything with another but some parameters."""
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_parameters"] = {**module._parameters, **parameters}
    return copy


def _check(gate: Gate, path: str) -> None:
    if isinstance(gate, TopAtoms):
        raise InputError(
            f"TopAtoms chooses among a layer's terms by its input, and {path} is a parameter that "
            "its module uses by itself; use a Mix, or an adapter without it"
        )
