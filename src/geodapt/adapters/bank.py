"""Many LoRA adapters on one frozen base."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import finalize

from torch import nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.compatibility import Fitted, fit_adapter
from geodapt.adapters.execution.gate_checks import check_terms
from geodapt.adapters.execution.hooks import bind_checkpointing, strip
from geodapt.adapters.execution.model_view import ModelView, close_views_of
from geodapt.adapters.execution.prepared_gates import PreparedGates
from geodapt.adapters.execution.processes import AveragedGradients, refuse_tensor_parallel
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.runner import Runner
from geodapt.adapters.gates import Gate, Off, as_gate, names_of, terms
from geodapt.adapters.peft_files.kinds import BIAS, PARAMETER
from geodapt.adapters.store.adapter_store import SHOWN, AdapterStore
from geodapt.adapters.store.folding import fold, names_of_folded, unfold
from geodapt.adapters.store.masters import new_adapter
from geodapt.adapters.store.merged_weights import MergedWeights
from geodapt.blocks import block_manager
from geodapt.checks import check_count
from geodapt.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


class AdapterBank(ModelView):
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
        if not isinstance(model, nn.Module) or isinstance(model, ModelView):
            raise InputError(f"AdapterBank acts on a model itself, got a {type(model).__name__}")
        if capacity is not None:
            check_count("capacity", capacity)
        refuse_tensor_parallel(model)
        strip(model)
        close_views_of(model)
        super().__init__(model.requires_grad_(False))
        self.masters = nn.ModuleDict()
        self.store = AdapterStore(model, capacity, self.masters)
        self.runner = Runner(self.store)
        self._gates = PreparedGates(self.store)
        self._merged = MergedWeights(model)
        self._checkpointing = bind_checkpointing(model, self.bind)
        self._averaging = AveragedGradients(model, self._training_masters)
        self.open()

    # Adapters

    @property
    def names(self) -> list[str]:
        """The adapters in the bank, those that are still loading last."""
        return self.store.names

    @property
    def resident(self) -> list[str]:
        """The adapters on the device, least recently used first."""
        return self.store.cache.resident

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or another bank was made on the model."""
        return self.store.closed

    def __contains__(self, name: object) -> bool:
        return name in self.store

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
            f"{', '.join(map(repr, names[:SHOWN])) or 'none'}{more}, gate: {self.gate})"
        )

    def __getitem__(self, name: str) -> Adapter:
        """An adapter as it is now, under its own layer paths, by which it is written.

        Raises :class:`InputError` for an unknown name.
        """
        self.store.require([name])
        with self.store.lock:
            self.store.require_here([name])
            return self.store.under_own_paths(name)

    def load(self, name: str, source: str | Path, background: bool = False) -> None:
        """Read an adapter from a PEFT folder or the hub and add it under a name.

        In the background, the call returns at once; the first use of the adapter waits for it, and
        raises the error if it cannot be read.
        """
        self.store.require_new(name)
        if not background:
            self.add(name, Adapter.from_pretrained(source))
            return

        def work() -> None:
            fitted = self._fit(name, Adapter.from_pretrained(source))
            with self.store.lock:
                self.store.add(name, fitted)
                self.runner.attach(fitted.local)

        self.store.add_later(name, work)

    def prefetch(self, names: Iterable[str]) -> None:
        """Bring adapters onto the device in the background, if there is room for them."""
        self.store.prefetch(names)

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
        self.store.require_new(name)
        adapter = new_adapter(self.model, rank, alpha, targets, dropout, rslora, modules_to_save)
        self.add(name, adapter)

    def add(self, name: str, adapter: Adapter) -> None:
        """Add an adapter under a name.

        Raises :class:`InputError` when the name is taken, or when the adapter does not fit the
        base: other layers, other widths, or other weights than those that it was trained on.
        """
        self.store.require_new(name)
        if not isinstance(adapter, Adapter):
            raise InputError(
                f"'{name}' is given as a {type(adapter).__name__}, not an Adapter; to read a "
                f"folder, bank.load('{name}', folder)"
            )
        fitted = self._fit(name, adapter)
        with self.store.lock:
            self.store.require_new(name)
            self.store.add(name, fitted)
            self.runner.attach(fitted.local)

    def _fit(self, name: str, adapter: Adapter) -> Fitted:
        return fit_adapter(self.model, name, adapter, self.store.originals)

    def remove(self, name: str) -> None:
        """Forget an adapter; raises :class:`InputError` while a gate uses it."""
        self.store.require([name])
        with self.store.lock:
            self.store.remove(name)
            self._gates.forget(name)
            self.runner.keep(self.store.adapters)

    def save(self, name: str, folder: str | Path) -> None:
        """Write an adapter as a PEFT folder, with the base's name and fingerprint."""
        self.store.require([name])
        with self.store.lock:
            self.store.require_here([name])
            adapter = self.store.for_saving(name)
        adapter.save_pretrained(folder)

    def merge_into_base(self, weights: Mapping[str, float]) -> None:
        """Add a weighted sum of adapters to the base's own weights, until :meth:`unmerge`.

        Gates act on top of it. Raises :class:`InputError` for quantized or shared weights, or
        when something is merged already.
        """
        if self.store.originals:
            raise InputError("adapters are merged into the base already; call unmerge() first")
        if not isinstance(weights, Mapping):
            raise InputError(f"merge_into_base takes {{name: weight}}, got {weights!r}")
        chosen = terms(weights)  # which refuses what is no number
        weights = {name: float(weight) for name, weight in weights.items()}
        self.store.require(weights)
        with self.store.lock:
            self.store.require_here(weights)
            adapters = {name: self.store.now(name) for name in weights}
            check_terms(adapters, chosen)
            with self.runner.heads.merged(adapters.values()):
                self.store.originals = fold(self.model, adapters, weights)
            names = names_of_folded(self.model, self.store.originals).values()
            heads = self.runner.heads.merged_names()
            self._merged = MergedWeights(self.model, [*names, *heads])
            self.store.changed()

    def unmerge(self, discard: bool = False) -> None:
        """Restore the base's weights, bit by bit, as before :meth:`merge_into_base`.

        Raises :class:`InputError` where they were changed or replaced since, unless ``discard``
        says that those changes may be lost.
        """
        with self.store.lock:
            if not discard:
                self._merged.check()
            there = self._merged.there()
            unfold(self.model, self.store.originals, there)
            self.runner.heads.unmerge(there)
            self.store.originals, self._merged = {}, MergedWeights(self.model)
            self.store.changed()

    def close(self) -> None:
        """Remove the bank from the model, which is the base alone again.

        Raises :class:`InputError` while a gate runs, or while adapters are merged into the base.
        """
        active, cache = self.runner.active, self.store.cache
        with self.store.lock:
            if self.store.originals:
                raise InputError("adapters are merged into the base; call unmerge() first")
            if active.nested or cache.others_hold(active.resting.names):
                raise InputError("a gate of this bank is running; end it first")
            cache.release(active.resting.names)
            active.resting = ResolvedGate(self.store, Off())
            self.store.heads.forget()
            self.runner.close()
            self._checkpointing.remove()
            self._averaging.remove()
            self.store.close()

    # Training

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The float32 factors of one adapter, A and B layer by layer.

        If they are changed by hand while frozen, the changes act from the next :meth:`use` or
        :meth:`set`.
        """
        self.store.require([name])
        with self.store.lock:
            self.store.require_here([name])
            return list(self.store.masters_of(name).parameters())

    def train_only(self, *names: str) -> None:
        """Let these adapters train and freeze every other; without names, freeze all."""
        self.store.require(names)
        with self.store.lock:
            self.store.require_here(names)
            for row in dict.fromkeys(self.gate.entries):
                check_terms(self.store.adapters, row, names)
            self.store.train_only(names)

    def _training_masters(self) -> dict[str, list[nn.Parameter]]:
        return {name: self.parameters_of(name) for name in self.store.training}

    def train_adapters(self, mode: bool = True) -> None:
        """Switch the adapters' dropout on or off, independently of the base's.

        After ``model.eval()`` adapters train on a base without dropout.
        """
        for site in self.store.layers.values():
            if site.kind not in (PARAMETER, BIAS):
                site.module.training = mode  # which to such a layer itself means nothing

    # Gates

    @property
    def gate(self) -> Gate:
        """The gate that acts in this thread."""
        return self.runner.active.now.gate

    @property
    def probing(self) -> bool:
        """Whether the model runs only to find out which rows its layers' inputs belong to; no gate
        acts then."""
        return self.runner.active.now.looks

    def set(self, gate: Gate | str | Mapping[str, float]) -> None:
        """Use a gate from now on, wherever no :meth:`use` is active.

        An adapter's name and ``{name: weight}`` stand for a :class:`Mix`.
        """
        gate, cache = as_gate(gate), self.store.cache
        old = self.runner.active.resting
        try:
            new = self._gates.hold(gate, wait=False)
            cache.release(old.names)
        except InputError:  # no room for both at once
            self.store.require(names_of(gate))
            cache.release(old.names)
            try:
                new = self._gates.hold(gate, wait=False)
            except BaseException:
                cache.hold(old.names, self.store.training)
                raise
        self.runner.active.resting, self.runner.active.chosen = new, True

    @block_manager("bank.use")
    def use(self, gate: Gate | str | Mapping[str, float]) -> Iterator[None]:
        """Use a gate inside the ``with`` block, in this thread; afterwards the previous one again.

        An adapter's name and ``{name: weight}`` stand for a :class:`Mix`. With a ``capacity``,
        waits while other threads' gates hold all places.
        """
        active = self.runner.active
        resting = active.resting.names - self.store.training
        resolved = self._gates.hold(as_gate(gate), wait=not active.nested, beside=resting)
        try:
            with active.opened(resolved):
                yield
        finally:
            self.store.cache.release(resolved.names)

    def bind(self, function: F) -> F:
        """The function, bound to the gate that is active now, whenever and wherever it is called.

        For work that runs later or in another thread: ``checkpoint(bank.bind(block), x)``.
        Checkpointing inside transformers models is bound without it.
        """
        if self.closed:  # a block that still checkpoints through this bank
            return function
        active, rows, cache = self.runner.active, self.runner.rows, self.store.cache
        gate, call = active(), rows.call

        @wraps(function)
        def bound(*args: Any, **kwargs: Any) -> Any:
            with active.under(gate), rows.within(call):
                return function(*args, **kwargs)

        cache.hold(gate.names, self.store.training)
        finalize(bound, cache.release, gate.names).atexit = False
        return bound  # type: ignore[return-value]

    def _apply(self, fn: Callable, recurse: bool = True) -> "AdapterBank":
        super()._apply(fn, recurse)
        self.store.heads.forget()
        self.store.changed()
        return self
