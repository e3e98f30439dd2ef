"""The modules of a model that a bank reaches into."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from geodapt.adapters.base_model.sites import Site
from geodapt.adapters.execution.hooks import Attachment
from geodapt.adapters.peft_files.saved_modules import holder_of


class AttachedModules:
    """Wrapped modules by path: adapted layers, blocks around them, and heads."""

    def __init__(self, model: nn.Module, layers: Mapping[str, Site]) -> None:
        """``layers`` are all that adapters may touch."""
        self.model, self.layers = model, layers
        self._modules: dict[str, Attachment] = {}
        self._heads: dict[str, Attachment] = {}
        self.version = 0
        """Changes with every module that is added or taken off."""

    def __contains__(self, path: str) -> bool:
        return path in self._modules

    def add(self, path: str, module: nn.Module, run: Callable[..., Any]) -> None:
        """Let ``run(module, base, ...)`` compute the output of a layer or block."""
        self._modules[path] = Attachment(module, run)
        self.version += 1

    def add_head(self, path: str, run: Callable[..., Any]) -> None:
        """The same for a module that adapters bring, which may be an adapted layer too."""
        if path not in self._heads:
            self._heads[path] = Attachment(self.model.get_submodule(path), run)
            self.version += 1

    def keep(self, paths: Iterable[str], heads: Iterable[str]) -> None:
        """Take the wrappers off all other modules, and off all other heads."""
        for kept, attached in ((set(paths), self._modules), (set(heads), self._heads)):
            for path in attached.keys() - kept:
                attached.pop(path).detach()
                self.version += 1

    def modules(self) -> dict[str, nn.Module]:
        """Every wrapped module by path."""
        both = [*list(self._modules.items()), *list(self._heads.items())]
        return {path: each.module for path, each in both}

    def heads_in(self, module: nn.Module) -> dict[str, nn.Module]:
        """The modules that adapters bring, of those that a module holds."""
        return _inside(module, {p: each.module for p, each in list(self._heads.items())})

    def layers_in(self, module: nn.Module) -> dict[str, nn.Module]:
        """The adapted layers that a module holds."""
        return _inside(module, {path: self.layers[path].module for path in self._adapted()})

    def layers_below(self, path: str) -> list[str]:
        """The adapted layers below a path."""
        return [each for each in self._adapted() if path in ("", *paths_above(each))]

    def touches(self, path: str) -> bool:
        """Whether adapters change, or bring, a part of a module or what is in it."""
        if any(holder_of(each, [path]) for each in list(self._modules)):
            return True
        return any(each != path and holder_of(each, [path]) for each in list(self._heads))

    def wrapped(self) -> frozenset[str]:
        """The modules around which another library lies, or that it took from the bank."""
        return frozenset(p for p, each in list(self._modules.items()) if not each.outermost)

    def _adapted(self) -> list[str]:
        return [path for path in list(self._modules) if path in self.layers]


def paths_above(path: str) -> list[str]:
    """The paths of the modules that hold a layer, the model itself (an empty path) among them."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]


def path_above(path: str) -> str:
    """The path of the module that holds a layer."""
    return path.rpartition(".")[0]


def _inside(module: nn.Module, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    parts = set(module.modules())
    return {path: each for path, each in modules.items() if each in parts}
