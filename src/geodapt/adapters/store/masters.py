"""New adapters, and the float32 masters of an adapter that trains."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import quote

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.sites import Site, matrices, sites
from geodapt.adapters.base_model.targets import choose_layers, choose_parameters
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import EMBEDDING, LINEAR
from geodapt.adapters.peft_files.layer_rules import LayerRules
from geodapt.adapters.peft_files.model_class import class_of, task_heads
from geodapt.adapters.peft_files.saved_modules import find_modules, holder_of
from geodapt.checks import check_count, number
from geodapt.errors import InputError


class Masters(nn.Module):
    """An adapter's factors and heads as float32 parameters, on the devices of their layers."""

    def __init__(
        self,
        adapter: Adapter,
        devices: Mapping[str, torch.device],
        modules: Mapping[str, nn.Module],
    ) -> None:
        """``modules`` are those of the base that the adapter's heads stand for."""
        super().__init__()
        if len(adapter.heads) > 1 and adapter.config.ensure_weight_tying:
            raise InputError(
                f"the adapter ties {' and '.join(adapter.heads)} (ensure_weight_tying), which do "
                "not train as one here; train it with PEFT, or without that setting"
            )
        self.adapter = adapter
        self._keys: dict[tuple[str, str], str] = {}
        for path, (A, B, _) in adapter.factors.items():
            for side, tensor in (("A", A), ("B", B)):
                master = tensor.detach().to(devices[path], torch.float32, copy=True)
                self.register_parameter(self._name(path, side), nn.Parameter(master))
        for path, head in adapter.heads.items():
            buffers = dict(modules[path].named_buffers())
            device = next(iter(modules[path].state_dict().values())).device
            for name, tensor in head.items():
                dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
                where = "cpu" if device.type == "meta" else device  # offloaded
                master = tensor.detach().to(where, dtype, copy=True)
                if name in buffers:
                    self.register_buffer(self._name(path, name), master)
                else:
                    self.register_parameter(self._name(path, name), nn.Parameter(master))

    def _name(self, path: str, part: str) -> str:
        """A new parameter's name, of a factor (``A``, ``B``) or of a head's tensor."""
        self._keys[path, part] = key = f"{quoted(path)}:{quoted(part)}"
        return key

    def head(self, path: str) -> dict[str, Tensor]:
        """The tensors of a module that trains in full, by their names in it."""
        names = self.adapter.heads[path]
        return {name: getattr(self, self._keys[path, name]) for name in names}

    def factors(self, path: str) -> Factors:
        """The masters of one layer."""
        A, B = (self._parameters[self._keys[path, side]] for side in "AB")
        assert A is not None
        assert B is not None
        return Factors(A, B, self.adapter.factors[path].scale)

    @torch.no_grad()
    def equals(self, adapter: Adapter) -> bool:
        """Whether an adapter, on the CPU, holds these very numbers.

        A tensor's version does not show it: writing to ``.data`` leaves the version as it is.
        """
        for path, (A, B, scale) in adapter.factors.items():
            mine = self.factors(path)
            if scale != mine.scale or not (_equal(A, mine.A) and _equal(B, mine.B)):
                return False
        for path, head in adapter.heads.items():
            masters = self.head(path)
            if not all(_equal(tensor, masters[name]) for name, tensor in head.items()):
                return False
        return True

    def snapshot(self) -> Adapter:
        """The adapter as it is now, on the CPU."""
        factors = {}
        for path in self.adapter.factors:
            A, B, scale = self.factors(path)
            factors[path] = Factors(A.detach().cpu().clone(), B.detach().cpu().clone(), scale)
        heads = {
            path: {name: t.detach().cpu().clone() for name, t in self.head(path).items()}
            for path in self.adapter.heads
        }
        return replace(self.adapter, factors=factors, heads=heads)


def new_adapter(
    model: nn.Module,
    rank: int,
    alpha: float,
    targets: str | Iterable[str],
    dropout: float = 0.0,
    rslora: bool = False,
    modules_to_save: Iterable[str] | None = None,
) -> Adapter:
    """A new adapter for a model by PEFT's rule: A uniform within ``1 / sqrt(in)``, B zero.

    For an embedding, A is zero and B normal, so that it changes nothing yet either.
    ``modules_to_save`` end the paths of modules that train in full, beginning with the base's
    values; None is a classifier's own head, which no base model has.

    Raises :class:`InputError` for a rank or dropout out of range, targets or modules that match
    nothing, and a module that is quantized or offloaded.
    """
    check_count("rank", rank)
    if not math.isfinite(number("alpha", alpha, "a finite number")):
        raise InputError(f"alpha is {alpha}; expected a finite number")
    if not 0 <= number("dropout", dropout, "0 or more, below 1") < 1:
        raise InputError(f"dropout is {dropout}; expected 0 or more, below 1")
    wanted = targets if isinstance(targets, str) else _names("targets", targets)
    saved = task_heads(model)
    if modules_to_save is not None:
        saved = _names("modules_to_save", modules_to_save)
    heads = {path: _head(model, path) for path in find_modules(model, saved)}
    if saved and not heads:
        raise InputError(f"modules_to_save {saved} match no module of {type(model).__name__}")
    config = LoraConfig(
        r=int(rank),
        lora_alpha=alpha if isinstance(alpha, int) else float(alpha),  # type: ignore[arg-type]  # PEFT takes any number
        target_modules=wanted,
        lora_dropout=float(dropout),
        use_rslora=rslora,
        modules_to_save=saved or None,
        **class_of(model, heads),
    )
    paths = choose_parameters(model, config)
    if config.target_modules:
        layers = choose_layers(model, config.target_modules)
        layers = [path for path in layers if not holder_of(path, heads)]
        if wanted == "all-linear":
            config.target_modules = layers
        paths = layers + paths
    if not paths:
        raise InputError(f"targets {targets!r} match only modules that train in full ({saved})")
    places = sites(model)
    config.fan_in_fan_out = any(isinstance(places[path].module, Conv1D) for path in paths)
    rules, factors, kinds = LayerRules(config), {}, {}
    for path in paths:
        site, wide = places[path], rules.rank(path)
        for part in matrices({path: site}):
            factors[part] = _fresh(site, wide, rules.scale(path, wide))
            if site.kind != LINEAR:
                kinds[part] = site.kind
    if config.target_parameters and dropout:
        raise InputError(
            f"dropout {dropout} cannot act on {config.target_parameters[0]}, a parameter that its "
            "module uses by itself; give dropout 0, or targets without it"
        )
    return Adapter(factors, config, heads=heads, kinds=kinds)


def _fresh(site: Site, rank: int, scale: float) -> Factors:
    width, out = site.in_features, site.out_features
    if site.kind == EMBEDDING:  # one-hot vectors: the A of a token that is not seen never trains
        return Factors(
            torch.zeros(rank, width, device="cpu"), torch.randn(out, rank, device="cpu"), scale
        )
    A = torch.empty(rank, width, device="cpu").uniform_(-(width**-0.5), width**-0.5)
    return Factors(A, torch.zeros(out, rank, device="cpu"), scale)


def _names(what: str, given: Iterable[str]) -> list[str]:
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputError(f"{what} is {given!r:.60}; expected a list of layers' names")
    return names


def _head(model: nn.Module, path: str) -> dict[str, Tensor]:
    """A module's own tensors, to begin with."""
    tensors = model.get_submodule(path).state_dict()
    for name, tensor in tensors.items():
        if type(tensor) is not Tensor or tensor.device.type == "meta":
            what = "offloaded" if tensor.device.type == "meta" else "quantized"
            raise InputError(
                f"{path} cannot train in full (modules_to_save), since its {name} is {what}; "
                "load the base with that module as it is"
            )
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _equal(tensor: Tensor, master: Tensor) -> bool:
    return torch.equal(tensor, master if master.device == tensor.device else master.cpu())


def key_of(name: str) -> str:
    """An adapter's name as a module's: without dots, and unlike any attribute of a module."""
    return f":{quoted(name)}"


def quoted(name: str) -> str:
    """A name without dots, which modules and parameters must not have in theirs."""
    return quote(name, safe="").replace(".", "%2E")
