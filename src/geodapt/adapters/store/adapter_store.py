"""The adapters of a bank: as they were loaded, as masters, and stacked on the device."""

import copy
import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.additions_fit import with_base
from geodapt.adapters.base_model.compatibility import Fitted
from geodapt.adapters.base_model.lowering import multiplier
from geodapt.adapters.base_model.sites import Site, bias_site, matrices, sites, size_change
from geodapt.adapters.base_model.targets import fingerprint_layers
from geodapt.adapters.gates import Terms
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import PARAMETER
from geodapt.adapters.store.acting import Acting
from geodapt.adapters.store.base_weights import device_of
from geodapt.adapters.store.device_cache import DeviceCache
from geodapt.adapters.store.factors import Stack, StackedLayer
from geodapt.adapters.store.heads import HeadCopies
from geodapt.adapters.store.masters import Masters, key_of
from geodapt.errors import InputError

SHOWN = 20
"""How many adapters a message names."""


class AdapterStore:
    """The adapters of one model by name, under the model's own layer paths.

    What is derived from adapters is valid while :meth:`versions` stays the same; :attr:`version`
    changes whenever any of them does.
    """

    def __init__(self, model: nn.Module, capacity: int | None, masters: nn.ModuleDict) -> None:
        """``masters`` takes the float32 masters, so that its owner saves them."""
        self.model, self.masters = model, masters
        self._masters: dict[str, Masters] = {}
        self.lock = threading.RLock()
        self.closed = False
        self.training: frozenset[str] = frozenset()
        self.adapters: dict[str, Adapter] = {}
        self.fitted: dict[str, Fitted] = {}
        self.acting = Acting()
        """Which adapters act at a layer."""
        places = sites(model)
        self.layers: dict[str, Site] = matrices(places)
        self.parameters = {p: site for p, site in places.items() if site.kind == PARAMETER}
        """Parameters that their modules use by themselves."""
        self.cache = DeviceCache(
            capacity, self._stack_up, self._unstack, self.lock, self.require_here
        )
        self.heads = HeadCopies()
        self.row_scales: WeakKeyDictionary[Adapter, dict[str, tuple[Tensor, Tensor]]] = (
            WeakKeyDictionary()
        )
        """Each DoRA adapter's row scales by layer, with a mark of the weight they belong to."""
        self.originals: dict[str, Tensor] = {}
        """What the base had where adapters are merged into it."""
        self._stacks: dict[str, StackedLayer] = {}
        self._loading: dict[str, Future[None]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        self.version = 0
        self._versions: dict[str | None, int] = {}

    @property
    def names(self) -> list[str]:
        """The adapters that are there, those that are still loading last."""
        with self.lock:
            return list(dict.fromkeys([*self.adapters, *self._loading]))

    def __contains__(self, name: object) -> bool:
        return name in self.adapters or name in self._loading

    def add(self, name: str, fitted: Fitted) -> None:
        """Add an adapter, which fits the model."""
        for path in fitted.local.touched:
            if path not in self.layers:
                self.layers[path] = bias_site(self.model.get_submodule(path))
            if change := size_change(self.layers[path]):
                raise InputError(f"{path} {change}")
        self.adapters[name], self.fitted[name] = fitted.local, fitted
        self.acting.put(name, fitted.local)

    def add_later(self, name: str, work: Callable[[], None]) -> None:
        """Call ``work``, which adds an adapter, in the background."""
        with self.lock:
            self.require_new(name)
            self._loading[name] = self._loader.submit(work)

    def remove(self, name: str) -> None:
        """Forget an adapter; raises :class:`InputError` while a gate holds it."""
        self.require_here([name])
        if self.cache.held(name):
            raise InputError(
                f"adapter '{name}' is used by a running gate; end or change the gate first"
            )
        self.cache.forget(name)
        self.training -= {name}
        self._loading.pop(name, None)
        self.acting.drop(name, self.adapters[name])
        del self.adapters[name], self.fitted[name]
        if self._masters.pop(name, None) is not None:
            del self.masters[key_of(name)]
        self.heads.keep(self.adapters)
        touched = {path for adapter in self.adapters.values() for path in adapter.touched}
        for path in self._stacks.keys() - touched:
            del self._stacks[path]
        self.changed(name)

    def prefetch(self, names: Iterable[str]) -> None:
        """Bring adapters onto the device in the background, if there is room for them."""

        def work(wanted: list[str]) -> None:
            here = [name for name in wanted if name in self.adapters]
            with suppress(InputError):  # no room just now
                self.cache.hold(here, self.training, wait=False)
                self.cache.release(here)

        self._loader.submit(work, list(names))

    def close(self) -> None:
        """Load nothing more."""
        self.closed = True
        self._loader.shutdown(wait=False)

    def require(self, names: Collection[str]) -> None:
        """Raise for names that are not there; wait for those that are loading.

        Another thread may remove an adapter right after; callers that rely on it call
        :meth:`require_here` again under the lock.
        """
        for name in names:
            if not isinstance(name, str):
                raise InputError(f"an adapter is asked for by its name, got {name!r}")
            loading = self._loading.get(name)
            if loading is not None:
                try:
                    loading.result()
                finally:
                    self._loading.pop(name, None)
        self.require_here(names)

    def require_here(self, names: Collection[str]) -> None:
        """Raise :class:`InputError` for names that are not there, and for a closed bank."""
        with self.lock:
            if self.closed:
                raise InputError(
                    "this bank is closed, because close() was called or because another "
                    "AdapterBank was made on its model; use that one"
                )
            for name in names:
                if name not in self.adapters:
                    known = ", ".join(itertools.islice(self.adapters, SHOWN)) or "none"
                    raise InputError(f"no adapter '{name}' in the bank; it has {known}")

    def require_new(self, name: str) -> None:
        """Raise :class:`InputError` for what is no name, or is taken."""
        self.require_here(())
        if not isinstance(name, str) or not name.isprintable():
            raise InputError(f"an adapter's name is printable text, got {name!r}")
        if name in self:
            raise InputError(
                f"the bank already has an adapter '{name}'; choose another name, or remove it first"
            )

    # What changed

    def changed(self, name: str | None = None) -> None:
        """Invalidate what was derived from an adapter, or from all."""
        with self.lock:
            self._versions[name] = self._versions.get(name, 0) + 1
            self.version += 1

    def versions(self, names: Iterable[str]) -> tuple[int, ...]:
        """A value that changes when one of these adapters does."""
        return tuple(self._versions.get(name, 0) for name in (None, *sorted(names)))

    def now(self, name: str) -> Adapter:
        """An adapter as it is now, under the model's layer paths."""
        if name in self._masters:
            return self._masters[name].snapshot()
        return self.adapters[name]

    def under_own_paths(self, name: str) -> Adapter:
        """An adapter as it is now, under the paths that it came with, by which it is written."""
        fitted = self.fitted[name]
        adapter = fitted.restored(self.now(name))
        if not fitted.additions:
            return adapter
        known = with_base(self.model, adapter.additions, fitted.additions, self.originals)
        return replace(adapter, additions=known)

    def for_saving(self, name: str) -> Adapter:
        """The same with the base's name, a fingerprint of its layers, and where it came from."""
        adapter, fitted = self.under_own_paths(name), self.fitted[name]
        config = copy.deepcopy(adapter.config)
        config.base_model_name_or_path = (
            getattr(self.model, "name_or_path", None) or config.base_model_name_or_path
        )
        # While adapters are merged, the weights are not the base's.
        whole = len(fitted.paths) == len(adapter.factors) and not self.originals
        mark = fingerprint_layers(self.model, fitted.paths) if whole else adapter.base_sha256
        return replace(adapter, config=config, base_sha256=mark, made=fitted.made(adapter))

    def masters_of(self, name: str) -> Masters:
        """An adapter's float32 masters, made where there are none.

        Raises :class:`InputError` for an adapter that is more than factors and heads.
        """
        if name not in self._masters:
            adapter = self.adapters[name]
            grouped = any(kind.groups > 1 for kind in adapter.kinds.values())
            if adapter.magnitudes or adapter.additions or grouped:
                what, needed = (
                    ("is a DoRA adapter", "gradients through the lengths of its weights' rows")
                    if adapter.magnitudes
                    else ("brings biases or tokens", "float32 masters of them beside the factors")
                    if adapter.additions
                    else ("changes grouped convolutions", "factors that keep to their blocks")
                )
                raise InputError(
                    f"'{name}' {what}, which the bank runs and does not train (it would need "
                    f"{needed}); train it with PEFT, or make a plain LoRA adapter with create()"
                )
            devices = {path: device_of(self.layers[path]) for path in adapter.factors}
            places = {path: self.model.get_submodule(path) for path in adapter.heads}
            self._masters[name] = Masters(adapter, devices, places).requires_grad_(False)
            self.masters[key_of(name)] = self._masters[name]
        return self._masters[name]

    def train_only(self, names: Collection[str]) -> None:
        """Let these adapters train and freeze every other."""
        changed = self.training.symmetric_difference(names)
        self.training = frozenset(names)
        for name in changed:
            self.masters_of(name).requires_grad_(name in names)
            self._take_over_masters(name)

    def take_over_changes(self, names: Iterable[str]) -> None:
        """Update frozen adapters from their masters, which the user may have changed."""
        with self.lock:
            for name in names:
                if name in self.training or name not in self._masters:
                    continue
                if not self.masters_of(name).equals(self.adapters[name]):
                    self._take_over_masters(name)

    def _take_over_masters(self, name: str) -> None:
        self.adapters[name] = self.masters_of(name).snapshot()
        self.cache.forget(name)
        self.heads.forget(name)
        if self.cache.held(name):  # freed inside of a gate that uses it
            self.cache.hold([name], self.training)
            self.cache.release([name])
        self.changed(name)

    # Factors, layer by layer

    def restrict(self, entries: Sequence[Terms], path: str) -> list[Terms]:
        """A gate's entries without the adapters that do not touch a layer."""
        return self.acting.at(path).restrict(entries)

    def original(self, path: str, parameter: str) -> Tensor | None:
        """What a module's parameter was before adapters were merged, where it is another now."""
        return self.originals.get(f"{path}.{parameter}" if parameter == "bias" else path)

    def stack(self, path: str, names: Collection[str], like: Tensor, atoms: bool = False) -> Stack:
        """A layer's stacked factors, or atoms, where ``like`` is; those of the names are in it."""
        with self.lock, outside_inference():
            stacks = self._stacked(path)
            for name in stacks.lacks(names):  # another thread lets it train, or adds it anew
                stacks.put(name, self._factors(name, path))
            return stacks.get(like, names, atoms)

    def stacked_type(self, path: str) -> torch.dtype:
        """The float type of a layer's stack."""
        with self.lock, outside_inference():
            return self._stacked(path).dtype

    def master_factors(self, name: str, path: str) -> Factors:
        """The factors of an adapter that trains, through which gradients reach its masters."""
        factors = self.masters_of(name).factors(path)
        return factors._replace(scale=factors.scale * multiplier(self.layers[path].module))

    def _factors(self, name: str, path: str) -> Factors:
        """A layer's factors, with what an embedding multiplies its rows with in their scale."""
        factors = self.adapters[name].factors[path]
        return factors._replace(scale=factors.scale * multiplier(self.layers[path].module))

    def _stacked(self, path: str) -> StackedLayer:
        """A layer's stacks, made where there are none."""
        if path not in self._stacks:
            site = self.layers[path]
            # What computes in a wider type than its weight's is seen when it is first used.
            plain = site.weight.is_floating_point() and site.weight.dtype.itemsize > 1
            dtype = site.weight.dtype if plain else torch.bfloat16
            self._stacks[path] = StackedLayer(
                site.in_features, site.out_features, dtype, device_of(site)
            )
        return self._stacks[path]

    @torch.inference_mode(False)  # what is stacked for one pass serves all, training among them
    def _stack_up(self, name: str) -> None:
        for path in self.adapters[name].factors:
            self._stacked(path).put(name, self._factors(name, path))
        self.changed(name)

    def _unstack(self, name: str) -> None:
        self.heads.forget(name)
        for path in self.adapters[name].factors:
            self._stacks[path].drop(name)
        self.changed(name)


def outside_inference() -> AbstractContextManager[Any]:
    """Tensors made in inference mode could not be used in training; entering takes time."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
