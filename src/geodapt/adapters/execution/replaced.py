"""Layers that were replaced or resized after a bank was made, where no adapter would act."""

from typing import Any

from torch import nn

from geodapt.adapters.base_model.sites import size_change
from geodapt.adapters.execution.attached import AttachedModules
from geodapt.adapters.execution.hooks import is_attached
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.errors import InputError


class ReplacedModules:
    """Which of the modules that a bank adapts are no longer in its model, or have other sizes.

    Tools that quantize by exchanging layers do that, and so does code that sets a new head. A layer
    that another library wraps in its own, as PEFT does, still counts as present.
    """

    def __init__(self, attached: AttachedModules) -> None:
        self._attached = attached
        self._seen = -1
        """The version of the attached modules that was looked at."""
        self._ways: list[tuple[dict[str, Any], str, nn.Module]] = []
        """Each parent's children, a child's name and the child, from the model to the modules."""
        self._gone: frozenset[str] = frozenset()
        self._parts: frozenset[int] = frozenset()
        self._vocabulary: list[str] = []
        """Embeddings and the output's layer, which transformers resizes in place."""

    def check(self, gate: ResolvedGate, called: nn.Module) -> None:
        """Raise :class:`InputError` where a gate changes a module that is no longer there.

        ``called`` is the model, a part of it, or a copy, whose modules may be others.
        """
        if (
            self._gone
            or self._attached.version != self._seen
            or any(children.get(name) is not child for children, name, child in self._ways)
        ):
            self._look()
        if type(called) is type(self._attached.model) and id(called) not in self._parts:
            self._check_copy(gate, called)
        for path in self._vocabulary:
            change = size_change(self._attached.layers[path])
            if change and gate.acts_at(path):
                raise InputError(f"{path} {change}")
        for path in sorted(self._gone):
            if gate.acts_at(path):
                raise InputError(
                    f"{path} of {type(self._attached.model).__name__} was replaced after the bank "
                    "was made, so that an adapter would not act there; change and quantize the "
                    "model first and make a new AdapterBank"
                )

    def _check_copy(self, gate: ResolvedGate, copy: nn.Module) -> None:
        parts = dict(copy.named_modules())
        for path in self._attached.modules():
            part = parts.get(path)
            if gate.acts_at(path) and (part is None or not is_attached(part)):
                raise InputError(
                    f"this is a copy of the model, in which {path} was replaced, so that an "
                    "adapter would not act there; make an AdapterBank on the copy"
                )

    def _look(self) -> None:
        self._seen, model = self._attached.version, self._attached.model
        modules = self._attached.modules()
        paths = {id(module): path for path, module in model.named_modules()}
        self._parts = frozenset(paths)
        ways = {}
        for module in modules.values():
            parent = model
            for name in paths.get(id(module), "").split("."):
                if name:
                    child = parent._modules[name]
                    assert child is not None
                    ways[id(parent), name] = (parent._modules, name, child)
                    parent = child
        self._ways = list(ways.values())
        head = getattr(model, "get_output_embeddings", lambda: None)()
        self._vocabulary = [
            path
            for path, module in modules.items()
            if path in self._attached.layers
            and (isinstance(module, nn.Embedding) or module is head)
        ]
        self._gone = frozenset(p for p, module in modules.items() if id(module) not in paths)
