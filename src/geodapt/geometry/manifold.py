"""Riemannian optimizers: geoopt's, on parameters stored by their space components.

    weight = manifold.parameter(torch.randn(1000, 64) / 8, c=1.0)
    geoopt.optim.RiemannianAdam([weight], lr=1e-2)

Each step equals that of geoopt's own ``Lorentz`` parameter with one dimension more. Needs the
extra ``manifold``.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.extras import missing
from geodapt.geometry import _domain, lorentz
from geodapt.geometry._rows import combine, dot, dots, square
from geodapt.geometry._whole import one_pass

try:
    import geoopt
except ImportError as error:  # an extra: everything else here works without it
    raise missing(
        "Riemannian optimizers come from geoopt, which is not installed", "manifold"
    ) from error


class Hyperboloid(geoopt.Manifold):
    """The hyperboloid of curvature ``-c`` as geoopt sees a manifold, in space components."""

    name = "Hyperboloid"
    ndim = 1
    reversible = False

    def __init__(self, c: float | Tensor = 1.0) -> None:
        super().__init__()
        _domain.curvature(c)
        self.register_buffer("c", torch.as_tensor(c, dtype=torch.float64))

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        """``u.v - (x.u) (x.v) / t(x)^2``: the Minkowski product of tangent vectors."""
        c = self.c
        if v is None or v is u:
            product = _norm2(x, u, c)
        else:
            product = dot(u, v) - c * dot(x, u) * (dot(x, v) / (1 + c * square(x)))
        return (product.unsqueeze(-1) if keepdim else product).to(u.dtype)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """Inverse metric times the gradient: ``(I + c x x^T) u``."""
        return _raised(x, u, self.c)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        distance = lorentz.distance(x, y, self.c)
        return distance.unsqueeze(-1) if keepdim else distance

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return lorentz.exp(x, u, self.c)

    retr = expmap

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return lorentz.log(x, y, self.c)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return lorentz.transport(x, y, v, self.c)

    def projx(self, x: Tensor) -> Tensor:
        """Every vector is a point."""
        return x

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Every vector is tangent."""
        return u

    def _check_point_on_manifold(self, x: Tensor, **tolerance: float) -> tuple[bool, str | None]:
        return bool(torch.isfinite(x).all()), "'x' is not finite"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, **tolerance: float
    ) -> tuple[bool, str | None]:
        return bool(torch.isfinite(u).all()), "'u' is not finite"


@one_pass(gives=torch.float32)
def _norm2(x: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """``|v|^2 - (x.v)^2 / t(x)^2``, at least ``|v|^2 / gamma(x)^2``."""
    p = dots(x, v)
    gamma2 = 1 + c * p.xx
    return torch.maximum(p.yy - c * p.xy * (p.xy / gamma2), p.yy / gamma2).to(v.dtype)


@one_pass()
def _raised(x: Tensor, v: Tensor, c: Tensor) -> Tensor:
    k = c * dot(x, v)
    return combine((k, x), (torch.ones_like(k), v))


def parameter(
    x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, requires_grad: bool = True
) -> geoopt.ManifoldParameter:
    """A parameter of points (space components) that geoopt's optimizers keep on the hyperboloid."""
    return geoopt.ManifoldParameter(x, manifold=Hyperboloid(c), requires_grad=requires_grad)
