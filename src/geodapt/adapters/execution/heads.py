"""Modules that an adapter brings trained in full (``modules_to_save``): its heads.

A classifier, a norm, an embedding or any other module. A row runs through its own adapter's copy
of the module and through the base's where its adapters bring none; nothing is copied but what
the adapters bring.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from geodapt.adapters.base_model.uncalled import calling
from geodapt.adapters.execution.hooks import Attachment
from geodapt.adapters.gates import Terms
from geodapt.adapters.peft_files.saved_modules import Head, holder_of, same_head
from geodapt.errors import InputError

if TYPE_CHECKING:
    from geodapt.adapters.adapter import Adapter
    from geodapt.adapters.bank import AdapterBank


def check_terms(
    adapters: Mapping[str, "Adapter"], terms: Terms, training: Collection[str] = ()
) -> None:
    """Raises :class:`InputError` when the adapters of one row have no head in common.

    A head acts whole or not at all: two different ones have no sum, and one has no weight.
    Frozen adapters may share one that is the same to the bit, whatever their weights.
    """
    remedy = ", or add it without its head: bank.add(name, adapter.without_heads())"
    shared: set[tuple[str, str]] = set()
    bringing = {name: adapters[name].heads for name, _ in terms if adapters[name].heads}
    for one, other in combinations(bringing, 2):
        ours, theirs = bringing[one], bringing[other]
        for path in theirs:
            mine = holder_of(path, ours) or next((p for p in ours if holder_of(p, [path])), None)
            if mine is None:
                continue
            alike = mine == path and same_head(ours[path], theirs[path])
            if not alike or {one, other} & set(training):
                raise InputError(
                    f"adapters '{one}' and '{other}' each bring their own {path}, and heads cannot "
                    "be mixed, nor train together; give each row one of them" + remedy
                )
            shared |= {(one, path), (other, path)}
    for name, weight in terms:
        alone = [path for path in bringing.get(name, ()) if (name, path) not in shared]
        if alone and weight != 1:
            raise InputError(
                f"adapter '{name}' brings its own {alone[0]}, which acts whole or not at all, and "
                f"has weight {weight:g}; give it weight 1" + remedy
            )
        for owner, heads in bringing.items():
            changed = next((p for p in adapters[name].touched if holder_of(p, heads)), None)
            if changed is not None:
                raise InputError(
                    f"adapter '{name}' changes {changed}, which adapter '{owner}' brings trained "
                    "in full; give each row one of them" + remedy
                )


class Heads:
    """The heads of a bank's adapters at work."""

    def __init__(self, bank: "AdapterBank") -> None:
        self.bank = bank
        self._attached: dict[str, Attachment] = {}
        self._copies: dict[tuple[str, str], nn.Module] = {}
        self._before: dict[str, Head] = {}
        """What the base's modules held before a merge."""

    def attach(self, adapter: "Adapter") -> None:
        """Reach into the modules that an adapter brings."""
        for path in adapter.heads.keys() - self._attached.keys():
            module = self.bank.model.get_submodule(path)
            self._attached[path] = Attachment(module, partial(self.run, path))
            self.bank.uncalled.watch()
            self.bank.rows.forget()

    def keep(self, adapters: Mapping[str, "Adapter"]) -> None:
        """Let go of the modules that none of these adapters brings, and of others' copies."""
        brought = {path for adapter in adapters.values() for path in adapter.heads}
        for path in self._attached.keys() - brought:
            self._attached.pop(path).detach()
        if not self._attached:
            self.bank.uncalled.close()
        for key in [key for key in self._copies if key[0] not in adapters]:
            self._copies.pop(key, None)

    def attached(self) -> list[tuple[str, Attachment]]:
        """The modules that adapters bring, by path."""
        return list(self._attached.items())

    def forget(self, name: str | None = None) -> None:
        """Drop the copies of one adapter's modules, or all."""
        for key in [key for key in self._copies if name in (None, key[0])]:
            self._copies.pop(key, None)

    def within(self, path: str) -> bool:
        """Whether an adapter brings a part of a module."""
        return any(other != path and holder_of(other, [path]) for other in self._attached)

    @contextmanager
    def merged(self, adapters: Iterable["Adapter"]) -> Iterator[None]:
        """Put adapters' heads into the base's own modules, unless the block fails."""
        heads = {path: head for adapter in adapters for path, head in adapter.heads.items()}
        self._before = swap(self.bank.model, heads)
        try:
            yield
        except BaseException:
            self.unmerge()
            raise

    def unmerge(self) -> None:
        """Give the base's modules the very tensors that they had."""
        swap(self.bank.model, self._before)
        self._before = {}

    def run(self, path: str, module: nn.Module, base: Any, *args: Any, **kwargs: Any) -> Any:
        """A module's output, each row by the module that its adapters bring; ``base`` else."""
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        plan = self.bank.active_plan()
        if plan.looks:
            with suppress(InputError):  # which a route with unlike heads raises
                plan.record(path, _as_vectors(_only_tensor(path, args, kwargs)))
            with calling():
                return base(*args, **kwargs)
        owners = [self._owner(path, terms) for terms in plan.gate.entries]
        if len(set(owners)) == 1:
            return self._through(owners[0], path, module, base, args, kwargs)
        # Where adapters change layers of the base's module, its rows run adapter by adapter.
        touched = self.bank.touches(path)
        x = _only_tensor(path, args, kwargs)
        layout, rows = self.bank.rows.place(path, _as_vectors(x), plan)
        if layout.dim or layout.tiled or x.shape[0] % rows:
            raise InputError(
                f"{path} does not get the batch's rows first, so that they cannot run through "
                "different adapters' heads; use one adapter for the whole batch"
            )
        each = x.shape[0] // len(owners)
        where: dict[tuple[str | None, Terms], list[int]] = {}
        for entry, (owner, terms) in enumerate(zip(owners, plan.gate.entries, strict=True)):
            alone = terms if owner is None and touched else ()
            where.setdefault((owner, alone), []).append(entry)
        order: list[int] = []
        outputs = []
        for (owner, terms), mine in where.items():
            index = [entry * each + i for entry in mine for i in range(each)]
            order += index
            part = x[torch.tensor(index, device=x.device)]
            some = [part if value is x else value for value in args]
            named = {key: part if value is x else value for key, value in kwargs.items()}
            with self.bank.under(plan.alone(terms)), self.bank.rows.within(None):
                outputs.append(self._through(owner, path, module, base, some, named))
        return _joined(path, outputs, torch.tensor(order, device=x.device).argsort())

    def _owner(self, path: str, terms: Terms) -> str | None:
        return next((name for name, _ in terms if path in self.bank.heads_of(name)), None)

    def _through(
        self,
        owner: str | None,
        path: str,
        module: nn.Module,
        base: Any,
        args: Collection[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if owner is None:
            return base(*args, **kwargs)
        copy = self._copy(owner, path, module, args, kwargs)
        copy.train(module.training)
        if owner not in self.bank.training_names:
            return copy(*args, **kwargs)
        masters = self.bank.master_head(owner, path)
        now = {key: masters[key].to(tensor.dtype) for key, tensor in copy.state_dict().items()}
        return functional_call(copy, now, tuple(args), dict(kwargs))

    def _copy(
        self,
        owner: str,
        path: str,
        module: nn.Module,
        args: Collection[Any],
        kwargs: Mapping[str, Any],
    ) -> nn.Module:
        """The module with an adapter's tensors, in the base's float types and where it computes."""
        key = (owner, path)
        ours = module.state_dict()
        device = next(iter(ours.values())).device
        if device.type == "meta":  # offloaded in the meantime
            device = _only_tensor(path, args, kwargs).device
        copy = self._copies.get(key)
        if copy is not None:
            held = copy.state_dict()
            if all(held[k].dtype == v.dtype and held[k].device == device for k, v in ours.items()):
                return copy
        with self.bank.lock, torch.inference_mode(False), torch.no_grad():
            head = self.bank.heads_of(owner)[path]
            copy = self._copies[key] = clone(
                module, {k: head[k].to(device, v.dtype, copy=True) for k, v in ours.items()}
            )
        return copy


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


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _only_tensor(path: str, args: Collection[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The one tensor among a module's arguments."""
    values = [*args, *kwargs.values()]
    tensors = [value for value in values if isinstance(value, Tensor)]
    simple = (Tensor, str, int, float, type(None))
    other = next((value for value in values if not isinstance(value, simple)), None)
    if len(tensors) != 1 or other is not None:
        what = f"{len(tensors)} tensors" if other is None else f"a {type(other).__name__}"
        raise InputError(
            f"{path} takes {what}, so that its rows cannot be told apart and each run through "
            "its own adapter's head; use one adapter for the whole batch"
        )
    return tensors[0]


def _as_vectors(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.unsqueeze(-1)  # ids


def _joined(path: str, outputs: list[Any], order: Tensor) -> Any:
    """The rows' outputs in the batch's order."""
    tensors = all(isinstance(output, Tensor) for output in outputs)
    if tensors and sum(output.shape[0] for output in outputs) == len(order):
        return torch.cat(outputs)[order]
    raise InputError(
        f"{path} gives no tensor with one row for each row that it takes, so that rows cannot run "
        "through different adapters' heads; use one adapter for the whole batch"
    )
