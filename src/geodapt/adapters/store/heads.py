"""Adapters' heads as modules: copies that share the tensors that an adapter does not bring."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from geodapt.adapters.peft_files.saved_modules import Head
from geodapt.errors import InputError


class HeadCopies:
    """The base's modules with adapters' own tensors in them, made at their first use."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, str], nn.Module] = {}

    def get(
        self, name: str, path: str, module: nn.Module, head: Head, device: torch.device
    ) -> nn.Module:
        """The module at ``path`` with adapter ``name``'s head, in the base's float types.

        ``device`` is where it computes. To be called under the store's lock.
        """
        # No state dict, whose hooks let a sharded model part with its weights again.
        ours = {key: tensor for key, tensor in _tensors(module) if key in head}
        copy = self._copies.get((name, path))
        if copy is not None:
            held = copy.state_dict()
            if all(held[k].dtype == v.dtype and held[k].device == device for k, v in ours.items()):
                return copy
        with torch.inference_mode(False), torch.no_grad():
            tensors = {k: head[k].to(device, v.dtype, copy=True) for k, v in ours.items()}
            self._copies[name, path] = clone(module, tensors)
        return self._copies[name, path]

    def forget(self, name: str | None = None) -> None:
        """Drop the copies of one adapter's modules, or all."""
        for key in [key for key in self._copies if name in (None, key[0])]:
            self._copies.pop(key, None)

    def keep(self, names: Collection[str]) -> None:
        """Drop the copies of all other adapters' modules."""
        for key in [key for key in self._copies if key[0] not in names]:
            self._copies.pop(key, None)


def clone(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module like another with other parameters and buffers, whose own are not copied.

    Without what others have put around the module's ``forward``, and without its own hooks.
    """
    memo: dict[nn.Module, nn.Module] = {}

    def make(old: nn.Module, outermost: bool) -> nn.Module:
        if old in memo:
            return memo[old]
        new = memo[old] = old.__class__.__new__(old.__class__)
        new.__dict__.update(old.__dict__)
        for name in ("forward", "_hf_hook", "_old_forward"):
            new.__dict__.pop(name, None)
        for name, value in old.__dict__.items():
            if isinstance(value, OrderedDict) and name.endswith("hooks"):
                new.__dict__[name] = OrderedDict() if outermost else OrderedDict(value)
        new._parameters = dict(old._parameters)
        new._buffers = {k: None if b is None else b.clone() for k, b in old._buffers.items()}
        new._modules = {k: m and make(m, False) for k, m in old._modules.items()}
        return new

    new = make(module, True)
    for key, tensor in tensors.items():
        path, _, name = key.rpartition(".")
        owner = new.get_submodule(path)
        if name in owner._buffers:
            owner._buffers[name] = tensor
        else:
            owner._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    return new


def swap(model: nn.Module, heads: Mapping[str, Head]) -> dict[str, Head]:
    """Give modules other tensors in place; returns the ones that they had.

    Raises :class:`InputError` for a tensor that another module shares, before anything changes.
    """
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(module)
    places = {path: dict(_tensors(model.get_submodule(path))) for path in heads}
    for path, tensors in places.items():
        for key, tensor in tensors.items():
            if len(owners.get(id(tensor), ())) > 1:
                raise InputError(
                    f"{path} shares its {key} with another module, which would change too; use "
                    "the adapter through a gate"
                )
    before: dict[str, Head] = {}
    for path, head in heads.items():
        before[path] = {key: places[path][key].data for key in head}
        for key, value in head.items():
            place = places[path][key]
            place.data = value.to(place.device, place.dtype, copy=value is not place.data)
    return before


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
