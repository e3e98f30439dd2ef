"""Where in a model an adapter may act: layers, and parameters that models use by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.peft_files.kinds import BIAS, EMBEDDING, LINEAR, PARAMETER, LayerKind
from geodapt.errors import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Site:
    """One weight of a model, as the matrices ``(out, in)`` that updates are added to."""

    module: nn.Module
    kind: LayerKind
    in_features: int
    out_features: int
    parameter: str = "weight"
    count: int | None = None
    """How many matrices a parameter holds, where it holds several."""
    transposed: bool = False
    """Whether it is stored ``(in, out)``."""

    @property
    def weight(self) -> Any:
        """The weight, which may be quantized or offloaded."""
        return getattr(self.module, self.parameter)

    def matrix(self, weight: Tensor, index: int | None = None) -> Tensor:
        """A view ``(out, in)`` of a weight of this site's shape, of one matrix among several."""
        if self.count is not None:
            weight = weight[index or 0]
        if self.kind.kernel:
            return weight.flatten(1)
        return weight.T if self.transposed else weight


def is_linear(module: nn.Module | None) -> bool:
    """Whether a module is a linear layer: also a quantized one, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear | Conv1D)


def site_of(module: nn.Module) -> Site | None:
    """A layer that PEFT can adapt, else None.

    Linear layers (quantized ones and GPT-2's Conv1D too), embeddings and convolutions.
    """
    if isinstance(module, Conv1D):
        width, out = module.weight.shape
        return Site(module, LINEAR, width, out, transposed=True)
    if isinstance(module, nn.Linear):
        return Site(module, LINEAR, module.in_features, module.out_features)
    if isinstance(module, nn.Embedding):
        rows, width = module.num_embeddings, module.embedding_dim
        return Site(module, EMBEDDING, rows, width, transposed=True)
    if isinstance(module, CONVOLUTIONS):
        kernel = tuple(module.kernel_size)
        return Site(
            module,
            LayerKind("convolution", kernel, module.groups),
            module.in_channels * prod(kernel),
            module.out_channels,
        )
    return None


def size_change(site: Site) -> str:
    """What became of a layer that has another size than when it was found, else an empty text."""
    now = site_of(site.module)
    before = site.in_features, site.out_features
    if now is None or (now.in_features, now.out_features) == before:
        return ""
    return (
        f"has {now.in_features} inputs and {now.out_features} outputs, and had {before[0]} and "
        f"{before[1]} when the bank was made; resize the model first and make a new AdapterBank"
    )


def check_one_place(model: nn.Module, name: str, modules: Mapping[str, nn.Module]) -> None:
    """Refuses modules that a model holds at several places, of which PEFT adapts the first alone.

    ``modules`` are those that adapter ``name`` changes, by path. Raises :class:`InputError`.
    """
    held: dict[int, list[str]] = {}
    for path, parent in model.named_modules():
        for child, module in parent._modules.items():
            held.setdefault(id(module), []).append(f"{path}.{child}".lstrip("."))
    for path, module in modules.items():
        places = held.get(id(module), [])
        if len(places) > 1:
            raise InputError(
                f"adapter '{name}' changes {path}, which {type(model).__name__} has at "
                f"{len(places)} places ({' and '.join(places[:2])}): PEFT adapts it at one of them "
                "alone, and here it would act at all; give the model a copy for each place "
                "(copy.deepcopy), or leave it out of the targets"
            )


def bias_site(module: nn.Module) -> Site:
    """A module that is no layer, such as a norm, of which adapters change the bias alone."""
    width = len(module.bias)  # type: ignore[arg-type]
    return Site(module, BIAS, width, width, "bias")


def parameter_site(module: nn.Module, name: str) -> Site | None:
    """A parameter that PEFT's ``target_parameters`` can name: a matrix, or several stacked.

    Stacked ones are ``(experts, out, in)``, or ``(experts, in, out)`` where the module says that
    it is transposed.
    """
    weight = module._parameters.get(name)
    if weight is None or weight.ndim not in (2, 3):
        return None
    if weight.ndim == 2:
        out, width = weight.shape
        return Site(module, PARAMETER, width, out, name)
    count, out, width = weight.shape
    transposed = bool(getattr(module, "is_transposed", False))
    if transposed:
        out, width = width, out
    return Site(module, PARAMETER, width, out, name, count, transposed)


def sites(model: nn.Module) -> dict[str, Site]:
    """Every site of a model by its path: a layer's, or a parameter's with its own name.

    Parameters of layers are found under the layer alone. Where a parameter holds several
    matrices, adapters name each with its index, see :func:`matrices`.
    """
    found = {}
    for path, module in model.named_modules():
        site = site_of(module)
        if site is not None:
            found[path] = site
            continue
        for name in module._parameters:
            parameter = parameter_site(module, name)
            if parameter is not None:
                found[f"{path}.{name}".lstrip(".")] = parameter
    return found


def matrices(found: dict[str, Site]) -> dict[str, Site]:
    """The sites by the paths that adapters' factors have: one for each matrix."""
    result = {}
    for path, site in found.items():
        if site.count is None:
            result[path] = site
        else:
            result |= dict.fromkeys((f"{path}[{i}]" for i in range(site.count)), site)
    return result
