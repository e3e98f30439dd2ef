"""Every function of the geometry with arguments to measure it on, and its exact twin."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import _geometry_exact as exact
import torch
from mpmath import mpf

from geodapt.geometry import cones, lorentz, poincare

CURVATURES = (1e-3, 1e-1, 1.0, 1e2)
NORMS = (1e-4, 1e-2, 1.0, 1e2, 1e3)
PAIRS = ("close", "near", "ray", "far", "origin")


@dataclass(frozen=True)
class Function:
    """``ours(*points, c)`` and ``exact(*points, c)``, with what kind of points they take."""

    ours: Callable
    exact: Callable
    takes: str  # h hyperboloid point, b ball point, v and w their tangent vectors, r root,
    # o and p: tangent vectors at the origin of the hyperboloid and of the ball


def pair(kind: str, norm: float, rows: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of float64 vectors, the first of the given norm."""
    direction = torch.nn.functional.normalize(torch.randn(rows, d, dtype=torch.float64), dim=-1)
    other = torch.nn.functional.normalize(torch.randn(rows, d, dtype=torch.float64), dim=-1)
    x = norm * direction
    match kind:
        case "close":
            return x, x + 1e-6 * norm * other
        case "near":
            return x, x + 1e-2 * norm * other
        case "ray":
            return x, 1.5 * x
        case "far":
            return x, norm * other
        case _:
            return x, 1e-4 * other


W = 0.7
M = [[1.0, 0.5, 0.0, -0.25], [0.0, 2.0, 0.25, 0.0], [0.5, 0.0, -1.0, 0.125]]
EPS = 1e-5

FUNCTIONS: dict[str, Function] = {
    "lorentz.time": Function(lorentz.time, exact.time, "h"),
    "lorentz.inner": Function(lorentz.inner, exact.lorentz_inner, "hh"),
    "lorentz.distance": Function(lorentz.distance, exact.lorentz_distance, "hh"),
    "lorentz.pairwise_distance": Function(
        lambda x, y, c: lorentz.pairwise_distance(x, y, c).diagonal(),
        exact.lorentz_distance,
        "hh",
    ),
    "lorentz.exp0": Function(lorentz.exp0, exact.lorentz_exp0, "o"),
    "lorentz.log0": Function(lorentz.log0, exact.lorentz_log0, "h"),
    "lorentz.exp": Function(lorentz.exp, exact.lorentz_exp, "hv"),
    "lorentz.log": Function(lorentz.log, exact.lorentz_log, "hh"),
    "lorentz.transport": Function(lorentz.transport, exact.lorentz_transport, "hhv"),
    "lorentz.centroid": Function(
        lambda x, y, c: lorentz.centroid(
            torch.stack([x, y], -2), x.new_tensor([1.0, W]).expand(len(x), 2), c
        ),
        lambda x, y, c: exact.lorentz_centroid([x, y], [mpf(1), mpf(W)], c),
        "hh",
    ),
    "lorentz.residual": Function(
        lambda x, y, c: lorentz.residual(x, y, W, c),
        lambda x, y, c: exact.lorentz_residual(x, y, mpf(W), c),
        "hh",
    ),
    "lorentz.rescale": Function(
        lambda x, c: lorentz.rescale(x, c, 0.3), lambda x, c: exact.rescale(x, c, mpf(0.3)), "h"
    ),
    "lorentz.to_poincare": Function(lorentz.to_poincare, exact.to_poincare, "h"),
    "lorentz.rms_norm": Function(
        lambda x, c: lorentz.rms_norm(x), lambda x, c: exact.rms_norm(x, mpf(1e-6)), "h"
    ),
    "poincare.mobius_add": Function(poincare.mobius_add, exact.mobius_add, "bb"),
    "poincare.exp0": Function(poincare.exp0, exact.poincare_exp0, "p"),
    "poincare.log0": Function(poincare.log0, exact.poincare_log0, "b"),
    "poincare.exp": Function(poincare.exp, exact.poincare_exp, "bw"),
    "poincare.log": Function(poincare.log, exact.poincare_log, "bb"),
    "poincare.distance": Function(poincare.distance, exact.poincare_distance, "bb"),
    "poincare.pairwise_distance": Function(
        lambda x, y, c: poincare.pairwise_distance(x, y, c).diagonal(),
        exact.poincare_distance,
        "bb",
    ),
    "poincare.radius": Function(poincare.radius, exact.radius, "b"),
    "poincare.mobius_matvec": Function(
        lambda x, c: poincare.mobius_matvec(x.new_tensor(M), x, c),
        lambda x, c: exact.mobius_matvec(M, x, c),
        "b",
    ),
    "poincare.mobius_scalar": Function(
        lambda x, c: poincare.mobius_scalar(W, x, c),
        lambda x, c: exact.mobius_scalar(mpf(W), x, c),
        "b",
    ),
    "poincare.conformal_factor": Function(poincare.conformal_factor, exact.conformal_factor, "b"),
    "poincare.to_lorentz": Function(poincare.to_lorentz, exact.to_lorentz, "b"),
    "cones.exterior_angle": Function(
        lambda x, y, r, c: cones.exterior_angle(x, y, r),
        lambda x, y, r, c: exact.exterior_angle(x, y, r),
        "hhr",
    ),
    "cones.lorentz_exterior_angle": Function(
        cones.lorentz_exterior_angle, exact.lorentz_exterior_angle, "hh"
    ),
    "cones.poincare_exterior_angle": Function(
        cones.poincare_exterior_angle, exact.poincare_exterior_angle, "bb"
    ),
    "cones.half_aperture": Function(
        lambda x, r, c: cones.half_aperture(x, r, EPS),
        lambda x, r, c: exact.half_aperture(x, r, mpf(EPS)),
        "hr",
    ),
    "cones.lorentz_half_aperture": Function(
        lambda x, c: cones.lorentz_half_aperture(x, c, EPS * c**0.5),
        lambda x, c: exact.lorentz_half_aperture(x, c, mpf(EPS * float(c) ** 0.5)),
        "h",
    ),
    "cones.poincare_half_aperture": Function(
        lambda x, c: cones.poincare_half_aperture(x, c, EPS * c**0.5),
        lambda x, c: exact.poincare_half_aperture(x, c, mpf(EPS * float(c) ** 0.5)),
        "b",
    ),
}


def arguments(
    takes: str, kind: str, norm: float, c: float, rows: int, d: int = 4
) -> tuple[torch.Tensor, ...]:
    """Float32 arguments: hyperboloid points of the given norm (and their images in the ball),
    tangent vectors that lead a hundredth or three radii of curvature far."""
    points = iter(pair(kind, norm, rows, d))
    result = []
    for letter in takes:
        if letter in "hb":
            x = next(points)
            result.append(lorentz.to_poincare(x, c) if letter == "b" else x)
        elif letter in "op":  # leads to a point of the given norm
            v = lorentz.log0(next(points), c)
            result.append(v / 2 if letter == "p" else v)
        elif letter == "r":
            result.append(1e-5 * torch.randn(rows, d, dtype=torch.float64))
        else:
            length = 1e-2 if kind in ("close", "near") else 3.0
            v = torch.nn.functional.normalize(torch.randn(rows, d, dtype=torch.float64), dim=-1)
            v = v * length / c**0.5
            if letter == "w":  # a tangent vector in the ball's coordinates
                v = v / poincare.conformal_factor(result[0], c)[:, None]
            result.append(v)
    return tuple(a.float() for a in result)


def reach(norm: float, c: float) -> float:
    """How far out points of this norm lie, as ``sqrt(c) |x|``."""
    return norm * c**0.5


def sweep(takes: str, rows: int = 3, d: int = 4) -> Iterator[tuple[str, float, float, tuple]]:
    kinds = PAIRS if len(takes.replace("r", "")) > 1 else ("near", "far")
    for kind, norm, c in product(kinds, NORMS, CURVATURES):
        yield kind, norm, c, arguments(takes, kind, norm, c, rows, d)


def widths() -> list[tuple[str, int]]:
    """Every function by name with the dimensions to try it in, few and many."""
    matrix = {"poincare.mobius_matvec"}  # of four columns
    return [(name, d) for d in (4, 139) for name in FUNCTIONS if d == 4 or name not in matrix]


def exact_value(function: Function, args: tuple[torch.Tensor, ...], row: int, c: float):
    return function.exact(*(exact.numbers(a[row]) for a in args), mpf(c))


def value_error(ours: torch.Tensor, row: int, truth, angle: bool = False) -> float:
    """Relative error of one row, in the Euclidean norm for a vector; an angle's in radians."""
    if isinstance(truth, list):
        gap = exact.add((mpf(1), exact.numbers(ours[row].double())), (mpf(-1), truth))
        return float(exact.norm(gap) / exact.norm(truth)) if exact.norm(truth) else 0.0
    gap = abs(mpf(float(ours[row])) - truth)
    if angle:
        return float(gap)
    # An arccosine near 1 leaves 1e-27 of what is 0, as the angle of a point on the cone's axis is.
    return float(gap / abs(truth) if abs(truth) > mpf("1e-25") else gap)


def exact_gradient(function: Function, args: tuple, row: int, c: float, weight) -> list[list]:
    """Gradient of ``weight . f`` by central differences at 60 digits, for each argument."""
    values = [exact.numbers(a[row]) for a in args]
    step = mpf(10) ** -25

    def project(values):
        out = function.exact(*values, mpf(c))
        return exact.dot(weight, out) if isinstance(out, list) else out

    gradients = []
    for a, vector in enumerate(values):
        gradient = []
        for i in range(len(vector)):
            scale = step * max(exact.norm(vector), mpf("1e-6"))
            ends = []
            for sign in (1, -1):
                moved = [list(v) for v in values]
                moved[a][i] += sign * scale
                ends.append(project(moved))
            gradient.append((ends[0] - ends[1]) / (2 * scale))
        gradients.append(gradient)
    return gradients


def gradient_error(
    call: Callable, args: tuple, c: float, weight: torch.Tensor, truths: list[list[list]]
) -> float:
    """Largest relative error of the gradient of ``weight . call``, over rows and arguments.

    ``truths`` holds :func:`exact_gradient` of each row. NaN where a gradient is not finite.
    """
    leaves = tuple(a.clone().requires_grad_() for a in args)
    (call(*leaves, c) * weight).sum().backward()
    worst = 0.0
    for row, truth in enumerate(truths):
        for leaf, expected in zip(leaves, truth, strict=True):
            got = leaf.grad[row] if leaf.grad is not None else torch.zeros_like(leaf[row])
            if not bool(torch.isfinite(got).all()):
                return float("nan")
            size = exact.norm(expected)
            if size > mpf("1e-30"):
                gap = exact.add((mpf(1), exact.numbers(got)), (mpf(-1), expected))
                worst = max(worst, float(exact.norm(gap) / size))
    return worst


def weight_and_gradients(
    function: Function, args: tuple, c: float
) -> tuple[torch.Tensor, list[list[list]]]:
    """Random weights for the result's components, and each row's exact gradients with them."""
    with torch.no_grad():
        shape = function.ours(*args, c).shape[1:]
    weight = torch.randn(shape) if shape else torch.ones(())
    numbers = exact.numbers(weight) if shape else None
    return weight, [exact_gradient(function, args, row, c, numbers) for row in range(len(args[0]))]


INTO_BALL = [
    f"poincare.{n}" for n in ("mobius_add", "exp0", "exp", "mobius_matvec", "mobius_scalar")
]


def has_gradient(name: str, kind: str, args: tuple, c: float) -> bool:
    """Whether the function has a gradient there that float32 can express."""
    if name in INTO_BALL and beyond_float32(FUNCTIONS[name], args, c):
        return False  # the result is put at the outermost radius, which does not move
    # On the cone's axis, either way, the angle has none, as a norm has none at 0.
    return not ("exterior_angle" in name and kind in ("ray", "origin"))


def beyond_float32(function: Function, args: tuple, c: float) -> bool:
    """Whether the exact result, a point of the ball, lies nearer to the edge than float32 ones."""
    return any(
        exact.norm(exact_value(function, args, row, c)) * mpf(c) ** 0.5 > 1 - mpf(2) ** -21
        for row in range(len(args[0]))
    )
