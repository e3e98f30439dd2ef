"""The pair of small factors that an adapter has per layer."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from geodapt.adapters.peft_files.kinds import LINEAR, LayerKind, indexed


class Factors(NamedTuple):
    """One layer's update ``scale * B @ A`` (Hu et al. 2021, LoRA, section 4.1)."""

    A: Float[Tensor, "rank in_features"]
    B: Float[Tensor, "out_features rank"]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    def folded(self) -> "Factors":
        """The same update with the scale in B: where ``alpha / r`` is folded in."""
        return Factors(self.A, self.B * self.scale)

    def delta(self) -> Float[Tensor, "out_features in_features"]:
        """The full update. It is as large as the layer: for merging into it and for tests."""
        return self.scale * (self.B @ self.A)

    def norm(self) -> float:
        """Frobenius norm of the update: ``s sqrt(tr((B^T B)(A A^T)))``, from r x r matrices."""
        A, B = self.A.cpu().double(), self.B.cpu().double()
        if self.rank > min(A.shape[1], B.shape[0]):  # then the update itself is smaller
            return abs(self.scale) * torch.linalg.matrix_norm(B @ A).item()
        return abs(self.scale) * math.sqrt(max(((B.T @ B) * (A @ A.T)).sum().item(), 0.0))


def level_matrices(
    factors: Mapping[str, Factors], kinds: Mapping[str, LayerKind]
) -> dict[str, Factors]:
    """The same updates, with one rank and one scale for all matrices of a parameter.

    PEFT's files have no room for more. Lower ranks are filled up with zeros, and the scale goes
    into B where it differs.
    """
    members: dict[str, list[str]] = {}
    for path in factors:
        if kinds.get(path, LINEAR).name == "parameter":
            members.setdefault(indexed(path)[0], []).append(path)
    result = dict(factors)
    for paths in members.values():
        most = max(factors[path].rank for path in paths)
        one_scale = len({factors[path].scale for path in paths}) == 1
        for path in paths:
            A, B, scale = factors[path]
            more = most - A.shape[0]
            result[path] = factors[path]._replace(
                A=pad(A, (0, 0, 0, more)),
                B=pad(B if one_scale else B * scale, (0, more)),
                scale=scale if one_scale else 1.0,
            )
    return result
