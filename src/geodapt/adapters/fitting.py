"""Does an adapter belong on this base?"""

from torch import nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.targets import adaptable, canonical, features, fingerprint, localise
from geodapt.errors import InputError


def fit(model: nn.Module, name: str, adapter: Adapter) -> Adapter:
    """The adapter under this model's layer paths.

    Raises :class:`InputError` when the base lacks a layer that it targets, has other widths or
    other weights than those that it was trained on, when the adapter lacks factors for a layer
    that its configuration targets, or when it brings a head of its own.
    """
    if adapter.magnitudes:
        raise InputError(
            f"adapter '{name}' is a DoRA adapter (layer {next(iter(adapter.magnitudes))}), which "
            "a bank does not run yet; merge it into its base with PEFT's merge_and_unload"
        )
    layers = adaptable(model)
    paths = localise(model, adapter.factors)
    for path, (A, B, _) in adapter.factors.items():
        if path not in paths:
            raise InputError(
                f"adapter '{name}' targets {path}, which {type(model).__name__} does not "
                "have as a linear layer; was it trained on another model?"
            )
        width, out = features(layers[paths[path]])  # type: ignore[misc]
        for kind, found, wanted in (
            ("in_features", A.shape[1], width),
            ("out_features", B.shape[0], out),
        ):
            if found != wanted:
                raise InputError(
                    f"adapter '{name}' targets {path.rsplit('.', 1)[-1]} with {kind} {found}, the "
                    f"base has {wanted} (layer {path}); was it trained on another model?"
                )
    _check_complete(model, name, adapter)
    _check_heads(model, name, adapter)
    _check_base(model, name, adapter, list(paths.values()))
    return adapter.renamed(paths)


def _check_complete(model: nn.Module, name: str, adapter: Adapter) -> None:
    """Every block that has a targeted layer's siblings has the layer's factors too."""
    missing = [path for path in adapter.targeted(adaptable(model)) if path not in adapter.factors]
    # A path that the adapter knows by another prefix is not missing.
    known = {canonical(model, path) for path in adapter.factors}
    missing = [path for path in missing if canonical(model, path) not in known]
    if missing:
        raise InputError(
            f"adapter '{name}' has no factors for {missing[0]}"
            + (f" and {len(missing) - 1} more layers" if missing[1:] else "")
            + ", which its configuration targets; save or download it again"
        )


def _check_heads(model: nn.Module, name: str, adapter: Adapter) -> None:
    here = [head for head in adapter.heads if _has(model, head)]
    if here:
        raise InputError(
            f"adapter '{name}' carries its own trained {', '.join(here)} "
            "(modules_to_save), which adapters on one base cannot share; "
            "load the base without that head, or save the adapter without it"
        )


def _check_base(model: nn.Module, name: str, adapter: Adapter, paths: list[str]) -> None:
    """Another name is no other base: only another name with other weights is."""
    ours, theirs = getattr(model, "name_or_path", ""), adapter.config.base_model_name_or_path
    if not adapter.base_sha256 or (ours and ours == theirs):
        return
    mark = fingerprint(model, paths)
    if mark is not None and mark != adapter.base_sha256:
        raise InputError(
            f"adapter '{name}' was trained on '{theirs}', whose weights differ from this base's "
            f"('{ours}'); load the base that it was trained on"
        )


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
