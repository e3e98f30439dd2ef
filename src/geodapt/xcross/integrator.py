"""The X-Cross integrator: after a block, n domain streams read one another.

For stream m, with ``h_m`` its output and ``h^ = concat(h_1..h_n) / |concat(h_1..h_n)|``::

    z   = W_concat h^                                       in R^(2 n (n-1))
    h~_m = h_m + sum_{m' != m} ( beta z_[m'] h_m' + gamma z_[m,m'] (h_m - h_m') )

The paper feeds the raw concatenation. Its norm differs between models and layers and multiplies
the step size of every z, so that one learning rate is too high for one base and too low for the
next; with the unit vector the scale of z is the scale of ``W_concat``, on every base. ``scale``
selects between the two.

Source: X-Cross: Dynamic Integration of Language Models for Cross-Domain Sequential
Recommendation (SIGIR 2025), stages 1 to 3.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.xcross.settings import IntegratorSettings


class Integrator(nn.Module):
    """One layer's exchange between n streams of width d. It starts as the identity."""

    def __init__(self, streams: int, width: int, settings: IntegratorSettings) -> None:
        super().__init__()
        self.streams, self.settings = streams, settings
        self.kinds = 1 if settings.terms != "both" else 2
        terms = self.kinds * streams * (streams - 1)
        # Rows: all direct terms, then all interaction terms, each ordered by (m, m' != m).
        self.weight = nn.Parameter(
            torch.zeros(terms, streams * width) if settings.dynamic else torch.zeros(terms)
        )
        self.last_terms: tuple[Tensor, Tensor] | None = None
        self.keep_terms = False

    def terms(
        self, h: Float[Tensor, "n rows tokens d"]
    ) -> tuple[Float[Tensor, "rows tokens n n"], Float[Tensor, "rows tokens n n"]]:
        """``beta z_[m']`` and ``gamma z_[m,m']`` as matrices [m, m'] with a zero diagonal."""
        n, rows, tokens, d = h.shape
        wide = torch.promote_types(h.dtype, torch.float32)
        if self.settings.dynamic:
            # W h^ as a sum over streams: nothing is concatenated, and the norm divides z.
            by_stream = self.weight.view(-1, n, d).permute(1, 2, 0)
            z = torch.bmm(h.reshape(n, rows * tokens, d), by_stream.to(h.dtype))
            z = z.to(wide).sum(0)
            z = z.view(rows, tokens, -1) * self._inverse_scale(h)
        else:
            z = self.weight.to(wide).expand(rows, tokens, -1)
        z = z.view(rows, tokens, self.kinds, n * (n - 1))
        direct = self.settings.beta * self._off_diagonal(z[..., 0, :])
        interaction = self.settings.gamma * self._off_diagonal(z[..., -1, :])
        if self.settings.terms == "direct":
            return direct, torch.zeros_like(direct)
        if self.settings.terms == "interaction":
            return torch.zeros_like(interaction), interaction
        return direct, interaction

    def forward(self, h: Float[Tensor, "n rows tokens d"]) -> Float[Tensor, "n rows tokens d"]:
        """The refined streams ``h~``, in the type of ``h``; z is computed in float32."""
        direct, interaction = self.terms(h)
        if self.keep_terms:
            self.last_terms = (direct.detach(), interaction.detach())
        # h~_m = (1 + sum_m' i_mm') h_m + sum_m' (d_mm' - i_mm') h_m' : one n x n matrix per token.
        mixing = direct - interaction + torch.diag_embed(interaction.sum(-1))
        return h + torch.einsum("rtmk,krtd->mrtd", mixing.to(h.dtype), h)

    def _inverse_scale(
        self, h: Float[Tensor, "n rows tokens d"]
    ) -> Float[Tensor, "rows tokens 1"] | float:
        if self.settings.scale == "none":
            return 1.0
        if self.settings.scale == "sqrt_width":
            return (h.shape[0] * h.shape[-1]) ** -0.5
        wide = torch.promote_types(h.dtype, torch.float32)
        squares = torch.linalg.vector_norm(h, dim=-1, dtype=wide).square().sum(0)
        return squares.clamp_min(1e-12).rsqrt().unsqueeze(-1)  # a zero token has no direction

    def _off_diagonal(
        self, z: Float[Tensor, "rows tokens pairs"]
    ) -> Float[Tensor, "rows tokens n n"]:
        """Lay n (n-1) numbers around a zero diagonal."""
        n = self.streams
        # Between two diagonal entries lie n others. So the flattened matrix without its first
        # entry is n-1 rows, each of n numbers and then a zero.
        rows = nn.functional.pad(z.unflatten(-1, (n - 1, n)), (0, 1)).flatten(-2)
        return nn.functional.pad(rows, (1, 0)).unflatten(-1, (n, n))
