"""Do the modules that an adapter brings trained in full belong on this base?"""

from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.absent_parts import fit_paths
from geodapt.adapters.base_model.naming import Naming, tower
from geodapt.adapters.base_model.sites import check_one_place
from geodapt.adapters.peft_files import model_class
from geodapt.adapters.peft_files.saved_modules import Head, find_modules, holder_of
from geodapt.errors import InputError


def fit_heads(model: nn.Module, name: str, adapter: Adapter, naming: Naming) -> dict[str, str]:
    """The model's path of each module that the adapter brings trained in full."""
    modules = dict(model.named_modules(remove_duplicate=False))
    heads = fit_paths(model, name, naming, adapter.heads, "brings its own {} (modules_to_save)")
    for head, path in heads.items():
        check_head(name, head, modules[path], adapter.heads[head])
        touched = next((own for own in adapter.factors if holder_of(own, [head])), None)
        if touched:
            raise InputError(
                f"adapter '{name}' brings {head} trained in full (modules_to_save) and factors for "
                f"{touched} beside it; train one of them, not both"
            )
    check_one_place(model, name, {path: modules[path] for path in heads.values()})
    wanted = find_modules(model, adapter.config.modules_to_save or (), naming.to_adapter)
    missing = [path for path in wanted if not holder_of(path, adapter.heads)]
    if not model_class.has_task(adapter.config, model):
        missing = [path for path in missing if tower(path)]
    if missing and adapter.config.modules_to_save:
        raise InputError(
            f"adapter '{name}' has no tensors for {missing[0]}, which its configuration says was "
            "trained in full (modules_to_save); save or download it again"
        )
    return heads


def check_head(name: str, path: str, module: nn.Module, head: Head) -> None:
    """Raises :class:`InputError` when a head is not one for a module."""
    ours = module.state_dict()
    if ours.keys() != head.keys():
        key = min(ours.keys() ^ head.keys())
        raise InputError(
            f"adapter '{name}' brings its own {path} (modules_to_save) "
            + (f"without {key}, which the base's" if key in ours else f"with {key}, which no")
            + f" {type(module).__name__} has; was it trained on another model?"
        )
    for key, tensor in head.items():
        if ours[key].shape != tensor.shape:
            raise InputError(
                f"adapter '{name}' brings its own {path} (modules_to_save) with a {key} of shape "
                f"{tuple(tensor.shape)}, the base's is {tuple(ours[key].shape)}; load the base "
                "with as many labels or tokens as the adapter was trained with"
            )
        if type(ours[key]) is not Tensor or ours[key].is_floating_point() != (
            tensor.is_floating_point()
        ):
            raise InputError(
                f"adapter '{name}' brings its own {path} (modules_to_save), and the base's is "
                "quantized; load the base with that module as it is (modules_to_not_convert)"
            )
