"""The closest matrix of a given rank: to the weight itself, or to what it does to its inputs.

Weighted by the inputs' second moments ``S = E[x x^T] = R R^T``, the expected squared error of the
outputs is ``E |(W - W') x|^2 = |(W - W') R|_F^2``. By Eckart and Young (1936) it is least, for
rank r, where ``W' R`` is the truncated SVD of ``W R``, so ``W' = U_r U_r^T W`` with the leading
left singular vectors of ``W R``; the error is the sum of the other ``d_i^2``. With ``R = I`` this
is the plain truncated SVD. (SVD-LLM, Wang et al. 2024, section 3.1, writes ``W' = U_r d_r V_r^T
R^-1``, the same matrix.)
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DAMPING = 1e-4
"""Share of the mean moment that is added to every input, so that none has a weight of zero."""


class Whitening:
    """The error norm: weighted by the inputs' second moments, else plain Frobenius."""

    def __init__(self, moments: Float[Tensor, "in in"] | None = None) -> None:
        self.root: Tensor | None = None
        if moments is not None:
            S = moments.double()
            floor = DAMPING * S.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
            self.root = torch.linalg.cholesky(S + floor * torch.eye(len(S), dtype=S.dtype))

    def __call__(self, W: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """``W R``, in W's own float type, in float32 at least."""
        W = W.to(torch.promote_types(W.dtype, torch.float32))
        return W if self.root is None else W @ self.root.to(W)

    def energy(self, W: Float[Tensor, "out in"]) -> float:
        """``E |W x|^2``, or without moments ``|W|_F^2``."""
        return self(W).square().sum(dtype=torch.float64).item()


class SvdFactors(NamedTuple):
    """``B A`` with orthonormal columns of B."""

    A: Float[Tensor, "rank in"]
    B: Float[Tensor, "out rank"]


def truncated_svd(W: Float[Tensor, "out in"], rank: int, whitening: Whitening) -> SvdFactors:
    """The factors of the closest matrix of a rank, in float64.

    The singular vectors are eigenvectors of the Gram matrix of the smaller side, which takes a
    fraction of the time of an SVD; what the squaring loses is below what 16-bit factors show.
    """
    M = whitening(W)
    out_features, in_features = M.shape
    if out_features <= in_features:
        U = torch.linalg.eigh((M @ M.T).double()).eigenvectors[:, -rank:].flip(1)
    else:
        V = torch.linalg.eigh((M.T @ M).double()).eigenvectors[:, -rank:].flip(1)
        U = torch.linalg.qr(
            M.double() @ V
        ).Q  # orthonormal also where a singular value is nearly zero
    return SvdFactors(U.T @ W.double(), U)


def lost(W: Float[Tensor, "out in"], whitening: Whitening) -> Float[Tensor, " ranks"]:
    """What the closest matrix of rank 0, 1, ... min(out, in) loses: the tail sums of ``d^2``."""
    M = whitening(W)
    gram = M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M
    squares = torch.linalg.eigvalsh(gram.double()).clamp(min=0)  # rising
    return torch.cat([squares.new_zeros(1), squares.cumsum(0)]).flip(0)
