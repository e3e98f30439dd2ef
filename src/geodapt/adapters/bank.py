"""Many LoRA adapters on one frozen base."""

import copy
import gc
import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet, finalize

import torch
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.compatibility import Fitted, fit_adapter
from geodapt.adapters.base_model.lowering import multiplier
from geodapt.adapters.base_model.sites import Site, bias_site, matrices, sites
from geodapt.adapters.base_model.targets import fingerprint_layers
from geodapt.adapters.base_model.uncalled import HANDLED, calling
from geodapt.adapters.execution import compiled
from geodapt.adapters.execution.deberta import run_by_rows, shares_input
from geodapt.adapters.execution.heads import Heads, check_terms
from geodapt.adapters.execution.hooks import Attachment, bind_checkpointing, strip
from geodapt.adapters.execution.parameters import run_owner
from geodapt.adapters.execution.replaced import ReplacedModules
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_tracking import RowTracker
from geodapt.adapters.execution.torch_layers import run_handled
from geodapt.adapters.execution.uncalled import UncalledHeads
from geodapt.adapters.gates import Gate, Mix, Off, Terms, TopAtoms, as_gate, names_of, terms
from geodapt.adapters.peft_files.additions import Addition
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import BIAS, PARAMETER
from geodapt.adapters.peft_files.saved_modules import Head, holder_of
from geodapt.adapters.store.device_cache import DeviceCache
from geodapt.adapters.store.factors import Stack, StackedLayer
from geodapt.adapters.store.folding import fold, unfold
from geodapt.adapters.store.masters import Masters, key_of, new_adapter
from geodapt.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 20
"""How many adapters a message names."""
PLANS = 8
"""How many gates stay prepared; a prepared gate may hold copies of the factors that it uses."""


class AdapterBank(nn.Module):
    """Adapters stacked layer by layer on a model that stays as it is.

    The bank freezes the base and wraps the ``forward`` of the linear layers that adapters
    touch; module types, state dict and ``save_pretrained`` of the base do not change, and
    quantized layers work as they are. A *gate* says which adapters act (:class:`Mix`,
    :class:`Route`, :class:`TopAtoms`)::

        bank = AdapterBank(model)
        bank.load("toys", "path/or/hub-id")
        with bank.use(Route(["toys", None])):
            model(**batch)

    Adapters live in host memory; those that gates use lie stacked on the device in the layer's
    own float type, at most ``capacity`` of them, the least recently used making room. Adapters
    that train keep float32 masters, which are the bank's only parameters, so that
    ``Trainer(model=bank, ...)`` trains and saves them alone.

    The gate belongs to the running thread: threads may use one model with different gates,
    while others load and remove adapters.

    A model has one bank: a second one, as when a notebook's cell runs twice, closes the first.
    """

    def __init__(self, model: nn.Module, capacity: int | None = None) -> None:
        super().__init__()
        if capacity is not None and capacity < 1:
            raise InputError(f"AdapterBank has capacity {capacity}; give at least 1, or None")
        strip(model)
        take_over(model)
        object.__setattr__(self, "model", model.requires_grad_(False))  # used, not owned
        self.lock = threading.RLock()
        self.closed = False
        self.masters = nn.ModuleDict()
        self.training_names: frozenset[str] = frozenset()
        self._adapters: dict[str, Adapter] = {}  # under the model's own layer paths
        self._fitted: dict[str, Fitted] = {}
        self._loading: dict[str, Future[None]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        places = sites(model)
        self._layers: dict[str, Site] = matrices(places)
        self._owned = {p: site for p, site in places.items() if site.kind == PARAMETER}
        self._row_scales: WeakKeyDictionary[Adapter, dict] = WeakKeyDictionary()
        self._stacks: dict[str, StackedLayer] = {}
        self._attached: dict[str, Attachment] = {}
        self._residency = DeviceCache(
            capacity, self._stack_up, self._unstack, self.lock, self._require_here
        )
        self._heads = Heads(self)
        self._plans: dict[Gate, ResolvedGate] = {}
        self._alive: WeakSet[ResolvedGate] = WeakSet()
        self._active: ContextVar[ResolvedGate | None] = ContextVar("gate", default=None)
        self._resting = ResolvedGate(self, Off())
        self._originals: dict[str, Tensor] = {}
        self._handles = [bind_checkpointing(model, self.bind)]
        self.replaced = ReplacedModules(self)
        self.rows = RowTracker(self)
        self.uncalled = UncalledHeads(self)
        compiled.banks[id(self)] = self
        # Trainer reads the signature, to know which columns the model takes.
        self.forward = wraps(model.forward)(partial(self.forward))  # type: ignore[method-assign]

    # Adapters

    @property
    def names(self) -> list[str]:
        """The adapters in the bank, those that are still loading last."""
        with self.lock:
            return list(dict.fromkeys([*self._adapters, *self._loading]))

    @property
    def resident(self) -> list[str]:
        """The adapters on the device, least recently used first."""
        return self._residency.resident

    def __contains__(self, name: object) -> bool:
        return name in self._adapters or name in self._loading

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __bool__(self) -> bool:
        return True  # an empty bank too

    def __repr__(self) -> str:
        names = self.names
        more = f", ... {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (
            f"AdapterBank({type(self.model).__name__}, adapters: "
            f"{', '.join(map(repr, names[:SHOWN])) or 'none'}{more}, "
            f"gate: {self.active_plan().gate})"
        )

    def __getitem__(self, name: str) -> Adapter:
        """An adapter as it is now, under its own layer paths, by which it is written.

        Raises :class:`InputError` for an unknown name.
        """
        self._require([name])
        with self.lock:
            self._require_here([name])
            return self._fitted[name].restored(self._local(name))

    def load(self, name: str, source: str | Path, background: bool = False) -> None:
        """Read an adapter from a PEFT folder or the hub and add it under a name.

        In the background, the call returns at once, and whoever first uses the adapter waits
        for it, and gets the error if it cannot be read.
        """
        self._require_new(name)
        if not background:
            self.add(name, Adapter.from_pretrained(source))
            return

        def work() -> None:
            fitted = fit_adapter(self.model, name, Adapter.from_pretrained(source))
            with self.lock:
                self._admit(name, fitted)

        with self.lock:
            self._require_new(name)
            self._loading[name] = self._loader.submit(work)

    def prefetch(self, names: Iterable[str]) -> None:
        """Bring adapters onto the device in the background, if there is room for them."""

        def work(wanted: list[str]) -> None:
            here = [name for name in wanted if name in self._adapters]
            with suppress(InputError):  # no room just now
                self._residency.hold(here, self.training_names, wait=False)
                self._residency.release(here)

        self._loader.submit(work, list(names))

    def create(
        self,
        name: str,
        rank: int = 16,
        alpha: float = 32,
        targets: str | Iterable[str] = "all-linear",
        dropout: float = 0.0,
        rslora: bool = False,
        modules_to_save: Iterable[str] | None = None,
    ) -> None:
        """Add a new adapter that changes nothing yet (``B = 0``), ready for :meth:`train_only`.

        ``targets`` as in :func:`geodapt.adapters.base_model.targets.choose_layers`.
        ``modules_to_save`` are names in which the paths of modules end that train in full; by
        default those that a classifier has beside its base model, as in PEFT.
        """
        self._require_new(name)
        self.add(
            name, new_adapter(self.model, rank, alpha, targets, dropout, rslora, modules_to_save)
        )

    def add(self, name: str, adapter: Adapter) -> None:
        """Add an adapter under a name.

        Raises :class:`InputError` when the name is taken, or when the adapter does not fit the
        base: other layers, other widths, or other weights than those that it was trained on.
        """
        self._require_new(name)
        fitted = fit_adapter(self.model, name, adapter)
        with self.lock:
            self._require_new(name)
            self._admit(name, fitted)

    def remove(self, name: str) -> None:
        """Forget an adapter; raises :class:`InputError` while a gate uses it."""
        self._require([name])
        with self.lock:
            self._require_here([name])
            if self._residency.held(name):
                raise InputError(
                    f"adapter '{name}' is used by a running gate; end or change the gate first"
                )
            self._residency.forget(name)
            self.training_names -= {name}
            self._loading.pop(name, None)
            del self._adapters[name], self._fitted[name]
            if key_of(name) in self.masters:
                del self.masters[key_of(name)]
            self._heads.keep(self._adapters)
            touched = {path for adapter in self._adapters.values() for path in adapter.touched}
            for path in self._stacks.keys() - touched:
                del self._stacks[path]
            around = {above for path in touched for above in above_of(path)}
            for path in self._attached.keys() - touched - around:
                self._attached.pop(path).detach()

    def save(self, name: str, folder: str | Path) -> None:
        """Write an adapter as a PEFT folder, with the base's name and fingerprint."""
        with self.lock:
            adapter, fitted = self[name], self._fitted[name]
        config = copy.deepcopy(adapter.config)
        config.base_model_name_or_path = (
            getattr(self.model, "name_or_path", None) or config.base_model_name_or_path
        )
        # While adapters are merged, the weights are not the base's.
        whole = len(fitted.paths) == len(adapter.factors) and not self._originals
        mark = fingerprint_layers(self.model, fitted.paths) if whole else adapter.base_sha256
        made = fitted.made(adapter)
        replace(adapter, config=config, base_sha256=mark, made=made).save_pretrained(folder)

    def merge_into_base(self, weights: Mapping[str, float]) -> None:
        """Add a weighted sum of adapters to the base's own weights, until :meth:`unmerge`.

        Gates act on top of it. Raises :class:`InputError` for quantized or shared weights, or
        when something is merged already.
        """
        if self._originals:
            raise InputError("adapters are merged into the base already; call unmerge() first")
        self._require(weights)
        with self.lock:
            self._require_here(weights)
            adapters = {name: self._local(name) for name in weights}
            check_terms(adapters, terms(weights))
            with self._heads.merged(adapters.values()):
                self._originals = fold(self.model, adapters, weights)
            self._renew_plans()

    def unmerge(self) -> None:
        """Give the base the very weights that it had before :meth:`merge_into_base`."""
        with self.lock:
            unfold(self.model, self._originals)
            self._heads.unmerge()
            self._originals = {}
            self._renew_plans()

    def close(self) -> None:
        """Take the bank's hands off the model, which goes on as the base alone.

        Raises :class:`InputError` while a gate runs, or while adapters are merged into the base.
        """
        with self.lock:
            if self._originals:
                raise InputError("adapters are merged into the base; call unmerge() first")
            if self._active.get() is not None or self._residency.others_hold(self._resting.names):
                raise InputError("a gate of this bank is running; end it first")
            self._residency.release(self._resting.names)
            self._resting, self.closed = ResolvedGate(self, Off()), True
            self._heads.keep({})
            for attachment in self._attached.values():
                attachment.detach()
            self._attached.clear()
            for handle in self._handles + self.rows.handles:
                handle.remove()
            self._loader.shutdown(wait=False)

    # Training

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The float32 factors of one adapter, A and B layer by layer.

        Changed by hand while they are frozen, they act from the next :meth:`use` or :meth:`set`.
        """
        self._require([name])
        with self.lock:
            self._require_here([name])
            return list(self._trainable(name).parameters())

    def train_only(self, *names: str) -> None:
        """Let these adapters train and freeze every other; without names, freeze all."""
        self._require(names)
        with self.lock:
            self._require_here(names)
            for row in dict.fromkeys(self.active_plan().gate.entries):
                check_terms(self._adapters, row, names)
            changed = self.training_names.symmetric_difference(names)
            self.training_names = frozenset(names)
            for name in changed:
                self._take_over_masters(name, self._trainable(name).requires_grad_(name in names))

    def _take_over_masters(self, name: str, masters: Masters) -> None:
        """Let gates use an adapter as its masters are now."""
        self._adapters[name] = masters.snapshot()
        self._residency.forget(name)
        self._heads.forget(name)
        if self._residency.held(name):  # freed inside of a gate that uses it
            self._residency.hold([name], self.training_names)
            self._residency.release([name])
        self._renew_plans(name)

    def train_adapters(self, mode: bool = True) -> None:
        """Let the adapters' dropout act, or not, whether or not the base's own does.

        After ``model.eval()`` adapters train on a base without noise.
        """
        for site in self._layers.values():
            if site.kind not in (PARAMETER, BIAS):
                site.module.training = mode  # which to such a layer itself means nothing

    # Gates

    def set(self, gate: Gate | str | Mapping[str, float]) -> None:
        """Use a gate from now on, wherever no :meth:`use` is active.

        An adapter's name and ``{name: weight}`` stand for a :class:`Mix`.
        """
        gate, old = as_gate(gate), self._resting
        try:
            plan = self._hold(gate, wait=False)
            self._residency.release(old.names)
        except InputError:  # no room for both at once
            self._require(names_of(gate))
            self._residency.release(old.names)
            try:
                plan = self._hold(gate, wait=False)
            except BaseException:
                self._residency.hold(old.names, self.training_names)
                raise
        self._resting = plan

    @contextmanager
    def use(self, gate: Gate | str | Mapping[str, float]) -> Iterator[None]:
        """Use a gate inside the ``with`` block, in this thread; then the one before again.

        An adapter's name and ``{name: weight}`` stand for a :class:`Mix`. With a ``capacity``,
        waits while other threads' gates hold all places.
        """
        resting = self._resting.names - self.training_names
        plan = self._hold(as_gate(gate), wait=self._active.get() is None, beside=resting)
        try:
            with self.under(plan):
                yield
        finally:
            self._residency.release(plan.names)

    def bind(self, function: F) -> F:
        """The function under the gate that is active now, whenever and wherever it is called.

        For work that runs later or in another thread: ``checkpoint(bank.bind(block), x)``.
        Checkpointing inside transformers models is bound without it.
        """
        if self.closed:  # a block that still checkpoints through this bank
            return function
        plan, call = self.active_plan(), self.rows.call

        @wraps(function)
        def bound(*args: Any, **kwargs: Any) -> Any:
            with self.under(plan), self.rows.within(call):
                return function(*args, **kwargs)

        self._residency.hold(plan.names, self.training_names)
        finalize(bound, self._residency.release, plan.names).atexit = False
        return bound  # type: ignore[return-value]

    @contextmanager
    def under(self, plan: ResolvedGate) -> Iterator[None]:
        """Make a plan the active one in this thread, for the ``with`` block."""
        token = self._active.set(plan)
        try:
            yield
        finally:
            self._active.reset(token)

    def active_plan(self) -> ResolvedGate:
        """The gate that is active in this thread, resolved."""
        return self._active.get() or self._resting

    # What plans ask

    def restrict(self, entries: Sequence[Terms], path: str) -> list[Terms]:
        """A gate's entries without the adapters that do not touch a layer."""
        found = {n for row in entries for n, _ in row if self._changes(n, path)}
        return [tuple((n, w) for n, w in row if n in found) for row in entries]

    def _changes(self, name: str, path: str) -> bool:
        adapter = self._adapters[name]
        return path in adapter.factors or path in adapter.additions

    def with_factors(self, entries: Sequence[Terms], path: str) -> list[Terms]:
        """A gate's entries without the adapters that have no factors at a layer."""
        return [
            tuple((n, w) for n, w in row if path in self._adapters[n].factors) for row in entries
        ]

    def addition(self, name: str, path: str) -> Addition | None:
        """What an adapter adds at a module beside its factors."""
        return self._adapters[name].additions.get(path)

    def original(self, path: str, parameter: str) -> Tensor | None:
        """What a module's parameter was before adapters were merged, where it is another now."""
        return self._originals.get(f"{path}.{parameter}" if parameter == "bias" else path)

    def rank_at(self, name: str, path: str) -> int:
        return self._adapters[name].factors[path].rank

    def widths(self, path: str) -> tuple[int, int]:
        """``(in_features, out_features)`` of a layer."""
        site = self._layers[path]
        return site.in_features, site.out_features

    def site(self, path: str) -> Site:
        """The weight that a layer's factors belong to."""
        return self._layers[path]

    def magnitudes_of(self, name: str) -> Mapping[str, Tensor]:
        """A DoRA adapter's magnitudes by layer; none for another adapter."""
        return self._adapters[name].magnitudes

    def row_scales_of(self, name: str) -> dict[str, tuple[Tensor, Tensor]]:
        """Where a DoRA adapter's scales are kept by layer, with a mark of the weight."""
        return self._row_scales.setdefault(self._adapters[name], {})

    def parameter(self, path: str) -> Site:
        """The site of a parameter that its module uses by itself."""
        return self._owned[path]

    def factors_of(self, name: str, path: str) -> Factors:
        """One layer's factors as they were loaded."""
        return self._adapters[name].factors[path]

    def dropout_of(self, name: str) -> float:
        return self._adapters[name].config.lora_dropout

    def heads_of(self, name: str) -> Mapping[str, Head]:
        """The modules that an adapter brings trained in full."""
        return self._adapters[name].heads

    def master_head(self, name: str, path: str) -> dict[str, Tensor]:
        return self._trainable(name).head(path)

    def adapted_within(self, path: str) -> list[str]:
        """The adapted layers inside of a module."""
        return [each for each in self._watched() if path in ("", *above_of(each))]

    def layers_in(self, module: nn.Module) -> dict[str, nn.Module]:
        """The adapted layers that a module holds."""
        parts = set(module.modules())
        found = {path: self._layers[path].module for path in self._watched()}
        return {path: layer for path, layer in found.items() if layer in parts}

    def wrapped(self) -> frozenset[str]:
        """The adapted layers around which another library lies, or that it took from the bank."""
        return frozenset(p for p, each in list(self._attached.items()) if not each.outermost)

    def adapted_modules(self) -> dict[str, nn.Module]:
        """The modules that adapters change or bring, by path."""
        return {p: each.module for p, each in [*self._attached.items(), *self._heads.attached()]}

    def acts_at(self, plan: ResolvedGate, path: str) -> bool:
        """Whether a gate changes a module, one of its parameters, or puts a head there."""
        touched = {p for name in plan.names for p in self._adapters[name].touched}
        return any(path in self.heads_of(name) for name in plan.names) or any(
            self.changes(plan, p) for p in touched if path in (p, parent_of(p))
        )

    def changes(self, plan: ResolvedGate, path: str) -> bool:
        """Whether a gate changes a layer: an adapter acts there that trains or is not zero."""
        names = {n for row in self.restrict(plan.gate.entries, path) for n, _ in row}
        return any(
            n in self.training_names
            or self.addition(n, path) is not None
            or self.factors_of(n, path).B.any()
            for n in names
        )

    def touches(self, path: str) -> bool:
        """Whether adapters change something inside of a module."""
        return any(holder_of(p, [path]) for p in self._attached) or self._heads.within(path)

    def masters_of(self, name: str, path: str) -> tuple[Tensor, Tensor, float]:
        A, B, scale = self._trainable(name).factors(path)
        return A, B, scale * multiplier(self._layers[path].module)

    def stack(self, path: str, names: Collection[str], like: Tensor, atoms: bool = False) -> Stack:
        """A layer's stacked factors, or atoms, where ``like`` is; those of the names are in it."""
        with self.lock, torch.inference_mode(False):
            stacks = self._stacks[path]
            for name in names:
                if name not in stacks:  # another thread lets it train meanwhile
                    stacks.put(name, self._scaled(name, path))
            return stacks.get(like, names, atoms)

    # The model, seen through the bank

    def forward(self, *args: Any, labels: Tensor | None = None, **kwargs: Any) -> Any:
        """The model's own forward under the active gate."""
        if labels is not None:  # named here because Trainer looks for it in the class
            kwargs["labels"] = labels
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the bank does not have, the model has: ``config``, ``generate``, ``device``, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "model" not in self.__dict__:
                raise
            return getattr(self.__dict__["model"], name)

    def train(self, mode: bool = True) -> "AdapterBank":
        self.model.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> "AdapterBank":
        self.model._apply(fn)
        self._heads.forget()
        self._renew_plans()
        return super()._apply(fn, recurse)

    # Inside

    def _hold(self, gate: Gate, wait: bool, beside: frozenset[str] = frozenset()) -> ResolvedGate:
        """The gate's plan, its adapters on the device."""
        if isinstance(gate, TopAtoms) and gate.of is None:
            gate = TopAtoms(gate.keep, Mix(dict.fromkeys(self.names, 1.0)), gate.per)
        names = names_of(gate)
        self._require(names)
        for row in dict.fromkeys(gate.entries):
            check_terms(self._adapters, row, self.training_names)
        with self.lock:  # masters may have been changed by hand while they were frozen
            for name in names - self.training_names:
                if key_of(name) in self.masters:
                    masters = self._trainable(name)
                    if not masters.equals(self._adapters[name]):
                        self._take_over_masters(name, masters)
        self._residency.hold(names, self.training_names, wait, beside)
        try:
            with self.lock:
                plan = self._plans.pop(gate, None) or ResolvedGate(self, gate)
                self._plans[gate] = plan  # most recently used last
                self._alive.add(plan)
                while len(self._plans) > PLANS:
                    self._plans.pop(next(iter(self._plans)))
        except BaseException:
            self._residency.release(names)
            raise
        return plan

    def _local(self, name: str) -> Adapter:
        """An adapter as it is now, under the model's layer paths."""
        if key_of(name) in self.masters:
            return self._trainable(name).snapshot()
        return self._adapters[name]

    def _admit(self, name: str, fitted: Fitted) -> None:
        self._adapters[name], self._fitted[name] = fitted.local, fitted
        self._heads.attach(fitted.local)
        for path in fitted.local.touched:
            if path not in self._layers:
                self._layers[path] = bias_site(self.model.get_submodule(path))
            above = parent_of(path)
            parameter = self._layers[path].kind == PARAMETER
            if (above if parameter else path) in self._attached:
                continue
            module = self._layers[path].module
            self.rows.forget()
            if parameter:
                paths = [each for each in self._owned if parent_of(each) == above]
                self._attached[above] = Attachment(module, partial(self._run_owner, paths))
                continue
            self._attached[path] = Attachment(module, partial(self._run, path))
            if above not in self._attached and shares_input(self.model.get_submodule(above)):
                block = self.model.get_submodule(above)
                self._attached[above] = Attachment(block, partial(run_by_rows, self, above))
            for above in above_of(path):
                block = self.model.get_submodule(above)
                if above not in self._attached and isinstance(block, HANDLED):
                    self._attached[above] = Attachment(block, partial(run_handled, self, above))

    def _watched(self) -> list[str]:
        return [path for path in list(self._attached) if path in self._layers]

    def _run(
        self, path: str, layer: nn.Module, base: Callable, x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if args or kwargs:  # what a layer reads beside its input, as a Lorentz layer its time
            base = partial(_with, base, args, kwargs)
        if torch.compiler.is_compiling():
            return self._run_compiled(path, layer, base, x)
        plan = self._active.get() or self._resting
        if not self.rows.watching:
            return plan.run(path, layer, base, x)
        self.rows.called(path)
        with calling():
            return plan.run(path, layer, base, x)

    def _run_owner(
        self, paths: Sequence[str], module: nn.Module, base: Callable, *args: Any, **kwargs: Any
    ) -> Any:
        return run_owner(self.active_plan(), paths, module, base, *args, **kwargs)

    def _run_compiled(self, path: str, layer: nn.Module, base: Callable, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # factors that train are no inputs of the graph
            torch._dynamo.graph_break()
            self.rows.compiled(path)
            return self.active_plan().run(path, layer, base, x)
        y = base(x)
        torch.ops.geodapt.add_update(y, x, id(self), path)
        return y

    def _trainable(self, name: str) -> Masters:
        key = key_of(name)
        if key not in self.masters:
            adapter = self._adapters[name]
            if adapter.magnitudes or adapter.additions:
                what = "is a DoRA adapter" if adapter.magnitudes else "brings biases or tokens"
                raise InputError(
                    f"'{name}' {what}, which the bank runs and does not train; train it with "
                    "PEFT, or make a plain LoRA adapter with create()"
                )
            devices = {path: device_of(self._layers[path]) for path in adapter.factors}
            places = {path: self.model.get_submodule(path) for path in adapter.heads}
            self.masters[key] = Masters(adapter, devices, places).requires_grad_(False)
        return self.masters[key]  # type: ignore[return-value]

    @torch.inference_mode(False)  # what is stacked for one pass serves all, training among them
    def _stack_up(self, name: str) -> None:
        for path in self._adapters[name].factors:
            if path not in self._stacks:
                site = self._layers[path]
                # What computes in a wider type than its weight's is seen when it is first used.
                plain = site.weight.is_floating_point() and site.weight.dtype.itemsize > 1
                dtype = site.weight.dtype if plain else torch.bfloat16
                self._stacks[path] = StackedLayer(*self.widths(path), dtype, device_of(site))
            self._stacks[path].put(name, self._scaled(name, path))
        self._renew_plans(name)

    def _scaled(self, name: str, path: str) -> Factors:
        """A layer's factors with what an embedding multiplies its rows with."""
        factors = self._adapters[name].factors[path]
        return factors._replace(scale=factors.scale * multiplier(self._layers[path].module))

    def _unstack(self, name: str) -> None:
        self._heads.forget(name)
        for path in self._adapters[name].factors:
            self._stacks[path].drop(name)
        self._renew_plans(name)

    def _renew_plans(self, name: str | None = None) -> None:
        """Let plans, all or those that hold an adapter's factors, take the factors anew."""
        for plan in list(self._alive):
            if not plan.names <= self._adapters.keys():  # nobody can use it any more
                self._alive.discard(plan)
                self._plans.pop(plan.gate, None)
            elif name is None or name in plan.names:
                plan.reset()

    def _require(self, names: Collection[str]) -> None:
        """Raise for names that are not in the bank; wait for those that are loading.

        Another thread may remove an adapter right after: what counts on it asks
        :meth:`_require_here` again under the lock.
        """
        for name in names:
            loading = self._loading.get(name)
            if loading is not None:
                try:
                    loading.result()
                finally:
                    self._loading.pop(name, None)
        self._require_here(names)

    def _require_here(self, names: Collection[str]) -> None:
        with self.lock:
            if self.closed:
                raise InputError(
                    "this bank is closed, because it was told to or because another AdapterBank "
                    "was made on its model; use that one"
                )
            for name in names:
                if name not in self._adapters:
                    known = ", ".join(itertools.islice(self._adapters, SHOWN)) or "none"
                    raise InputError(f"no adapter '{name}' in the bank; it has {known}")

    def _require_new(self, name: str) -> None:
        self._require_here(())
        if not isinstance(name, str) or not name.isprintable():
            raise InputError(f"an adapter's name is printable text, got {name!r}")
        if name in self:
            raise InputError(
                f"the bank already has an adapter '{name}'; choose another name, or remove it first"
            )


def take_over(model: nn.Module) -> None:
    """Close the bank that a model, or a part of it, already has.

    Raises :class:`InputError` while that bank's gate runs or its adapters are merged.
    """
    parts = set(model.modules())
    for bank in list(compiled.banks.values()):
        if not bank.closed and not parts.isdisjoint(bank.model.modules()):
            gc.collect()  # checkpoints of finished passes hold their gate until then
            try:
                bank.close()
            except InputError as error:
                raise InputError(
                    f"the {type(model).__name__} already has an AdapterBank, and {error}"
                ) from None


def device_of(site: Site) -> torch.device:
    """Where a layer computes; an offloaded weight is elsewhere in the meantime."""
    device: torch.device = site.weight.device
    if device.type == "meta":
        hook = getattr(site.module, "_hf_hook", None)  # accelerate's
        execution = getattr(hook, "execution_device", None)
        return torch.device("cpu" if execution is None else execution)
    return device


def above_of(path: str) -> list[str]:
    """The paths of the modules that hold a layer, the model itself (an empty path) among them."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]


def parent_of(path: str) -> str:
    """The path of the module that holds a layer."""
    return path.rpartition(".")[0]


def _with(base: Callable, args: tuple, kwargs: Mapping[str, Any], x: Tensor) -> Tensor:
    """``base`` of x and what came with it."""
    return base(x, *args, **kwargs)
