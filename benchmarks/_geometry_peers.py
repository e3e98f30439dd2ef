"""The functions that geoopt and hypll share with us, each called in its owner's own convention.

geoopt stores the time component and wants ``k = 1/c`` on the hyperboloid, ``k = -c`` in the ball;
its maps between the two models take the unit ball. hypll has the ball alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geodapt.progress import console


@dataclass(frozen=True)
class Peer:
    """``call(*arguments, k)`` on a peer's own arguments; how those and its results look."""

    call: Callable[..., Tensor]
    k: Callable[[float], float]
    full: bool = False  # results have a time component in front

    def arguments(self, takes: str, points: tuple[Tensor, ...], c: float) -> tuple[Tensor, ...]:
        """Our arguments in the peer's form, formed in float64 and then rounded to our type.

        Tensors that gradients flow through: the time component is a function of the space
        components.
        """
        lifted = []
        for letter, x in zip(takes, points, strict=True):
            if letter == "h":
                wide = x.double()
                time = torch.sqrt(wide.square().sum(-1, keepdim=True) + 1 / c)
                lifted.append(torch.cat([time, wide], -1).to(x.dtype))
            elif letter in "vo":
                at = points[0].double() if letter == "v" else torch.zeros_like(x.double())
                time = torch.sqrt(at.square().sum(-1, keepdim=True) + 1 / c)
                along = (at * x.double()).sum(-1, keepdim=True) / time
                lifted.append(torch.cat([along, x.double()], -1).to(x.dtype))
            else:
                lifted.append(x)
        return tuple(lifted)

    def __call__(self, takes: str, points: tuple[Tensor, ...], c: float) -> Tensor:
        """The result in our form."""
        k = points[0].new_tensor(self.k(c))
        out = self.call(*self.arguments(takes, points, c), k)
        return out[..., 1:] if self.full else out


def geoopt(matrix: Tensor, scalar: float) -> dict[str, Peer]:
    """geoopt's functions by our names; empty, and said aloud, where it is not installed."""
    try:
        import geoopt.manifolds.lorentz.math as lorentz
        import geoopt.manifolds.stereographic.math as ball
    except ImportError:
        console.print(
            "geoopt is missing, and so are its columns: pip install geoopt", soft_wrap=True
        )
        return {}

    def on_hyperboloid(function: Callable, full: bool = True) -> Peer:
        return Peer(lambda *args: function(*args[:-1], k=args[-1]), lambda c: 1 / c, full)

    def in_ball(function: Callable) -> Peer:
        return Peer(lambda *args: function(*args[:-1], k=args[-1]), lambda c: -c)

    return {
        "lorentz.inner": Peer(lambda x, y, k: lorentz.inner(x, y), lambda c: 1 / c),
        "lorentz.distance": on_hyperboloid(lorentz.dist, full=False),
        "lorentz.pairwise_distance": Peer(
            lambda x, y, k: lorentz.dist(x.unsqueeze(-2), y.unsqueeze(-3), k=k), lambda c: 1 / c
        ),
        "lorentz.exp0": on_hyperboloid(lorentz.expmap0),
        "lorentz.log0": on_hyperboloid(lorentz.logmap0),
        "lorentz.exp": on_hyperboloid(lorentz.expmap),
        "lorentz.log": on_hyperboloid(lorentz.logmap),
        "lorentz.transport": on_hyperboloid(lorentz.parallel_transport),
        "lorentz.to_poincare": Peer(
            lambda x, k: lorentz.lorentz_to_poincare(x, k) * k.sqrt(), lambda c: 1 / c
        ),
        "poincare.mobius_add": in_ball(ball.mobius_add),
        "poincare.exp0": in_ball(ball.expmap0),
        "poincare.log0": in_ball(ball.logmap0),
        "poincare.exp": in_ball(ball.expmap),
        "poincare.log": in_ball(ball.logmap),
        "poincare.distance": in_ball(ball.dist),
        "poincare.pairwise_distance": Peer(
            lambda x, y, k: ball.dist(x.unsqueeze(-2), y.unsqueeze(-3), k=k), lambda c: -c
        ),
        "poincare.radius": in_ball(ball.dist0),
        "poincare.mobius_matvec": Peer(
            lambda x, k: ball.mobius_matvec(matrix.to(x.dtype), x, k=k), lambda c: -c
        ),
        "poincare.mobius_scalar": Peer(
            lambda x, k: ball.mobius_scalar_mul(x.new_tensor(scalar), x, k=k), lambda c: -c
        ),
        "poincare.conformal_factor": in_ball(ball.lambda_x),
        "poincare.project": in_ball(ball.project),
        "poincare.to_lorentz": Peer(
            lambda x, k: lorentz.poincare_to_lorentz(x / k.sqrt(), k), lambda c: 1 / c, full=True
        ),
    }


def hypll() -> dict[str, Peer]:
    """hypll's functions by our names; empty, and said aloud, where it is not installed."""
    try:
        from hypll.manifolds.poincare_ball.math import diffgeom
    except ImportError:
        console.print("hypll is missing, and so are its columns: see --help", soft_wrap=True)
        return {}

    def peer(function: Callable) -> Peer:
        return Peer(function, lambda c: c)

    return {
        "poincare.mobius_add": peer(diffgeom.mobius_add),
        "poincare.exp0": peer(diffgeom.expmap0),
        "poincare.log0": peer(diffgeom.logmap0),
        "poincare.exp": peer(diffgeom.expmap),
        "poincare.log": peer(diffgeom.logmap),
        "poincare.distance": peer(diffgeom.dist),
        "poincare.pairwise_distance": peer(
            lambda x, y, c: diffgeom.cdist(x.unsqueeze(0), y.unsqueeze(0), c).squeeze(0)
        ),
        "poincare.project": peer(diffgeom.project),
    }
