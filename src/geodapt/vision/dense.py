"""Patch features of a CLIP or SigLIP in the space of its texts: what stands where in a picture.

**CLIP.** In the last layer every patch takes its own value instead of what it attends to, so that
it stays where it is (Zhou et al. 2022, "Extract free dense labels from CLIP", section 3.2)::

    y = out_proj(v_proj(norm1(x))) + r,    f = projection(norm(y + mlp(norm2(y))))

with the residual r: the class token's state for every patch, as CAT-Seg and HyperCLIP have it
(``class``), the patch's own (``patch``), or nothing (``none``).

**SigLIP** pools by one probe that attends to all patches. A patch's feature is what the pooling
would give if the probe attended to that patch alone::

    y = out_proj(v_proj(norm(x))),         f = y + mlp(norm(y))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.vision.towers import ImageTower, image_tower

Residual = Literal["class", "patch", "none"]


@dataclass(frozen=True)
class DenseFeatures:
    """Features of each patch, from the top left to the bottom right."""

    features: Float[Tensor, "n d rows columns"]
    """Unit vectors along ``d``, to be compared with unit vectors of texts."""
    hidden: list[Float[Tensor, "n width rows columns"]]
    """The patches' states after the layers that were asked for."""


def dense_features(
    model: Any,
    pixels: Float[Tensor, "n 3 height width"],
    residual: Residual | None = None,
    layers: Sequence[int] = (),
) -> DenseFeatures:
    """Features of normalised pictures (:meth:`Clip.normalise`) of any size that patches divide.

    Position embeddings are interpolated where the size is not the model's own. ``residual`` is
    CLIP's, ``class`` where it is None; SigLIP has none. ``layers`` (1 is the first) are those whose
    states are returned as well. Gradients reach the model and prompts that are on.

    Raises :class:`InputError` for a size that patches do not divide, a residual for a SigLIP and a
    layer that the model has not.
    """
    tower = image_tower(model)
    rows, columns = _grid(tower, pixels)
    if tower.head is not None and residual is not None:
        raise InputError(
            f"residual '{residual}' is for CLIP; the features of a {type(model).__name__} come "
            "from its pooling head, which has no residual"
        )
    if residual not in (None, *get_args(Residual)):
        raise InputError(
            f"there is no residual {residual!r:.60}; give one of {', '.join(get_args(Residual))}"
        )
    for number in layers:
        if not 1 <= number <= len(tower.layers):
            raise InputError(f"layer {number} does not exist: there are {len(tower.layers)}")
    first = int(tower.class_token)
    states = tower.norm_before(_embedded(tower, pixels, (rows, columns)))
    hidden = {}
    body = tower.layers[:-1] if tower.class_token else tower.layers
    for depth, layer in enumerate(body, 1):
        states = layer(states, attention_mask=None)
        hidden[depth] = states[:, first : first + rows * columns]
    if tower.class_token and len(tower.layers) in layers:
        last = tower.layers[-1](states, attention_mask=None)
        hidden[len(tower.layers)] = last[:, first : first + rows * columns]

    def as_map(tokens: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n width rows columns"]:
        return tokens.transpose(1, 2).unflatten(2, (rows, columns))

    values = (
        _last_values(tower, states[:, : first + rows * columns], residual or "class")
        if tower.class_token
        else _pooled_values(tower, tower.norm_after(states))
    )
    unit = nn.functional.normalize(values.float(), dim=-1)
    return DenseFeatures(as_map(unit), [as_map(hidden[number]) for number in layers])


def _last_values(
    tower: ImageTower, states: Float[Tensor, "n tokens width"], residual: Residual
) -> Float[Tensor, "n patches d"]:
    layer: Any = tower.layers[-1]
    patches = states[:, 1:]
    kept = {"class": states[:, :1], "patch": patches, "none": 0.0}[residual]
    attention = layer.self_attn
    # The projections are called as modules, so that adapters on them act.
    values = attention.out_proj(attention.v_proj(layer.layer_norm1(patches))) + kept
    values = values + layer.mlp(layer.layer_norm2(values))
    return tower.projection(tower.norm_after(values))


def _pooled_values(
    tower: ImageTower, states: Float[Tensor, "n patches width"]
) -> Float[Tensor, "n patches width"]:
    head: Any = tower.head
    if head is None:
        raise InputError("this SigLIP has no pooling head that could place its patches among texts")
    attention: nn.MultiheadAttention = head.attention
    _, _, value = attention.in_proj_weight.chunk(3)
    _, _, bias = attention.in_proj_bias.chunk(3)
    values = attention.out_proj(nn.functional.linear(states, value, bias))
    return values + head.mlp(head.layernorm(values))


def _grid(tower: ImageTower, pixels: Tensor) -> tuple[int, int]:
    if pixels.dim() != 4 or pixels.shape[1] != 3 or not len(pixels):
        raise InputError(
            f"pixels have shape {tuple(pixels.shape)}; expected (n, 3, height, width), n from 1"
        )
    height, width = pixels.shape[2:]
    if height % tower.patch or width % tower.patch or not height or not width:
        raise InputError(
            f"pictures of {width} x {height} pixels do not divide into patches of {tower.patch}; "
            f"resize them to multiples of {tower.patch}"
        )
    return height // tower.patch, width // tower.patch


def _embedded(tower: ImageTower, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    if not tower.flexible:
        own = pixels.shape[2:] == (tower.side, tower.side)
        return tower.embeddings(pixels, interpolate_pos_encoding=not own)
    # As SigLIP 2's processor cuts them: a patch's pixels row by row, its channels last.
    shapes = torch.tensor([grid] * len(pixels), device=pixels.device)
    cut = pixels.unflatten(3, (grid[1], tower.patch)).unflatten(2, (grid[0], tower.patch))
    return tower.embeddings(cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2), shapes)
