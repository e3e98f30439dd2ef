"""Adapters that train in several processes at once: their gradients are averaged.

DistributedDataParallel and FSDP average the gradients of what they wrap. The masters of adapters
belong to the bank: ``DistributedDataParallel(bank)``, as Trainer makes it, averages them; a wrapped
or sharded *base* does not know them, and each process would train its own adapter.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geodapt.errors import InputError


class AveragedGradients:
    """At the end of each backward pass: every master's gradient, averaged over the processes.

    Acts where the base is sharded (FSDP) or inside DistributedDataParallel, so that all processes
    take their steps together, and nobody else averages.
    """

    def __init__(
        self, model: nn.Module, training: Callable[[], Mapping[str, list[nn.Parameter]]]
    ) -> None:
        """``training`` gives the masters of the adapters that train, by the adapters' names."""
        self._model, self._training = model, training
        self._agreed: dict[str, tuple[int, ...]] = {}
        self._whole = False  # whether the base was seen to be no part
        self._task = -1  # the backward pass that will average when it ends
        self._handles = [
            model.register_forward_pre_hook(self._before),
            model.register_forward_hook(self._after),
        ]

    def __deepcopy__(self, memo: Any) -> "AveragedGradients":
        """A copy of the model keeps the hooks, which do nothing there."""
        return self

    def remove(self) -> None:
        """Average no more."""
        for handle in self._handles:
            handle.remove()

    def _before(self, model: nn.Module, args: Any) -> None:
        if not self._whole and _several_processes():
            refuse_tensor_parallel(model)
            self._whole = True

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if model is not self._model or not (torch.is_grad_enabled() and _several_processes()):
            return
        masters = [p for group in self._training().values() for p in group]
        if masters and self._left_alone(masters):
            # On the outputs, since a process whose rows use no adapter has no other gradient.
            for tensor in _tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._in_backward)

    def _left_alone(self, masters: list[nn.Parameter]) -> bool:
        """Whether the processes run together, but nobody averages the masters' gradients."""
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor

        if any(isinstance(master, DTensor) for master in masters):
            return False
        wrapper = DistributedDataParallel._get_active_ddp_module()
        if wrapper is not None:
            return masters[0] not in set(wrapper.parameters())
        return any(isinstance(module, FSDPModule) for module in self._model.modules())

    def _in_backward(self, gradient: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            torch.autograd.Variable._execution_engine.queue_callback(self._average)

    @torch.no_grad()
    def _average(self) -> None:
        training = self._training()
        self._agree(training)
        masters = [p for name in sorted(training) for p in training[name]]
        with_gradient = masters[0].new_tensor([float(p.grad is not None) for p in masters])
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in masters]
        together = torch.cat([with_gradient, *(g.flatten() for g in found)])
        dist.all_reduce(together)
        parts = together.split([len(masters), *(p.numel() for p in masters)])
        for master, anywhere, total in zip(masters, parts[0].tolist(), parts[1:], strict=True):
            if anywhere:
                master.grad = (total / dist.get_world_size()).view_as(master)

    def _agree(self, training: Mapping[str, list[nn.Parameter]]) -> None:
        """Raise where adapters differ between the processes when they begin to train together."""
        starts = {name: tuple(map(id, masters)) for name, masters in training.items()}
        if starts == self._agreed:
            return
        own = {
            name: [(tuple(p.shape), p.double().sum().item()) for p in masters]
            for name, masters in training.items()
        }
        everyones: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyones, own)
        for name in sorted({name for each in everyones for name in each}):
            if any(each.get(name) != own.get(name) for each in everyones):
                raise InputError(
                    f"adapter '{name}' is not the same in every process, so that averaged "
                    "gradients would not train one adapter; call torch.manual_seed with one "
                    "number in all of them before bank.create, or load one folder"
                )
        self._agreed = starts


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def refuse_tensor_parallel(model: nn.Module) -> None:
    """Raise where processes hold parts of one layer: its input or output is then a part, too."""
    own_size = getattr(model, "_tp_size", None) or 1  # transformers' own tensor parallelism
    if own_size == 1 and not _several_processes():
        return
    found = next(_split_layers(model), None)
    if found or own_size > 1:
        raise InputError(
            f"{found or type(model).__name__} is tensor parallel: a process holds a part of each "
            "layer, and adapters need the whole one. Load the base without tp_plan, and use FSDP "
            "(fully_shard) or device_map where it does not fit one device"
        )


def _split_layers(model: nn.Module) -> Iterator[str]:
    """The paths of layers whose weights are split, other than by FSDP, which joins them again."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    sharded = [path for path, module in model.named_modules() if isinstance(module, FSDPModule)]
    for path, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            joined = any(not above or path.startswith(above + ".") for above in sharded)
            if not joined or sum(each.is_shard() for each in parameter.placements) > 1:
                yield path.rpartition(".")[0]


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of an output: of tuples, mappings and transformers' own classes."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
