"""Learned tokens at chosen layers of a CLIP's towers, by hooks that are registered once.

Outside :func:`prompts_on` every hook is the identity, so one frozen model serves any number of
learners, also in several threads: what is on is kept in a ContextVar, which each thread has of its
own. Gradients reach the prompts; gradient checkpointing and autocast work as without them. A model
may be compiled before or after; its graph is split at the hooks, so ``fullgraph=True`` is refused.

A text tower takes prompts in place of tokens, at the positions after the start token or at places
of each row's own: the texts must hold as many placeholder tokens there. At layer 0 they replace
token embeddings, to which positions are added, at later layers the states that enter the layer. An
image tower takes them as more tokens after the patches, without positions; CLIP's first norm acts
on them. Sources: CoOp (Zhou et al. 2022) for the first layer, MaPLe (Khattak et al. 2023), section
3.2, for the others.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from geodapt.blocks import block_manager
from geodapt.errors import InputError
from geodapt.vision.towers import image_tower, text_tower

LayerPrompts = Sequence[Tensor | None]
"""Per layer from the first: (n, width) for all rows or (rows, n, width); None leaves in place what
came out of the layer before. Layers beyond the list have none."""


@dataclass(frozen=True)
class Prompts:
    """What the two towers are given while prompts are on."""

    text: LayerPrompts = ()
    image: LayerPrompts = ()
    token_embeddings: Tensor | None = None
    """(rows, tokens, width) in place of the embeddings of all tokens; before ``text``."""
    text_places: Tensor | None = None
    """(rows, n) the positions of ``text`` in each row; none: those after the start token."""

    @property
    def by_row(self) -> bool:
        """Whether each row of texts has prompts of its own."""
        given = [values for values in self.text if values is not None]
        whole = (self.token_embeddings, self.text_places)
        return any(each is not None for each in whole) or any(each.dim() == 3 for each in given)


_active: ContextVar[dict[int, Prompts]] = ContextVar("prompts of each model", default={})  # noqa: B039
_hooked: WeakSet[nn.Module] = WeakSet()
_registering = Lock()
Change = Callable[[Prompts, Tensor], Tensor]


@block_manager("prompts_on")
def prompts_on(model: Any, prompts: Prompts) -> Iterator[None]:
    """The model's towers with prompts, in this thread and until the block ends.

    Raises :class:`InputError` for prompts of another width, for more layers than a tower has, for
    more prompts than a text has positions, and for image prompts that come and go between layers.
    """
    _check(model, prompts)
    with _registering:
        if model not in _hooked:
            _register(model)
            _hooked.add(model)
            if "torch._dynamo" in sys.modules:
                # What was compiled before has no guard on hooks and would run on without prompts.
                torch.compiler.reset()
    token = _active.set({**_active.get(), id(model): prompts})
    try:
        yield
    finally:
        _active.reset(token)


def active_prompts(model: Any) -> Prompts:
    """What is on for a model in this thread; no prompts where nothing is."""
    return _active.get().get(id(model)) or Prompts()


def _count(layers: LayerPrompts) -> int:
    return next((values.shape[-2] for values in layers if values is not None), 0)


def _check(model: Any, prompts: Prompts) -> None:
    text, image = text_tower(model), image_tower(model)
    for name, tower, layers in (("text", text, prompts.text), ("image", image, prompts.image)):
        if len(layers) > len(tower.layers):
            raise InputError(
                f"prompts for {len(layers)} {name} layers, but the {name} tower has "
                f"{len(tower.layers)}; lower the depth"
            )
        for number, values in enumerate(layers):
            if values is None:
                continue
            if values.dim() not in (2, 3) or values.shape[-1] != tower.width:
                raise InputError(
                    f"{name} prompts of layer {number} have shape {tuple(values.shape)}; expected "
                    f"(prompts, {tower.width}) or (rows, prompts, {tower.width})"
                )
            if values.shape[-2] != _count(layers):
                raise InputError(
                    f"{name} prompts of layer {number} are {values.shape[-2]}, those of the first "
                    f"layer {_count(layers)}; give every layer as many"
                )
    if _count(prompts.text) + text.start >= text.positions:
        raise InputError(
            f"{_count(prompts.text)} text prompts leave no room for a text in "
            f"{text.positions} positions"
        )
    if any(values is not None for values in prompts.image):
        if prompts.image[0] is None:
            raise InputError(
                "image prompts are appended at layer 0 and replaced at later ones; give layer 0"
            )
        if image.flexible:
            raise InputError(
                f"a {type(model).__name__} with patches of flexible number takes no image prompts; "
                "take a SigLIP 2 of fixed size"
            )


def _register(model: Any) -> None:
    """Add the hooks to both towers; each looks up the prompts of this model."""
    text, image = text_tower(model), image_tower(model)
    key = id(model)

    def embed_tokens(prompts: Prompts, output: Tensor) -> Tensor:
        given = prompts.token_embeddings
        if given is not None and given.shape != output.shape:
            raise InputError(
                f"token embeddings have shape {tuple(given.shape)}, but the tokens have "
                f"{tuple(output.shape)}"
            )
        output = output if given is None else given.to(output.dtype)
        return _in_text(prompts, output, 0)

    def embed_pixels(prompts: Prompts, output: Tensor) -> Tensor:
        values = _at(prompts.image, 0)
        return output if values is None else torch.cat([output, _rows(values, output)], dim=1)

    def enter_text(number: int, prompts: Prompts, states: Tensor) -> Tensor:
        return _in_text(prompts, states, number)

    def _in_text(prompts: Prompts, states: Tensor, number: int) -> Tensor:
        values = _at(prompts.text, number)
        if values is None or prompts.text_places is None:
            return _replaced(states, values, text.start)
        return _scattered(states, values, prompts.text_places)

    def enter_image(number: int, prompts: Prompts, states: Tensor) -> Tensor:
        values = _at(prompts.image, number)
        return _replaced(states, values, states.shape[1] - _count(prompts.image))

    def leave_image(prompts: Prompts, states: Tensor) -> Tensor:
        return states[:, : states.shape[1] - _count(prompts.image)]

    _on_output(text.embedding, key, embed_tokens)
    _on_output(image.embeddings, key, embed_pixels)
    for enter, tower in ((enter_text, text), (enter_image, image)):
        for number, layer in enumerate(tower.layers):
            if number:
                _on_input(layer, key, partial(enter, number))
    if not image.class_token:  # SigLIP's pooling would attend to them
        _on_input(image.norm_after, key, leave_image)


def _on_output(module: nn.Module, key: int, change: Change) -> None:
    def hook(called: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        prompts = _active.get().get(key)
        # A deep copy of the model keeps this hook, but is another model.
        return change(prompts, output) if prompts and called is module else None

    module.register_forward_hook(hook)


def _on_input(module: nn.Module, key: int, change: Change) -> None:
    def hook(called: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict] | None:
        prompts = _active.get().get(key)
        if prompts is None or called is not module:
            return None
        if inputs:
            return (change(prompts, inputs[0]), *inputs[1:]), named
        return inputs, {**named, "hidden_states": change(prompts, named["hidden_states"])}

    module.register_forward_pre_hook(hook, with_kwargs=True)


def _at(layers: LayerPrompts, number: int) -> Tensor | None:
    return layers[number] if number < len(layers) else None


def _rows(values: Tensor, states: Tensor) -> Tensor:
    """Prompts as (rows, n, width), in the states' type."""
    if values.dim() == 2:
        values = values.expand(len(states), -1, -1)
    if len(values) != len(states):
        raise InputError(
            f"prompts are given for {len(values)} rows, but {len(states)} pass the model; give "
            "(prompts, width) for the same ones in every row"
        )
    return values.to(states.dtype)


def _scattered(states: Tensor, values: Tensor, places: Tensor) -> Tensor:
    values = _rows(values, states)
    if places.shape != values.shape[:2]:
        raise InputError(
            f"text_places have shape {tuple(places.shape)}; expected a position for each of "
            f"{values.shape[1]} prompts in each of {values.shape[0]} rows"
        )
    return states.scatter(1, places.unsqueeze(-1).expand_as(values), values)


def _replaced(states: Tensor, values: Tensor | None, start: int) -> Tensor:
    if values is None:
        return states
    values = _rows(values, states)
    end = start + values.shape[1]
    if end > states.shape[1]:
        raise InputError(
            f"{values.shape[1]} prompts do not fit in texts of {states.shape[1]} tokens; put as "
            "many placeholder tokens after the start token"
        )
    return torch.cat([states[:, :start], values, states[:, end:]], dim=1)
