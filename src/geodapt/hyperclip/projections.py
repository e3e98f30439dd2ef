"""The query, key and value projections of a CLIP-like model's two towers, found by name.

CLIP, SigLIP, SigLIP 2, MetaCLIP 2, CLIPSeg, OWL-ViT and OWLv2 all call them
``text_model.encoder.layers.3.self_attn.q_proj`` and ``vision_model. ...``, some with a prefix
before the tower.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from geodapt.errors import InputError
from geodapt.hyperclip.settings import Matrix, Tower

PATTERN = re.compile(
    r"(?:^|\.)(?P<place>(?P<tower>text|vision)_model\.encoder\.layers\.(?P<layer>\d+)"
    r"\.self_attn\.(?P<matrix>q|k|v)_proj)$"
)
MATRICES: dict[str, Matrix] = {"q": "query", "k": "key", "v": "value"}
COMPARABLE = {torch.float64, torch.float32, torch.bfloat16}
"""Types whose rounding to bfloat16 is that of the float32 original."""


class Projection(NamedTuple):
    """One projection of an attention layer."""

    place: str
    """Its name from the tower on, the same in every class that wraps the towers."""
    tower: Tower
    layer: int
    matrix: Matrix
    module: nn.Linear

    @property
    def quantized(self) -> bool:
        """Whether the weight is no plain tensor of floating-point numbers."""
        weight = self.module.weight
        return type(weight) is not nn.Parameter or not weight.is_floating_point()


def projections(model: nn.Module) -> list[Projection]:
    """All query, key and value projections of a model's towers, in the model's order.

    Raises :class:`InputError` where there are none, or where one is no linear layer.
    """
    found = []
    for path, module in model.named_modules():
        match = PATTERN.search(path)
        if match is None:
            continue
        if not isinstance(module, nn.Linear):
            raise InputError(
                f"{path} is a {type(module).__module__}.{type(module).__name__}, not a linear "
                "layer; merge and unload adapters of other libraries first"
            )
        tower: Tower = "text" if match["tower"] == "text" else "image"
        found.append(
            Projection(
                match["place"], tower, int(match["layer"]), MATRICES[match["matrix"]], module
            )
        )
    if not found:
        linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
        raise InputError(
            f"a {type(model).__name__} has no layers text_model.encoder.layers.*.self_attn.q_proj "
            f"or vision_model. ..., as CLIP, SigLIP and OWL-ViT have them; its linear layers are "
            f"{', '.join(linear[:3]) or 'none'}{', ...' if len(linear) > 3 else ''}"
        )
    return found


def choose_projections(
    found: Iterable[Projection],
    matrices: Iterable[Matrix],
    towers: Iterable[Tower],
    layers: Mapping[Tower, list[int]],
) -> list[Projection]:
    """Those of the given kinds, towers and, where a tower has a list, layers.

    Raises :class:`InputError` for a tower or a layer that the model lacks.
    """
    found, matrices = list(found), set(matrices)
    chosen = []
    for tower in towers:
        own = [projection for projection in found if projection.tower == tower]
        there = sorted({projection.layer for projection in own})
        if not own:
            raise InputError(f"the model has no {tower} tower; leave '{tower}' out of the towers")
        wanted = layers.get(tower, there)
        if unknown := sorted(set(wanted) - set(there)):
            raise InputError(
                f"the {tower} tower has no layer {unknown[0]}; its layers are {there[0]} to "
                f"{there[-1]}"
            )
        chosen += [p for p in own if p.matrix in matrices and p.layer in set(wanted)]
    return chosen


def base_hash(found: Iterable[Projection]) -> str | None:
    """SHA-256 of all projections' places, shapes and weights rounded to bfloat16.

    It is one for the float32 and bfloat16 copies of a base. None where a weight cannot be compared
    across copies: float16, quantized, or offloaded.
    """
    digest = hashlib.sha256()
    for projection in sorted(found, key=lambda projection: projection.place):
        weight = projection.module.weight
        if projection.quantized or weight.dtype not in COMPARABLE or weight.is_meta:
            return None
        digest.update(f"{projection.place}{tuple(weight.shape)}".encode())
        rounded = weight.detach().float().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.uint8).numpy().data)
    return digest.hexdigest()
