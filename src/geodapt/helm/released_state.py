"""The official models' ``state_dict``: read from a file, and taken apart tensor by tensor."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError

CURVATURES = ("k", "c")  # last parts of the names of curvatures, which every layer holds again
NESTED = ("model_state_dict", "state_dict", "model")
"""Keys under which a training's checkpoint holds the weights."""


def read_released(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file: .safetensors, or what ``torch.save`` wrote (weights alone are read;
    no pickled code runs)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; expected an official checkpoint (.safetensors, .pt)")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zip files and torch, each its own
        raise InputError(
            f"{path} cannot be read as weights alone: {' '.join(str(error).split())[:200]}; where "
            "the official code runs, save plain tensors: torch.save({name: t.detach().as_subclass("
            "torch.Tensor) for name, t in model.state_dict().items()}, FILE)"
        ) from error
    for key in NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(torch.is_tensor(t) for t in found.values()):
        raise InputError(f"{path} holds no state_dict (names and tensors)")
    return found


class ReleasedState:
    """The official tensors, each taken once."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = {name.removeprefix("module."): t.detach() for name, t in state.items()}
        self.left = {name for name in self.state if name.rpartition(".")[2] not in CURVATURES}
        first = next((t for t in self.state.values() if t.is_floating_point()), None)
        if first is None:
            raise InputError("there are no weights: the state_dict has no floating point tensors")
        self.dtype = first.dtype

    def has(self, name: str) -> bool:
        return name in self.state

    def take(self, name: str) -> Tensor:
        if name not in self.state:
            raise InputError(
                f"'{name}' is missing: the weights are none of the official HELM-D or HELM-MiCE"
            )
        self.left.discard(name)
        return self.state[name].as_subclass(Tensor)

    def drop(self, name: str) -> None:
        """What has no effect here: masks and tables that are computed, constants of a softmax."""
        self.left.discard(name)

    def require_all_read(self) -> None:
        if self.left:
            raise InputError(
                f"{len(self.left)} weights have no place in a HELM, such as '{min(self.left)}'"
            )

    def count(self, name: str) -> int:
        """How many ``name.0``, ``name.1``, ... there are."""
        found = {key[len(name) + 1 :].split(".")[0] for key in self.state if key.startswith(name)}
        return len(found)

    def curvature(self, place: str, but: str | None = None) -> float:
        """``c = 1/k`` of all manifolds below a place, which must be one, except below ``but``."""
        found = {
            float(tensor)
            for name, tensor in self.state.items()
            if name.rpartition(".")[2] in CURVATURES and name.startswith(place)
            if but is None or but not in name
        }
        if len(found) > 1:
            raise InputError(
                f"{place or 'the model'} has manifolds of {len(found)} curvatures (k is "
                f"{min(found):g} to {max(found):g}); here one space holds all but the experts"
            )
        return 1 / found.pop() if found else 1.0

    def log(self, name: str, start: float) -> Float[Tensor, "1"]:
        """The log-offset from ``start`` of a learned positive scalar."""
        value = self.take(name).double().reshape(1)
        if not value > 0:
            raise InputError(
                f"'{name}' is {value.item():g}; such a scalar is positive here (a share of a "
                "residual, or a temperature), so this model cannot be held"
            )
        return torch.log(value / start).to(self.dtype)

    def points(self, name: str, c: float) -> Tensor:
        """Space components of stored points ``[t, x]``, whose time must be theirs."""
        t, x = self.take(name).split([1, self.state[name].shape[-1] - 1], dim=-1)
        expected = (x.double().square().sum(-1, keepdim=True) + 1 / c).sqrt()
        if not torch.allclose(t.double(), expected, rtol=1e-2, atol=1e-4):
            raise InputError(f"'{name}' holds rows that are no points of curvature -{c:g}")
        return x

    def linear(self, name: str, rows: Tensor | None = None) -> dict[str, Tensor]:
        """A linear layer of points ``[t, x]``, its rows in another order."""
        weight, bias = self.take(f"{name}.weight"), self.take(f"{name}.bias")
        if rows is not None:
            weight, bias = weight[rows], bias[rows]
        return {"weight": weight[:, 1:], "time_weight": weight[:, 0], "bias": bias}

    def of_heads(self, name: str, heads: int) -> dict[str, Tensor]:
        """A linear layer of the heads' points side by side, ``[t, x]`` each."""
        weight = self.take(f"{name}.weight").unflatten(1, (heads, -1))
        times, space = weight[..., 0], weight[..., 1:].flatten(1)
        return {"weight": space, "time_weight": times, "bias": self.take(f"{name}.bias")}
