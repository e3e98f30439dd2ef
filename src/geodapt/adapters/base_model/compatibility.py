"""Does an adapter belong on this base?"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from transformers import PreTrainedModel

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.absent_parts import absent_parts, warn_left_out
from geodapt.adapters.base_model.additions_fit import fit_additions
from geodapt.adapters.base_model.conversion import current
from geodapt.adapters.base_model.head_compatibility import fit_heads
from geodapt.adapters.base_model.lowering import check_lowering
from geodapt.adapters.base_model.naming import (
    Naming,
    find_naming,
    same_place,
    tower,
    under_model_names,
)
from geodapt.adapters.base_model.sites import Site, check_one_place, matrices, sites
from geodapt.adapters.base_model.targets import fingerprint_layers
from geodapt.adapters.peft_files import model_class
from geodapt.adapters.peft_files.factor_checks import balance_factors
from geodapt.adapters.peft_files.kinds import (
    LINEAR,
    PARAMETER,
    describe_kind,
    indexed,
    module_of,
)
from geodapt.errors import InputError

_marks: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Fitted:
    """An adapter under a model's own layer paths, and as it was given."""

    local: Adapter
    """With the model's paths; without what the model has no part for."""
    source: Adapter
    paths: dict[str, str]
    """The model's path by the adapter's own, for each layer that both have."""
    heads: dict[str, str]
    """The same for the modules that the adapter brings trained in full."""
    additions: dict[str, str]
    """The same for the modules that it brings biases or rows of tokens for."""

    def restored(self, local: Adapter) -> Adapter:
        """``local``, whose factors have changed since, under the adapter's own paths."""
        if local is self.local:
            return self.source
        factors = {
            path: local.factors[self.paths[path]] if path in self.paths else value
            for path, value in self.source.factors.items()
        }
        heads = {
            path: local.heads[self.heads[path]] if path in self.heads else head
            for path, head in self.source.heads.items()
        }
        return replace(self.source, factors=factors, heads=heads)

    def made(self, adapter: Adapter) -> Mapping[str, Any]:
        """How the adapter as it is now came from what was given, for its model card."""
        if adapter.sha256 == self.source.sha256:
            return self.source.made
        start = [{"adapter": self.source.name, "sha256": self.source.sha256}]
        return {
            **self.source.made,
            "trained": "in a bank",
            **({"from": start} if self.source.name else {}),
        }


def fit_adapter(
    model: nn.Module,
    name: str,
    adapter: Adapter,
    originals: Mapping[str, Tensor] = MappingProxyType({}),
) -> Fitted:
    """The adapter under this model's layer paths.

    ``originals`` are what the base's weights and biases were before adapters were merged.

    What the adapter has for a part that the model is without (a decoder, a pooler, a head) is
    left out, with an :class:`InputWarning`.

    Raises :class:`InputError` when the base lacks a layer that it targets, has other widths or
    other weights than those that it was trained on, when the adapter lacks factors for a layer
    that its configuration targets, or when a head of its own is not one for this base.
    """
    adapter = current(model, name, adapter)
    _check_family(model, name, adapter)
    layers = matrices(sites(model))
    shapes = {path: (f.A.shape[1], f.B.shape[0]) for path, f in adapter.factors.items()}
    naming = find_naming(model, shapes, model_class.trained_on(adapter.config), f"adapter '{name}'")
    here = {path: naming.to_model(path) for path in adapter.factors}
    paths = {path: local for path, local in here.items() if local in layers}
    _check_lacking(model, name, [path for path in here if path not in paths], paths, naming)
    _check_copies(model, name, adapter, naming)
    for path, local in paths.items():
        for kind, found, wanted in zip(
            ("in_features", "out_features"),
            shapes[path],
            (layers[local].in_features, layers[local].out_features),
            strict=True,
        ):
            if found != wanted:
                raise InputError(
                    f"adapter '{name}' targets {path.rsplit('.', 1)[-1]} with {kind} {found}, the "
                    f"base has {wanted} (layer {path}); was it trained on another model?"
                )
    _check_kinds(name, adapter, {path: layers[local] for path, local in paths.items()})
    check_one_place(
        model, name, {module_of(p, layers[p].kind): layers[p].module for p in paths.values()}
    )
    _check_complete(model, name, adapter, naming)
    heads = fit_heads(model, name, adapter, naming)
    _check_base(model, name, adapter, paths)
    # Two adapters that fit one model object belong to one base, named or not.
    more, additions, known = fit_additions(model, name, adapter, naming, originals)
    source = replace(adapter, fits=_marks.setdefault(model, uuid.uuid4().hex), additions=known)
    fitted = source.under(paths | more, heads)
    if model_class.names_class_of(adapter.config, model):
        source = under_model_names(source, naming)
        paths = {path: path for path in paths.values()}
        heads = {path: path for path in heads.values()}
        more = {path: path for path in more.values()}
    factors = {path: balance_factors(value) for path, value in fitted.factors.items()}
    acting = replace(fitted, factors=factors, additions=additions)
    return Fitted(acting, source, paths, heads, more)


def _check_family(model: nn.Module, name: str, adapter: Adapter) -> None:
    """Layers of two families may have the same names and widths, and other weights."""
    source, mapping = model_class.trained_on(adapter.config), adapter.config.auto_mapping or {}
    theirs = model_class.family(mapping.get("parent_library"))
    ours = {
        model_class.family(type(part).__module__)
        for part in model.modules()
        if isinstance(part, PreTrainedModel)
    } - {None}
    if theirs and ours and theirs not in ours and not model_class.holds_others(str(source)):
        raise InputError(
            f"adapter '{name}' was trained on a {source}, and this is a {type(model).__name__}; "
            "load the base that it was trained on"
        )


def _check_lacking(
    model: nn.Module, name: str, lacking: list[str], found: Iterable[str], naming: Naming
) -> None:
    """Only a whole part of the model may be missing, never some of its blocks."""
    if not lacking:
        return
    parts = absent_parts(model, {naming.to_model(path): path for path in lacking})
    wrong = next((path for path in lacking if parts[naming.to_model(path)] is None), None)
    if wrong is None and not any(tower(path) for path in found):
        wrong = lacking[0]
    if wrong is not None:
        if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
            raise InputError(
                f"adapter '{name}' targets {wrong}, around which PEFT has put its own layer; take "
                "PEFT's adapters off first (unload() or merge_and_unload()) and load them into "
                "the bank, or make the bank before PEFT's model"
            )
        if any(isinstance(module, OptimizedModule) for module in model.modules()):
            raise InputError(
                f"adapter '{name}' targets {wrong}, and parts of this {type(model).__name__} were "
                "put in other ones by torch.compile, so that layers have other names; make the "
                "bank on the model itself, or compile in place (part.compile())"
            )
        here = next((path for path in sites(model) if same_place(wrong, path)), None)
        raise InputError(
            f"adapter '{name}' targets {wrong}, which {type(model).__name__} does not "
            "have as a linear layer"
            + (
                f", but as {here}: was it trained with a version of transformers that named the "
                "model's parts otherwise? Rename its tensors and targets, or merge it there"
                if here
                else "; was it trained on another model?"
            )
        )
    warn_left_out(model, name, parts.values())


def _check_kinds(name: str, adapter: Adapter, places: Mapping[str, Site]) -> None:
    """Every pair of factors fits what the model has at its path, and can be added there."""
    for path, site in places.items():
        kind = adapter.kinds.get(path, LINEAR)
        if kind != site.kind:
            raise InputError(
                f"adapter '{name}' has the factors of {describe_kind(kind)} for {path}, where "
                f"the base has {describe_kind(site.kind)}; was it trained on another model?"
            )
        magnitude = adapter.magnitudes.get(path)
        if magnitude is not None and kind.groups > 1:
            raise InputError(
                f"adapter '{name}' rescales (DoRA) {path}, {describe_kind(kind)}, whose weight its "
                "factors are no update of; train it as plain LoRA"
            )
        if magnitude is not None and len(magnitude) != site.out_features:
            raise InputError(
                f"adapter '{name}' has {len(magnitude)} magnitudes for {path}, whose outputs are "
                f"{site.out_features}; was it trained on another model?"
            )
        check_lowering(site.module, path, name)


def _check_copies(model: nn.Module, name: str, adapter: Adapter, naming: Naming) -> None:
    """Check that base weights which PEFT saved beside the factors equal this base's."""
    for path, copy in adapter.copies.items():
        try:
            weight = model.get_parameter(naming.to_model(path))
        except AttributeError:
            continue  # a head that this model is without
        if weight.shape != copy.shape:
            raise InputError(
                f"adapter '{name}' was trained on a base whose {path} is {tuple(copy.shape)}, "
                f"here it is {tuple(weight.shape)}: its vocabulary was resized. Resize the base "
                "alike (resize_token_embeddings), and load the weights that it has in the adapter: "
                "model.load_state_dict(Adapter.from_pretrained(...).copies, strict=False)"
            )
        if not _alike(weight, copy):
            raise InputError(
                f"adapter '{name}' brings a {path} of its own that differs from this base's: it "
                "was resized or trained, or is of another base. If it is right, give it to the "
                "base: model.load_state_dict(Adapter.from_pretrained(...).copies, strict=False)"
            )


def _alike(weight: Tensor, copy: Tensor) -> bool:
    """Whether two tensors are the same but for the rounding of their float types."""
    if not weight.is_floating_point() or weight.device.type == "meta":
        return True  # nothing to compare
    coarsest = max(torch.finfo(weight.dtype).eps, torch.finfo(copy.dtype).eps)
    one, two = weight.detach().float(), copy.to(weight.device).float()
    return torch.allclose(one, two, rtol=2 * coarsest, atol=1e-30)


def _check_complete(model: nn.Module, name: str, adapter: Adapter, naming: Naming) -> None:
    """Every layer that the configuration targets has factors.

    A layer of a part that the training model may have lacked is no sign of a loss: a decoder where
    the adapter has factors for an encoder only, or a pooler, which is optional even within one
    class.
    """
    kinds = {naming.to_adapter(path): site.kind for path, site in sites(model).items()}
    layers = [path for path, kind in kinds.items() if kind != PARAMETER]
    parameters = [path for path, kind in kinds.items() if kind == PARAMETER]
    known = {indexed(path)[0] for path in adapter.factors}
    missing = [path for path in adapter.targeted(layers, parameters) if path not in known]
    if not model_class.has_task(adapter.config, model):
        towers = {tower(path) for path in adapter.factors}
        same = model_class.trained_on(adapter.config) == type(model).__name__
        missing = [p for p in missing if tower(p) and (same or tower(p) in towers)]
    if missing:
        raise InputError(
            f"adapter '{name}' has no factors for {missing[0]}"
            + (f" and {len(missing) - 1} more layers" if missing[1:] else "")
            + ", which its configuration targets; save or download it again"
        )


def _check_base(model: nn.Module, name: str, adapter: Adapter, paths: dict[str, str]) -> None:
    """A different name alone is fine; refuse only if the weights differ too."""
    ours, theirs = getattr(model, "name_or_path", ""), adapter.config.base_model_name_or_path
    if not adapter.base_sha256 or len(paths) < len(adapter.factors) or (ours and ours == theirs):
        return
    for headless in (True, False):  # by the names that the layers had where it was saved
        mark = fingerprint_layers(model, paths, headless)
        if mark is None or mark == adapter.base_sha256:
            return
    raise InputError(
        f"adapter '{name}' was trained on '{theirs}', whose weights differ from this base's "
        f"('{ours}'); load the base that it was trained on"
    )
