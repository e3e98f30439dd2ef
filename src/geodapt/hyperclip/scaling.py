"""One block-diagonal matrix ``S = I + D`` beside a frozen weight, in three equal forms.

HyperCLIP maps the rows ``z`` of a frozen weight ``W (out, d)`` into the Poincare ball, multiplies
them by ``S = diag(S_1, ..., S_K)`` with Mobius matrix-vector products, and maps back:
``W'_i = log0(S (x) exp0(W_i))``. With Ganea's product ``S (x) x = exp0(S log0(x))`` they cancel,
and ``W' = W S^T`` for every curvature. So a layer may compute any of

- activation form: ``y = W (h S) + b``, for rows ``h`` of activations, ``h S = h + h D``;
- weight form: ``y = (W + W D^T) h + b``;
- Mobius form: ``y = log0(S (x) exp0(W)) h + b``, kept for comparison (:func:`mobius_scaled`).

``D`` is stored, not ``S``: it starts at zero, where the layer is exactly the frozen one, weight
decay draws it to the identity, and bfloat16 resolves its small steps.

Source: HyperCLIP ("Understanding fine-tuning CLIP for open-vocabulary semantic segmentation in
hyperbolic space", CVPR 2025); Ganea, Becigneul & Hofmann 2018, eq. 27.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.geometry import poincare

COLUMNS_OF_TRAFFIC = 48
"""What reading and writing the activations costs in the activation form, as columns of a block: the
one measured constant of :meth:`BlockScaling.cheaper_form` (``benchmarks/hyperclip.py``)."""


class BlockScaling(nn.Module):
    """``D = S - I`` of one weight with ``width`` inputs, zero at first.

    Args:
        width: ``d``, the inputs of the weight.
        block: ``n``, the side of a block, a divisor of the width; 1 is a diagonal ``S``, the width
            itself a full one.
        shared: whether all ``K = d / n`` blocks are one.

    ``delta`` has shape ``(K, n, n)``, or ``(1, n, n)`` where shared.

    Raises :class:`InputError` for a block that does not divide the width.
    """

    def __init__(
        self,
        width: int,
        block: int = 128,
        shared: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if block < 1 or width % block:
            raise InputError(
                f"blocks of {block} do not divide a width of {width}; give one of "
                f"{', '.join(str(n) for n in range(1, width + 1) if width % n == 0)}"
            )
        self.width, self.block = width, block
        count = 1 if shared else width // block
        self.delta = nn.Parameter(torch.zeros(count, block, block, dtype=dtype, device=device))

    def extra_repr(self) -> str:
        shared = ", shared" if len(self.delta) < self.width // self.block else ""
        return f"width={self.width}, block={self.block}{shared}"

    def forward(self, h: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """``h S = h + h D`` for rows of activations, in their type; saves ``h`` and no matrix."""
        return h + self._times(h, self.delta)

    def weight(self, weight: Float[Tensor, "out d"]) -> Float[Tensor, "out d"]:
        """``W S^T = W + W D^T``, in the weight's type."""
        return weight + self._times(weight, self.delta.mT)

    def matrix(self) -> Float[Tensor, "d d"]:
        """``S`` as a dense matrix."""
        blocks = self.delta.expand(self.width // self.block, -1, -1)
        eye = torch.eye(self.width, dtype=blocks.dtype, device=blocks.device)
        return eye + torch.block_diag(*blocks)

    @torch.no_grad()
    def folded(self, weight: Float[Tensor, "out d"]) -> Float[Tensor, "out d"]:
        """``W S^T``, computed in float64 and rounded once to the weight's type."""
        wide = weight.double()
        return (wide + self._times(wide, self.delta.mT)).to(weight.dtype)

    def cheaper_form(self, tokens: int, outputs: int) -> Literal["activation", "weight"]:
        """The form with the cheaper training step for ``tokens`` rows of activations.

        Multiply-adds, forward and backward, doubled: activation ``6 T d n``; weight
        ``4 d n o + 2 T d o`` with ``o`` outputs, since it needs the gradient of the whole weight.
        Blocks are narrow, so that reading the activations costs as much as
        :data:`COLUMNS_OF_TRAFFIC` more columns.
        """
        activation = 6 * tokens * self.width * (self.block + COLUMNS_OF_TRAFFIC)
        weight = 4 * self.width * self.block * outputs + 2 * tokens * self.width * outputs
        return "weight" if weight < activation else "activation"

    def _times(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """``rows @ block_diag(blocks)``, without the zeros."""
        blocks = blocks.to(rows.dtype)
        if self.block == 1:
            return rows * (blocks.flatten() if len(blocks) > 1 else blocks.view(1))
        parts = rows.reshape(-1, self.width // self.block, self.block)
        if len(blocks) == 1:
            return (parts @ blocks[0]).view(rows.shape)
        return torch.bmm(parts.transpose(0, 1), blocks).transpose(0, 1).reshape(rows.shape)


def mobius_scaled(
    weight: Float[Tensor, "out d"], scaling: Float[Tensor, "d d"], c: float, clamps: bool = True
) -> Float[Tensor, "out d"]:
    """``log0(S (x) exp0(W_i))`` of every row of a frozen weight, equal to ``W S^T``.

    With ``clamps`` as the released code computes it, in the weight's type: points at most
    ``(1 - 1e-3) / sqrt(c)`` from the origin, arguments of tanh at most 15, of artanh at most
    ``1 - 1e-5``. The forms then differ for rows with a norm above ``artanh(0.999) / sqrt(c)``,
    3.8 at ``c = 1``. Without, by :mod:`geodapt.geometry.poincare`.

    Source: SJTU-DeepVisionLab/HyperCLIP, commit 92c00c8. There a row of zeros gets NaN gradients;
    here it gets none.
    """
    scaling = scaling.to(weight.dtype)
    if not clamps:
        return poincare.log0(poincare.mobius_matvec(scaling, poincare.exp0(weight, c), c), c)
    root = c**0.5

    def length(rows: Tensor) -> Tensor:
        return rows.norm(dim=-1, keepdim=True).clamp_min(1e-5)

    n = length(weight)
    x = (torch.tanh((root * n).clamp(max=15)) * weight / (root * n)).detach()
    image, norm = x @ scaling.mT, length(x)
    reach = length(image)
    artanh = torch.atanh((root * norm).clamp(max=1 - 1e-5))
    moved = torch.tanh((reach / norm * artanh).clamp(max=15)) * image / (reach * root)
    furthest = (1 - 1e-3) / root
    size = length(moved)
    moved = torch.where(size > furthest, moved / size * furthest, moved)
    size = length(moved)
    return torch.atanh((root * size).clamp(max=1 - 1e-5)) * moved / (root * size)
