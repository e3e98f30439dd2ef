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
from geodapt.geometry import _checks, lorentz
from geodapt.geometry._checks import prepare
from geodapt.geometry._chord import tangent_inner
from geodapt.geometry._sums import dot, plus

try:
    import geoopt
except ImportError as error:  # an optional package: everything else here works without it
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
        _checks.positive("c", c, _checks.POSITIVE)
        if isinstance(c, Tensor):
            self.register_buffer("c", c)
        else:
            self.c = float(c)

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        """``u.v - (x.u) (x.v) / t(x)^2``: the Minkowski product of tangent vectors."""
        v = u if v is None else v
        c, (x, u, v), dtype = prepare(self.c, x=x, u=u, v=v)
        product = tangent_inner(x, u, v, c).to(dtype)
        return product.unsqueeze(-1) if keepdim else product

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """Inverse metric times the gradient: ``(I + c x x^T) u``."""
        c, (x, u), dtype = prepare(self.c, x=x, u=u)
        return plus(u, c * dot(x, u), x).to(dtype)

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


def parameter(
    x: Float[Tensor, "*batch d"], c: float | Tensor = 1.0, requires_grad: bool = True
) -> geoopt.ManifoldParameter:
    """A parameter of points (space components) that geoopt's optimizers keep on the hyperboloid."""
    return geoopt.ManifoldParameter(x, manifold=Hyperboloid(c), requires_grad=requires_grad)
