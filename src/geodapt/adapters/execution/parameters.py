"""Adapters on parameters that a module uses by itself: fused experts, routers.

No layer is called whose output an update could be added to. So while the module runs, it sees
``W0 + sum_i w_i s_i B_i A_i`` in the parameter's place, formed anew at each call (kept, it would
double the memory of what is most of a mixture of experts). The module itself does not change: the
call goes to a twin that shares everything else, so that threads may run it under other gates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from geodapt.adapters.base_model.sites import Site
from geodapt.adapters.execution.strategy import LayerFactors
from geodapt.adapters.gates import Terms, TopAtoms
from geodapt.errors import InputError

if TYPE_CHECKING:
    pass


class ParameterUpdate:
    """One parameter under a plan."""

    def __init__(self, plan: "Plan", path: str, site: Site) -> None:
        self.bank, self.path, self.site, self.training = plan.bank, path, site, plan.training
        self.parts = [path] if site.count is None else [f"{path}[{i}]" for i in range(site.count)]
        entries = plan.bank.restrict(plan.gate.entries, self.parts[0])
        self.terms = entries[0]
        if any(entries):
            _check(plan, path, entries)
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
            source = LayerFactors(self.bank, part, self.training, like, atoms=False)
            A, B = source.stacked(names)
            As.append(A)
            Bs.append(B * like.new_tensor(source.weights(self.terms))[:, None])
        found = torch.stack(As), torch.stack(Bs)
        if not self.training:
            self._factors = found
        return found


def run_owner(
    plan: "Plan", paths: Sequence[str], module: nn.Module, base: Callable, *args: Any, **kwargs: Any
) -> Any:
    """A module's output under the gate, of which adapters change the parameters ``paths``."""
    if torch.compiler.is_compiling():
        torch._dynamo.graph_break()
    changed = {}
    for path in paths:
        weight = plan.parameter(path).weight()
        if weight is not None:
            changed[path.rpartition(".")[2]] = weight
    if not changed:
        return base(*args, **kwargs)
    if not isinstance(base, partial) or base.args != (module,):
        raise InputError(
            f"another library wraps {type(module).__name__} (parameters {', '.join(paths)}), as "
            "offloading does, and adapters change its parameters; load the base without it"
        )
    return base.func(twin(module, changed), *args, **kwargs)


def twin(module: nn.Module, parameters: dict[str, Tensor]) -> nn.Module:
    """A module that shares everything with another but some parameters."""
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_parameters"] = {**module._parameters, **parameters}
    return copy


def _check(plan: "Plan", path: str, entries: Sequence[Terms]) -> None:
    if isinstance(plan.gate, TopAtoms):
        raise InputError(
            f"TopAtoms chooses among a layer's terms by its input, and {path} is a parameter that "
            "its module uses by itself; use a Mix, or an adapter without it"
        )
    if len(set(entries)) > 1:
        raise InputError(
            f"the route's rows have different adapters at {path}, a parameter that its module "
            "uses for all rows together; run the rows of each adapter as a batch of their own"
        )
