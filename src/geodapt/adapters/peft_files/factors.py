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

    def scaled(self, tensor: Tensor, power: int = 0) -> Tensor:
        """``scale * 2^power * tensor``: the one place where ``alpha / r`` is multiplied in.

        ``tensor`` is B, or a bias that PEFT trains on B. The power of two is for callers that
        also bring the result near 1, where two products could underflow between them.
        """
        return tensor * math.ldexp(self.scale, power)

    def folded(self) -> "Factors":
        """The same update with the scale in B."""
        return Factors(self.A, self.scaled(self.B))

    def delta(self) -> Float[Tensor, "out_features in_features"]:
        """The full update. It is as large as the layer: for merging into it and for tests."""
        return self.scaled(self.B @ self.A)

    def norm(self) -> float:
        """Frobenius norm of the update: ``|s| sqrt(tr((B^T B)(A A^T)))``, from r x r matrices."""
        A, B = self.A.cpu().double(), self.B.cpu().double()
        if self.rank > min(A.shape[1], B.shape[0]):  # then the update itself is smaller
            norm = torch.linalg.matrix_norm(B @ A)
        else:
            norm = ((B.T @ B) * (A @ A.T)).sum().clamp(min=0).sqrt()
        return self.scaled(norm).abs().item()


def level_matrices(
    factors: Mapping[str, Factors], kinds: Mapping[str, LayerKind]
) -> dict[str, Factors]:
    """The same updates, with one rank and one scale for all matrices of a parameter.

    PEFT's files have no room for more. Lower ranks are padded with zeros; where scales differ, they
    go into B.
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
            each = factors[path] if one_scale else factors[path].folded()
            more = most - each.rank
            result[path] = each._replace(A=pad(each.A, (0, 0, 0, more)), B=pad(each.B, (0, more)))
    return result
