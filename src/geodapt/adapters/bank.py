"""Many LoRA adapters on one frozen base."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.gates import Gate, Off
from geodapt.adapters.plan import Plan
from geodapt.adapters.stack import Stack
from geodapt.adapters.targets import adaptable, choose, features, fingerprint, localise
from geodapt.adapters.trainable import Trainable, fresh
from geodapt.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


class AdapterBank(nn.Module):
    """Adapters stacked layer by layer on a model that stays as it is.

    The bank freezes the base and hooks the linear layers that adapters touch; module types,
    state dict and ``save_pretrained`` of the base do not change, and quantized layers work as
    they are. A *gate* says which adapters act (:class:`Mix`, :class:`Route`, ...)::

        bank = AdapterBank(model)
        bank.load("toys", "path/or/hub-id")
        with bank.use(Route(["toys", None])):
            model(**batch)

    Frozen adapters are stored once in the layer's own type. Adapters that train keep float32
    masters, which are the bank's only parameters: ``Trainer(model=bank, ...)`` trains and saves
    them alone. The gate belongs to the running thread; threads may use one model with
    different gates.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "model", model.requires_grad_(False))  # used, not owned
        self.lock = threading.RLock()
        self.masters = nn.ModuleDict()
        self._adapters: dict[str, Adapter] = {}
        self._layers: dict[str, nn.Module] = adaptable(model)
        self._stacks: dict[str, Stack] = {}
        self._hooks: dict[str, Any] = {}
        self._plans: dict[Gate, Plan] = {}
        self._alive: WeakSet[Plan] = WeakSet()
        self._default: Gate = Off()
        self._active: ContextVar[Plan | None] = ContextVar("gate", default=None)
        self.training_names: frozenset[str] = frozenset()
        # Trainer reads the signature, to know which columns the model takes.
        self.forward = wraps(model.forward)(partial(self.forward))  # type: ignore[method-assign]

    # Adapters

    @property
    def names(self) -> list[str]:
        """The adapters in the bank, in the order they came."""
        return list(self._adapters)

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def __len__(self) -> int:
        return len(self._adapters)

    def __getitem__(self, name: str) -> Adapter:
        """An adapter as it is now; raises :class:`InputError` for an unknown name."""
        self._require([name])
        if quote_name(name) in self.masters:
            return self._trainable(name).snapshot()
        return self._adapters[name]

    def load(self, name: str, source: str | Path) -> Adapter:
        """Read an adapter from a PEFT folder or the hub and add it under a name."""
        self._require_new(name)
        self.add(name, Adapter.from_pretrained(source))
        return self[name]

    def create(
        self,
        name: str,
        rank: int = 16,
        alpha: float = 32,
        targets: str | Iterable[str] = "all-linear",
        dropout: float = 0.0,
        rslora: bool = False,
    ) -> Adapter:
        """Add a new adapter that changes nothing yet (``B = 0``), ready for :meth:`train_only`.

        ``targets`` as in :func:`geodapt.adapters.targets.choose`.
        """
        self._require_new(name)
        if rank < 1:
            raise InputError(f"adapter '{name}' has rank {rank}; give at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"adapter '{name}' has dropout {dropout}; give 0 or more, below 1")
        if isinstance(targets, str):
            paths = choose(self.model, targets)
            wanted: str | list[str] = paths if targets == "all-linear" else targets
        else:
            wanted = list(targets)
            paths = choose(self.model, wanted)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes any number
            target_modules=wanted,
            lora_dropout=dropout,
            use_rslora=rslora,
            fan_in_fan_out=any(isinstance(self._layers[path], Conv1D) for path in paths),
        )
        shapes = {path: features(self._layers[path]) for path in paths}
        factors = dict(fresh(shapes, rank, config))  # type: ignore[arg-type]
        self.add(name, Adapter(factors, config))
        return self[name]

    def add(self, name: str, adapter: Adapter) -> None:
        """Add an adapter under a name.

        Raises :class:`InputError` when the name is taken, or when the adapter does not fit the
        base: other layers, other widths, or other weights than those that it was trained on.
        """
        self._require_new(name)
        fitted = self._fit(name, adapter)
        with self.lock:
            self._require_new(name)
            self._adapters[name] = fitted
            for path in fitted.factors:
                self._hook(path)
            self._stack_up(name)

    def remove(self, name: str) -> None:
        """Forget an adapter; raises :class:`InputError` while a gate uses it."""
        self._require([name])
        with self.lock:
            self._require_idle(name)
            self._drop_rows(name)
            del self._adapters[name]
            if quote_name(name) in self.masters:
                del self.masters[quote_name(name)]
            self.training_names -= {name}
            for path in list(self._hooks):
                if not self.names_at(path):
                    self._hooks.pop(path).remove()
                    self._stacks.pop(path, None)

    def save(self, name: str, folder: str | Path) -> None:
        """Write an adapter as a PEFT folder, with the base's name and fingerprint."""
        adapter = self[name]
        adapter.config.base_model_name_or_path = (
            getattr(self.model, "name_or_path", None) or adapter.config.base_model_name_or_path
        )
        mark = fingerprint(self.model, adapter.factors)
        Adapter(adapter.factors, adapter.config, mark, adapter.heads).save_pretrained(folder)

    # Training

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """The float32 factors of one adapter, A and B layer by layer."""
        self._require([name])
        return list(self._trainable(name).parameters())

    def train_only(self, *names: str) -> None:
        """Let these adapters train and freeze every other; without names, freeze all."""
        self._require(names)
        with self.lock:
            before = self.training_names
            self.training_names = frozenset(names)
            for name in names:
                self._trainable(name)
            for name in self._adapters:
                if quote_name(name) in self.masters:
                    self._trainable(name).requires_grad_(name in names)
            for name in before | set(names):
                self._drop_rows(name)
                if name not in names:
                    self._adapters[name] = self._trainable(name).snapshot()
                    self._stack_up(name)

    def _trainable(self, name: str) -> Trainable:
        key = quote_name(name)
        if key not in self.masters:
            adapter = self._adapters[name]
            devices = {path: self._layers[path].weight.device for path in adapter.factors}
            self.masters[key] = Trainable(adapter, devices).requires_grad_(False)  # type: ignore[arg-type]
        return self.masters[key]  # type: ignore[return-value]

    # Gates

    def set(self, gate: Gate) -> None:
        """Use a gate from now on, in every thread that is not inside :meth:`use`."""
        self._require({name for terms in gate.entries for name, _ in terms})
        self._default = gate

    @contextmanager
    def use(self, gate: Gate) -> Iterator[None]:
        """Use a gate inside the ``with`` block, in this thread; then the one before again."""
        self._require({name for terms in gate.entries for name, _ in terms})
        token = self._active.set(self._plan(gate))
        try:
            yield
        finally:
            self._active.reset(token)

    def bind(self, function: F) -> F:
        """The function under the gate that is active now, whenever and wherever it is called.

        For work that runs later or in another thread: ``checkpoint(bank.bind(block), x)``.
        Checkpointing inside transformers models is bound without it.
        """
        plan = self._current()

        @wraps(function)
        def bound(*args: Any, **kwargs: Any) -> Any:
            token = self._active.set(plan)
            try:
                return function(*args, **kwargs)
            finally:
                self._active.reset(token)

        return bound  # type: ignore[return-value]

    # What plans ask

    def names_at(self, path: str) -> frozenset[str]:
        """The adapters that touch a layer."""
        return frozenset(n for n, adapter in self._adapters.items() if path in adapter.factors)

    def rank_at(self, name: str, path: str) -> int:
        return self._adapters[name].factors[path].rank

    def dropout_of(self, name: str) -> float:
        return self._adapters[name].config.lora_dropout

    def masters_of(self, name: str, path: str) -> tuple[Tensor, Tensor, float]:
        return self._trainable(name).factors(path)

    def stack(self, path: str) -> Stack:
        """The frozen adapters' stack at a layer, where the layer is."""
        stack, device = self._stacks[path], self._layers[path].weight.device
        if stack.A.device != device:
            stack.move(device)  # type: ignore[arg-type]
        return stack

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
            return getattr(self.__dict__["model"], name)

    def train(self, mode: bool = True) -> "AdapterBank":
        self.model.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> "AdapterBank":
        self.model._apply(fn)
        for plan in list(self._alive):
            plan.reset()
        return super()._apply(fn, recurse)

    # Inside

    def _plan(self, gate: Gate) -> Plan:
        plan = self._plans.get(gate)
        if plan is None:
            with self.lock:
                plan = self._plans[gate] = Plan(self, gate)
                self._alive.add(plan)
                while len(self._plans) > 8:
                    self._plans.pop(next(iter(self._plans)))
        return plan

    def _current(self) -> Plan:
        return self._active.get() or self._plan(self._default)

    def _hook(self, path: str) -> None:
        if path in self._hooks:
            return
        self._bind_checkpointing()
        layer = self._layers[path]

        def adapt(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return self._current().apply(path, args[0], output, module.training)

        self._hooks[path] = layer.register_forward_hook(adapt)

    def _bind_checkpointing(self) -> None:
        """Make transformers' gradient checkpointing recompute under the gate of the forward."""
        if "_checkpointing" in self._hooks:
            return

        def bound(original: Callable, function: Callable, *args: Any, **kwargs: Any) -> Any:
            return original(self.bind(function), *args, **kwargs)

        def before(module: nn.Module, args: Any) -> None:
            for part in module.modules():
                run = part.__dict__.get("_gradient_checkpointing_func")
                if run is not None and getattr(run, "func", None) is not bound:
                    part._gradient_checkpointing_func = partial(bound, run)

        self._hooks["_checkpointing"] = self.model.register_forward_pre_hook(before)

    def _fit(self, name: str, adapter: Adapter) -> Adapter:
        paths = localise(self.model, adapter.factors)
        for path, (A, B, _) in adapter.factors.items():
            if path not in paths:
                raise InputError(
                    f"adapter '{name}' targets {path}, which {type(self.model).__name__} does not "
                    "have as a linear layer; was it trained on another model?"
                )
            width, out = features(self._layers[paths[path]])  # type: ignore[misc]
            for kind, found, wanted in (
                ("in_features", A.shape[1], width),
                ("out_features", B.shape[0], out),
            ):
                if found != wanted:
                    raise InputError(
                        f"adapter '{name}' targets {path} with {kind} {found}, the base has "
                        f"{wanted}; was it trained on another model?"
                    )
        here = [head for head in adapter.heads if _has(self.model, head)]
        if here:
            raise InputError(
                f"adapter '{name}' carries its own trained {', '.join(here)} "
                "(modules_to_save), which cannot be shared by several adapters; "
                "load the base without that head, or save the adapter without it"
            )
        self._check_base(name, adapter, list(paths.values()))
        return adapter.renamed(paths)

    def _check_base(self, name: str, adapter: Adapter, paths: list[str]) -> None:
        ours, theirs = getattr(self.model, "name_or_path", ""), adapter.config
        if not adapter.base_sha256 or (ours and ours == theirs.base_model_name_or_path):
            return
        mark = fingerprint(self.model, paths)
        if mark is not None and mark != adapter.base_sha256:
            raise InputError(
                f"adapter '{name}' was trained on '{theirs.base_model_name_or_path}', whose weights "
                f"differ from this base's ('{ours}'); load the base that it was trained on"
            )

    def _stack_up(self, name: str) -> None:
        for path, (A, B, scale) in self._adapters[name].factors.items():
            weight = self._layers[path].weight
            if path not in self._stacks:
                dtype = weight.dtype if weight.dtype.is_floating_point else torch.bfloat16
                self._stacks[path] = Stack(A.shape[1], B.shape[0], dtype, weight.device)  # type: ignore[arg-type]
            self._stacks[path].put(name, A, B.T * scale)
        self._renew_plans(name)

    def _drop_rows(self, name: str) -> None:
        for path in self._adapters[name].factors:
            stack = self._stacks.get(path)
            if stack is not None and name in stack.spans:
                stack.drop(name)
        self._renew_plans(name)

    def _renew_plans(self, name: str) -> None:
        """Let plans that hold an adapter's factors take them anew."""
        for plan in list(self._alive):
            if name in plan.names:
                plan.reset()

    def _require(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._adapters:
                known = ", ".join(self._adapters) or "none"
                raise InputError(f"no adapter '{name}' in the bank; it has {known}")

    def _require_new(self, name: str) -> None:
        if name in self._adapters:
            raise InputError(
                f"the bank already has an adapter '{name}'; choose another name, or remove it first"
            )

    def _require_idle(self, name: str) -> None:
        running = {plan.names and name in plan.names for plan in [self._active.get()] if plan}
        if True in running or any(name in dict(terms) for terms in self._default.entries):
            raise InputError(f"adapter '{name}' is used by the running gate; change the gate first")


def quote_name(name: str) -> str:
    """A name as a module's key, which must not hold dots."""
    return quote(name, safe="").replace(".", "%2E")


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
