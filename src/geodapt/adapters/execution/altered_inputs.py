"""A call's inputs again, with some of the rows changed."""

import copy
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from geodapt.adapters.execution.calls import holds_rows, main_input, named_arguments, tensors_of
from geodapt.errors import InputError, reason_of
from geodapt.models import input_embeddings

SPECIAL = re.compile(r"tok(en)?_?(id|index|idx)s?$")
"""Configuration keys of special tokens' ids."""
PLACEHOLDER = re.compile(r"(image|video|audio|vision|visual|speech|sound|media|patch)\w*token")
"""Configuration keys of placeholder tokens, for pictures or sound."""
Arguments = tuple[Sequence[Any], dict[str, Any]]
"""A call's positional arguments, and those by name."""
SEED = 0xA17E12ED
"""No seed that people use: noise equal to an input would only double it, which norms undo."""


def altered(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    rows: Collection[int],
    seed: int,
    model: nn.Module,
) -> Arguments:
    """Copies of a call's arguments, in which these rows have other tokens and other numbers.

    Special ids stay, so that the places of pictures and the number of sentences do; ``model``,
    which the module is a part of, may know them. Where pictures take the place of tokens, only
    tokens change: which row a picture belongs to is then up to the tokens. Without rows the copies
    are equal.
    """
    tensors = dict(tensors_of(module, args, kwargs))
    main = main_input(module, tensors)
    assert main is not None or not rows
    generator = torch.Generator().manual_seed(SEED + seed)
    ids = Vocabulary(module, model, tensors)
    chosen = set()
    if main is not None:
        only_ids = ids.placeholders and not tensors[main].is_floating_point()
        chosen = {
            name
            for name, tensor in tensors.items()
            if holds_rows(name, tensor, main, tensors[main].shape[0])
            and (name == main or not only_ids or "ids" in name)
        }

    def change(name: str, value: Tensor) -> Tensor:
        for row in rows if name in chosen else ():
            new = _other_numbers if value.is_floating_point() else _other_ids
            value[row] = new(value[row], ids, generator)
        return value

    return changed(module, args, kwargs, change)


def changed(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    change: Callable[[str, Tensor], Tensor],
    others: Callable[[Any], Any] = lambda value: value,
) -> Arguments:
    """Copies of a call's arguments: what ``change`` makes of a copy of each tensor, by its name.

    ``others`` does so for copies of what is no tensor and holds none that can be seen.
    """

    def new(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(name, value.detach().clone())
        if type(value) in (list, tuple):
            if "length" in name and value and all(isinstance(part, int) for part in value):
                return type(value)(change(name, torch.tensor(value, device="cpu")).tolist())
            return type(value)(new(f"{name}.{i}", part) for i, part in enumerate(value))
        if isinstance(value, Mapping):
            return _refilled(value, lambda key, part: new(f"{name}.{key}", part))
        if isinstance(value, nn.Module | type) or callable(value):
            return value
        return others(_copied(value))

    values = dict(named_arguments(module, args, kwargs))
    named = {name: new(name, value) for name, value in values.items()}
    positional = [named.pop(name) for name in list(named)[: len(args)]]
    return positional, named


class Vocabulary:
    """The ids of a model, and those among them that stay as they are."""

    def __init__(self, module: nn.Module, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        found: dict[str, list[int]] = {}
        for name in ("config", "generation_config"):
            for owner in (model, module):
                config: Any = getattr(owner, name, None)
                if hasattr(config, "to_dict"):
                    found |= dict(_ids(config.to_dict()))
        self.special = set(chain(*found.values()))
        taken = [ids for key, ids in found.items() if PLACEHOLDER.search(key)]
        ends = [ids for key, ids in found.items() if "eos" in key]
        self.placeholders, self.counted = set(chain(*taken)), set(chain(*ends))
        pads = chain(*(ids for key, ids in found.items() if key.endswith("pad_token_id")))
        self.padding = next((i for i in pads if i >= 0), None)
        size = _size(module) or max(
            (int(t.max()) + 1 for t in tensors.values() if not t.is_floating_point()), default=1
        )
        free = [i for i in range(size) if i not in self.special] or [0]
        self.free = torch.tensor(free, device="cpu")


def _ids(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[int]]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _ids(value, f"{above}{key}.")
        elif SPECIAL.search(str(key)):
            ids = value if isinstance(value, list | tuple) else [value]
            yield above + key, [i for i in ids if isinstance(i, int)]


def _size(module: nn.Module) -> int | None:
    size = getattr(input_embeddings(module), "num_embeddings", None)
    return size or getattr(getattr(module, "config", None), "vocab_size", None)


def _other_ids(
    row: Int[Tensor, "*tokens"], ids: Vocabulary, generator: torch.Generator
) -> Int[Tensor, "*tokens"]:
    """Another id in every place but those of special ones."""
    where = torch.randint(len(ids.free), row.shape, generator=generator, device="cpu")
    new, old = ids.free[where], row.cpu()
    new = torch.where(new == old, ids.free[(where + 1) % len(ids.free)], new)
    stays = torch.zeros_like(old, dtype=torch.bool)
    # A row of special ids alone, such as a decoder's first token, still has to change.
    for kept in (ids.special, ids.placeholders | ids.counted, ids.placeholders):
        stays = torch.isin(old, torch.tensor(sorted(kept), dtype=old.dtype, device="cpu"))
        if not stays.all():
            break
    return torch.where(stays, old, new.to(old.dtype)).to(row.device)


def _other_numbers(row: Tensor, ids: Vocabulary, generator: torch.Generator) -> Tensor:
    noise = torch.randn(row.shape, generator=generator, device="cpu").to(row)
    spread = row.float().std() if row.numel() > 1 else row.float().abs().max()
    return row + noise * spread.nan_to_num().clamp_min(0.1).to(row)


def _refilled(value: Mapping, change: Callable[[Any, Any], Any]) -> Any:
    new = copy.copy(value)
    for key, part in value.items():
        new[key] = change(key, part)  # type: ignore[index]
    return new


def _copied(value: Any) -> Any:
    """A copy of an argument that a call may write to, such as a cache."""
    tensors = {id(tensor): tensor for tensor in _tensors_in(value, set())}
    memo: dict[int, Any] = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    try:
        return copy.deepcopy(value, memo)  # which by itself copies no tensor that gradients reach
    except Exception as error:
        if tensors:
            raise InputError(
                f"a {type(value).__name__} with tensors cannot be copied ({reason_of(error)})"
            ) from error
        return copy.copy(value)


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen or isinstance(value, nn.Module | type):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    parts: Any = value if isinstance(value, list | tuple | set | deque) else ()
    if isinstance(value, Mapping):
        parts = value.values()
    for part in (*parts, *getattr(value, "__dict__", {}).values()):
        yield from _tensors_in(part, seen)
