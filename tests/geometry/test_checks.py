"""Arguments out of their domain: refused, or NaN, never a plausible result; in every function."""

import inspect
import math

import _geometry_cases as cases
import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry import checked, cones, lorentz, manifold, poincare
from tests.no_float64 import NoFloat64

MODULES = {"lorentz": lorentz, "poincare": poincare, "cones": cones}
FUNCTIONS = {
    f"{name}.{function}": found
    for name, module in MODULES.items()
    for function, found in inspect.getmembers(module, inspect.isfunction)
    if found.__module__ == module.__name__ and not function.startswith("_")
}
CALLS = {name: (function.ours, function.takes) for name, function in cases.FUNCTIONS.items()}
CALLS["poincare.project"] = (poincare.project, "p")
SPACE = manifold.Hyperboloid(1.0)
OTHERS = {"lorentz.concat", "cones.cone_energy"}  # of any number of points; of angles
CURVED = [
    name for name in CALLS if {"c", "c_from"} & inspect.signature(FUNCTIONS[name]).parameters.keys()
]
INTO_BALL = [*cases.INTO_BALL, "poincare.project", "lorentz.to_poincare"]


def points(name, rows=5, c=1.0, dtype=torch.float32):
    return [a.to(dtype) for a in cases.arguments(CALLS[name][1], "far", 0.6, c, rows)]


def test_every_public_function_is_tried_here():
    assert FUNCTIONS.keys() == CALLS.keys() | OTHERS


@pytest.mark.parametrize("name", CURVED)
def test_curvature_must_be_positive(name):
    call, args = CALLS[name][0], points(name)
    for c in (0, 0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="expected a positive number"):
            call(*args, c)
        out = call(*args, torch.tensor(float(c)))
        assert torch.isnan(out).all()
        each = torch.tensor([1.0, c, 1.0, c, 1.0])
        if "pairwise" not in name:
            wrong = torch.isnan(call(*args, each)).reshape(5, -1)
            assert wrong[1::2].all()
            assert not wrong[::2].any()
        with (
            checked(),
            pytest.raises(InputError, match=r"^(c|c_from|eps): \d of \d values are not"),
        ):
            call(*args, each[1])
    for c in ("1", None, 1j):
        with pytest.raises((InputError, TypeError), match=r"expected a positive|unsupported|str"):
            call(*args, c)


@pytest.mark.parametrize("name", CURVED)
def test_curvature_must_have_the_batch_shape(name):
    """(5, 1) with 5 points would be 25 results."""
    call, args = CALLS[name][0], points(name)
    shapes = [(1, 5, 5), (5, 5, 5)] if "pairwise" in name else [(5, 1), (1, 5), (4,), (2, 1)]
    for shape in shapes:
        with pytest.raises(InputError, match=r"(c|c_from|eps) has shape .* does not broadcast"):
            call(*args, torch.ones(shape))
    assert call(*args, torch.ones(5)).shape == call(*args, torch.ones(1)).shape


@pytest.mark.parametrize("name", [name for name, (_, takes) in CALLS.items() if len(takes) > 1])
def test_widths_must_agree(name):
    call, args = CALLS[name][0], points(name)
    if "centroid" in name:
        return  # which stacks its points
    for place in range(len(args)):
        for width in (1, 3):
            wrong = [*args]
            wrong[place] = wrong[place][:, :width]
            with pytest.raises(InputError, match="wide; vectors of one space have one width"):
                call(*wrong, 1.0)
        wrong = [a.expand(2, 5, 4) for a in args]
        wrong[place] = wrong[place][:, :3] if "pairwise" not in name else torch.ones(3, 5, 4)
        with pytest.raises(InputError, match="expected batch dimensions that broadcast"):
            call(*wrong, 1.0)


@pytest.mark.parametrize("name", CALLS)
def test_a_row_that_is_not_finite_gives_nan_and_spoils_no_other(name):
    call, args = CALLS[name][0], points(name)
    expected = call(*args, 1.0)
    for wrong in (math.nan, math.inf):
        for place in range(len(args)):
            given = [a.clone() for a in args]
            given[place][2, 1] = wrong
            out = call(*given, 1.0)
            assert not torch.isfinite(out[2]).all()
            assert torch.equal(out[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
            with checked(), pytest.raises(InputError, match=r"1 of \d+ values are not finite"):
                call(*given, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", [name for name, (_, takes) in CALLS.items() if "b" in takes])
def test_points_on_the_edge_and_outside_give_nan(name, c, dtype):
    call, takes = CALLS[name]
    args = points(name, 6, c, dtype)
    direction = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64), dim=-1)
    wrong = direction * torch.tensor([1.01, 1.3, 2, 1e3, 1e8, 1]).unsqueeze(-1) / c**0.5
    wrong[5] = torch.tensor([1 / c**0.5 * (1 + 1e-2 * (c == 0.3)), 0, 0, 0])  # on the edge
    wrong = wrong.to(dtype) * (1 + torch.finfo(dtype).eps)
    wrong[5] = wrong[5].double().to(dtype) if c == 0.3 else torch.tensor([1 / c**0.5, 0, 0, 0])
    places = [place for place, kind in enumerate(takes) if kind == "b"]
    for chosen in [*([place] for place in places), places]:  # one of them, then all
        given = [wrong if place in chosen else a for place, a in enumerate(args)]
        assert torch.isnan(call(*given, c)).all(), chosen
        with checked(), pytest.raises(InputError, match="6 of 6 values are not inside the ball"):
            call(*given, c)


@pytest.mark.parametrize("name", CALLS)
def test_far_beyond_the_types_range_is_right_or_nan(name):
    """Squares of these overflow or underflow in float32."""
    call, takes = CALLS[name]
    if "angle" in name:
        return  # of a direction, which has no length
    for size in (1e15, 1e19, 1e20, 1e30, 3e38):
        args = points(name)
        for place, kind in enumerate(takes):
            if kind != "b":
                args[place] = torch.nn.functional.normalize(args[place], dim=-1) * size
        out = call(*args, 1.0).double()
        truth = call(*(a.double() for a in args), 1.0)
        fine = torch.isclose(out, truth, rtol=1e-3, atol=1e-6) | torch.isnan(out)
        fine |= torch.isinf(out) & (truth.abs() > 3e38) | torch.isnan(truth)
        assert fine.all(), (size, out, truth)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", INTO_BALL)
def test_ways_into_the_ball_never_reach_its_edge(name, dtype):
    """Whatever the size of the arguments; what is computed afterwards agrees with the result."""
    call, takes = CALLS[name]
    for c in (1e-3, 0.37, 1.0, 1e2):
        for d in (1, 4, 300) if name != "poincare.mobius_matvec" else (4,):
            for size in (0.1, 3.0, 10.0, 30.0, 1e3, 1e4 if dtype == torch.float16 else 1e8):
                args = []
                for kind in takes:
                    v = torch.nn.functional.normalize(torch.randn(40, d), dim=-1) * size / c**0.5
                    v = v.to(dtype)
                    args.append(poincare.exp0(v, c) if kind == "b" else v)
                out = call(*args, c)
                out = out[torch.isfinite(out).all(-1)]
                assert (c * out.double().square().sum(-1) < 1).all()
                radius = poincare.radius(out, c)
                assert torch.isfinite(radius).all()
                exact = poincare.radius(out.double(), c)
                torch.testing.assert_close(radius.double(), exact, rtol=1e-2, atol=0.0)
                assert torch.isfinite(poincare.distance(out, out.flip(0), c)).all()
                assert torch.equal(poincare.project(out, c), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_near_the_edge(dtype):
    """Along a diameter, where the answer is a sum of distances; also across the whole ball."""
    eps = torch.finfo(dtype).eps
    for gap in (1e-3, 1e3 * eps, 8 * eps):
        x = torch.tensor([1 - gap, 0.0], dtype=dtype)
        for step in (1e-13, 1e-6, 1e-4, 1e-3, 0.1):
            y = poincare.exp(x, torch.tensor([-step, 0.0], dtype=dtype))
            moved = 2 * step / (1 - x[0].item() ** 2)  # lambda |v|
            end = poincare.radius(x).item() - moved  # signed
            far = poincare.radius(torch.tensor([1 - 4 * eps, 0.0], dtype=dtype)).item()
            found = math.copysign(poincare.radius(y).item(), y[0].item())
            # A rounding of the position is as much as eps / gap at the start, 1/8 at the end.
            allowed = 0.2 if abs(end) > far - 4 else 0.01 + 2 * eps / gap * moved + eps / gap
            assert abs(found - max(end, -far)) < allowed, (gap, step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_needs_float64(name, dtype):
    call = CALLS[name][0]
    for c in (0.7, torch.tensor(0.7), torch.full((5,), 0.7, dtype=dtype)):
        args = points(name, dtype=dtype)
        leaves = [a.requires_grad_() for a in args]
        if isinstance(c, torch.Tensor):
            leaves.append(c.requires_grad_())
        with NoFloat64():
            out = call(*args, c)
            torch.autograd.grad(out.float().sum(), leaves, allow_unused=True)
            with torch.no_grad():
                call(*args, c)


def test_the_manifold_needs_no_float64_and_refuses_what_the_functions_refuse():
    with NoFloat64():
        parameter = manifold.parameter(torch.randn(5, 4), c=0.3)
        space, u = parameter.manifold, torch.randn(5, 4)
        for value in (
            space.inner(parameter, u), space.egrad2rgrad(parameter, u), space.dist(parameter, u),
            space.expmap(parameter, u), space.logmap(parameter, u), space.transp(u, u, u),
        ):  # fmt: skip
            assert value.dtype == torch.float32
    for c in (0.0, -1.0, math.nan, "1"):
        with pytest.raises(InputError, match="c is"):
            manifold.Hyperboloid(c)
    for method in ("inner", "egrad2rgrad", "dist", "expmap", "logmap"):
        with pytest.raises(InputError, match="wide"):
            getattr(space, method)(torch.ones(5, 4), torch.ones(5, 1))
    assert torch.isnan(manifold.Hyperboloid(torch.tensor(-1.0)).inner(u, u)).all()


def test_vectors_must_be_floating_point():
    with pytest.raises(InputError, match=r"x has shape .* expected floating-point vectors"):
        lorentz.distance(torch.ones(3, dtype=torch.int64), torch.ones(3))
    with pytest.raises(InputError, match="v has shape"):
        lorentz.exp0(torch.tensor(1.0))


def test_checked_mode_names_the_argument_and_the_row():
    y = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
    assert torch.isnan(poincare.distance(torch.zeros(2, 2), y)[1])  # never a plausible number
    with checked():
        with pytest.raises(InputError, match=r"y: 1 of 2 values .* the first is y\[1\] = \[3.0, 4"):
            poincare.distance(torch.zeros(2, 2), y)
        with pytest.raises(InputError, match="x: 1 of 1 values are not finite"):
            lorentz.time(torch.tensor([torch.nan]))
        with pytest.raises(InputError, match="w: 1 of 1 values are not 0 or more"):
            lorentz.residual(y, y, torch.tensor(-0.5))
        with pytest.raises(InputError, match="weights"):
            lorentz.centroid(y, torch.tensor([1.0, -2.0]))
        poincare.distance(y[:1], y[:1])
    with torch.no_grad():
        assert torch.isnan(poincare.radius(y)[1])


def test_weights_and_other_numbers():
    x, y = torch.randn(2, 5, 4)
    ball = lorentz.to_poincare(x)
    for w in (-0.5, math.nan, math.inf):
        with pytest.raises(InputError, match="w is"):
            lorentz.residual(x, y, w)
    assert torch.isnan(lorentz.residual(x, y, torch.tensor([-1.0, 1, 1, 1, 1]))[0]).all()
    assert torch.isnan(lorentz.centroid(x, torch.tensor([-0.1, 1, 1, 1, 1]))).all()
    assert torch.isnan(lorentz.centroid(x, torch.zeros(5))).all()
    for r in (math.nan, math.inf, "2"):
        with pytest.raises(InputError, match="r is"):
            poincare.mobius_scalar(r, ball)
    for wrong in (
        lambda: lorentz.residual(x, y, torch.ones(5, 1)),
        lambda: poincare.mobius_scalar(torch.ones(5, 1), ball),
        lambda: cones.lorentz_half_aperture(x, 1.0, torch.ones(5, 1)),
    ):
        with pytest.raises(InputError, match="does not broadcast into"):
            wrong()
    for eps in (0.0, -0.1, math.nan):
        with pytest.raises(InputError, match="eps is"):
            cones.lorentz_half_aperture(x, 1.0, eps)
        assert torch.isnan(cones.half_aperture(x, y, torch.tensor(eps))).all()
    for wrong, message in (
        (lambda: lorentz.centroid(x, torch.ones(4)), "weights have shape"),
        (lambda: lorentz.centroid(x, torch.ones(3, 1)), "weights have shape"),
        (lambda: lorentz.centroid(x.expand(2, 5, 4), torch.ones(3, 1, 5)), "broadcast"),
        (lambda: lorentz.centroid(x[0]), "expected points to be averaged"),
        (lambda: lorentz.rms_norm(x, torch.ones(1)), "weight has shape"),
        (lambda: lorentz.rms_norm(x, eps=-1.0), "eps is"),
        (lambda: lorentz.concat([]), "no points"),
        (lambda: lorentz.concat([x, y[:1]]), "points have the batches"),
        (lambda: lorentz.concat([x, x.long()]), "floating-point"),
        (lambda: poincare.mobius_matvec(torch.ones(4, 3), ball), "m has shape"),
        (lambda: poincare.mobius_matvec(torch.ones(4), ball), "m has shape"),
        (lambda: lorentz.pairwise_distance(x[0], y), "expected rows of vectors"),
        (lambda: lorentz.distance(x.numpy(), y), "x is a ndarray"),
        (lambda: cones.cone_energy(torch.ones(3), torch.ones(4)), "broadcast"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def test_layouts_and_broadcasting():
    x, y = torch.randn(6, 5, 40), torch.randn(40)
    expected = lorentz.distance(x.double(), y.double(), 0.7).float()
    torch.testing.assert_close(lorentz.distance(x, y, 0.7), expected)
    transposed = x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(lorentz.distance(transposed, y, 0.7), expected)
    strided = torch.stack([x, x], -1)[..., 0]
    torch.testing.assert_close(lorentz.distance(strided, y, 0.7), expected)
    negative = torch.complex(torch.zeros_like(x), x).conj().imag  # -x, not negated in memory
    torch.testing.assert_close(lorentz.distance(negative, y, 0.7), lorentz.distance(-x, y, 0.7))
    recorded = lorentz.distance(negative, y.clone().requires_grad_(), 0.7).detach()
    torch.testing.assert_close(recorded, lorentz.distance(-x, y, 0.7))
    c = torch.rand(6, 1) + 0.1
    each = torch.stack([lorentz.distance(x[i], y, c[i].item()) for i in range(6)])
    torch.testing.assert_close(lorentz.distance(x, y, c), each)
    w = torch.rand(5)
    each = torch.stack([lorentz.residual(x[:, i], y, w[i].item()) for i in range(5)], 1)
    torch.testing.assert_close(lorentz.residual(x, y, w), each)
    ball = lorentz.to_poincare(x)
    c = torch.rand(3, 1, 1) * 0.5 + 0.1  # of three spaces with the same points
    each = torch.stack([poincare.mobius_matvec(torch.eye(40), ball, a.item()) for a in c])
    spaces = poincare.mobius_matvec(torch.eye(40), ball.expand(3, 6, 5, 40), c)
    torch.testing.assert_close(spaces, each)
    outside = torch.cat([ball, 3 * ball / ball.norm(dim=-1, keepdim=True)])
    torch.testing.assert_close(
        poincare.project(outside), poincare.project(outside.double()).float()
    )
    for empty in (x[:0], x[..., :0]):
        assert lorentz.exp0(empty).shape == empty.shape
    assert lorentz.pairwise_distance(x[0], x[0, :0]).shape == (5, 0)
    with pytest.raises(InputError, match="one width"):
        lorentz.distance(x, torch.randn(39))
    torch.testing.assert_close(lorentz.residual(x, y, c=0.3), lorentz.residual(x, y, 1.0, 0.3))
    torch.testing.assert_close(lorentz.residual(c=0.3, y=y, x=x), lorentz.residual(x, y, 1.0, 0.3))
    for wrong in (
        lambda: lorentz.distance(x),
        lambda: lorentz.distance(x, y, 1.0, 2.0),
        lambda: lorentz.distance(x, y, x=x),
        lambda: lorentz.distance(x, y, k=1.0),
    ):
        with pytest.raises(TypeError, match="argument"):
            wrong()
