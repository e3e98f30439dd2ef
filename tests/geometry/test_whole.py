"""Whole functions in one pass: equal to their definitions, and out of the way where they must."""

import multiprocessing

import cases
import pytest
import torch
from functorch.compile import make_boxed_func
from torch import func
from torch._dynamo.backends.common import aot_autograd

from geodapt import native
from geodapt.geometry import _native, _whole, checked, lorentz, poincare

needs_kernels = pytest.mark.parametrize("have", [True] if _native.library() else [])


NAMES = [
    *(name for name in cases.FUNCTIONS if name.replace(".", "_") in _whole.KERNELS),
    "poincare.mobius_matvec",
]


def points(name, rows, d):
    return cases.arguments(cases.FUNCTIONS[name].takes, "far", 0.8, 1.3, rows, d)


@pytest.mark.parametrize("name", NAMES)
def test_three_ways_are_one_function(name, monkeypatch):
    """The kernel alone, the kernel with its gradient recorded, and operators in float64."""
    function = cases.FUNCTIONS[name].ours
    # d below, at and beyond the lanes of a register; rows below and beyond a block
    for rows, d in ((1, 1), (5, 8), (33, 37), (17, 132)):
        if name == "poincare.mobius_matvec":
            d = 4
        args = points(name, rows, d)
        alone = function(*args, 1.3)
        recorded = function(*(a.clone().requires_grad_() for a in args), 1.3)
        exact = function(*(a.double() for a in args), 1.3).float()
        torch.testing.assert_close(alone, exact, rtol=3e-7, atol=1e-8)
        torch.testing.assert_close(recorded.detach(), exact, rtol=3e-7, atol=1e-8)
        with monkeypatch.context() as patch:
            patch.setattr(_native, "library", lambda: None)
            torch.testing.assert_close(function(*args, 1.3), exact, rtol=3e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["inner", "distance", "to_poincare", "radius", "conformal_factor"])
def test_rows_that_need_double_sums_get_them_and_do_not_change_their_neighbours(name):
    """Close pairs, and points near the ball's edge, with easy ones, zeros and huge ones between."""
    function = getattr(lorentz, name, None) or getattr(poincare, name)
    x, y = torch.randn(2, 29, 150) / 150**0.5
    y[::3] = x[::3] * (1 + 1e-6)
    if name in ("inner", "distance", "to_poincare"):
        x[5], x[9], x[11] = 0, 1e-25, 1e3 if name != "to_poincare" else 1e25
    else:
        x = lorentz.to_poincare(x * torch.logspace(-25, 2, 29)[:, None])
        x[5] = 0
    args = (x, y) if name in ("inner", "distance") else (x,)
    found = function(*args)
    exact = function(*(a.double() for a in args)).float()
    torch.testing.assert_close(found, exact, rtol=5e-7, atol=1e-30)
    alone = torch.stack([function(*(a[i] for a in args)) for i in range(len(x))])
    assert torch.equal(found, alone)


def gradients(name, args, c, dtype):
    """Those of a random projection, by the points and the curvature."""
    leaves = [a.to(dtype).requires_grad_() for a in (*args, c)]
    out = cases.FUNCTIONS[name].ours(*leaves)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * weight.to(dtype)).sum(), leaves, materialize_grads=True)
    return [g.double() for g in found]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_the_definitions(name):
    for rows, d in ((1, 1), (5, 8), (33, 37)):
        d = 4 if name == "poincare.mobius_matvec" else d
        args = points(name, rows, d)
        batch = (rows, rows) if "pairwise" in name else (rows,)
        for c in (torch.tensor(1.3), torch.rand(batch) + 0.5):
            if "pairwise" in name and c.dim():
                continue  # cases take the diagonal; test_pairwise_gradients has all of it
            exact = gradients(name, args, c, torch.float64)
            for ours, expected in zip(gradients(name, args, c, torch.float32), exact, strict=True):
                gap = (ours - expected).norm()
                assert gap <= 1e-6 * expected.norm() + 1e-9, f"{rows} x {d}: {gap}"


@pytest.mark.parametrize("model", [lorentz, poincare])
@pytest.mark.parametrize("shape", [(), (21,), (9, 1), (9, 21)])
def test_pairwise_gradients_with_a_learned_curvature(model, shape):
    x, y = torch.randn(9, 13) / 13, torch.randn(21, 13) / 13
    c, weight = torch.rand(shape) + 0.1, torch.randn(9, 21)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (x, y, c)]
        loss = (model.pairwise_distance(*leaves) * weight.to(dtype)).sum()
        found.append([g.float() for g in torch.autograd.grad(loss, leaves)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_learned_weight():
    x, y = torch.randn(2, 7, 5)
    for shape in ((), (7,)):
        leaves = [torch.rand(shape, requires_grad=True) for _ in range(2)]
        loss = lorentz.residual(x, y, leaves[0]).sum()
        loss = loss + poincare.mobius_scalar(leaves[1], lorentz.to_poincare(x)).sum()
        exact = [a.detach().double().requires_grad_() for a in leaves]
        twin = lorentz.residual(x.double(), y.double(), exact[0]).sum()
        ball = lorentz.to_poincare(x.double())
        twin = twin + poincare.mobius_scalar(exact[1], ball).sum()
        for ours, expected in zip(
            torch.autograd.grad(loss, leaves), torch.autograd.grad(twin, exact), strict=True
        ):
            torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_calls_run_the_kernel(name, have, monkeypatch):
    args = points(name, 4, 4)
    ran = []
    for what in ("values", "gradients"):
        original = getattr(_whole.Kernel, what)

        def noted(self, *given, what=what, original=original):
            ran.append(what)
            return original(self, *given)

        monkeypatch.setattr(_whole.Kernel, what, noted)
    cases.FUNCTIONS[name].ours(*args, 1.3)
    assert "values" in ran
    recorded = cases.FUNCTIONS[name].ours(*(a.clone().requires_grad_() for a in args), 1.3)
    recorded.sum().backward()
    assert "gradients" in ran
    ran.clear()
    with checked():
        cases.FUNCTIONS[name].ours(*args, 1.3)
    assert not ran  # the checks are in the definition


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
    c = torch.rand(3, 1, 1) * 0.5 + 0.1  # more dimensions than the points have
    each = torch.stack([poincare.mobius_matvec(torch.eye(40), ball, a.item()) for a in c])
    torch.testing.assert_close(poincare.mobius_matvec(torch.eye(40), ball, c), each)
    outside = torch.cat([ball, 3 * ball / ball.norm(dim=-1, keepdim=True)])
    torch.testing.assert_close(
        poincare.project(outside), poincare.project(outside.double()).float()
    )
    for empty in (x[:0], x[..., :0]):
        assert lorentz.exp0(empty).shape == empty.shape
    assert lorentz.pairwise_distance(x[0], x[0, :0]).shape == (5, 0)
    with pytest.raises(RuntimeError, match=r"size|shape|broadcast"):
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


def test_other_ways_to_differentiate_take_the_definition():
    x, y = torch.randn(2, 6, 5)
    expected = lorentz.distance(x, y)
    torch.testing.assert_close(func.vmap(lorentz.distance)(x, y), expected)
    torch.testing.assert_close(func.vmap(lorentz.distance, (0, None))(x, y[0]),
                               lorentz.distance(x, y[0]))  # fmt: skip
    c = torch.rand(6) + 0.1
    torch.testing.assert_close(func.vmap(lorentz.distance)(x, y, c), lorentz.distance(x, y, c))
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(x, y)
        tangent = torch.autograd.forward_ad.unpack_dual(lorentz.distance(dual, y)).tangent
    torch.testing.assert_close(tangent, func.jvp(lambda a: lorentz.distance(a, y), (x,), (y,))[1])
    assert tangent.abs().sum() > 0
    with torch.inference_mode():
        torch.testing.assert_close(lorentz.distance(x, y), expected)


@needs_kernels
def test_compiled_graph_holds_the_kernel_where_it_may(have):
    x, y = torch.randn(2, 6, 5)
    codes = []

    def compiled(function):
        torch._dynamo.reset()
        return torch.compile(
            function, backend=lambda g, _: codes.append(g.code) or g, fullgraph=True
        )

    expected = lorentz.distance(x, y, 0.7)
    torch.testing.assert_close(compiled(lorentz.distance)(x, y, 0.7), expected)
    assert "one_pass" in codes[-1]
    torch.testing.assert_close(
        compiled(poincare.mobius_scalar)(0.5, x / 9), poincare.mobius_scalar(0.5, x / 9)
    )
    assert "one_pass" in codes[-1]
    torch.testing.assert_close(compiled(func.vmap(lorentz.distance))(x, y), lorentz.distance(x, y))
    assert "one_pass" not in codes[-1]

    def derivative(a):
        return func.jvp(lambda b: lorentz.distance(b, y), (a,), (y,))[1]

    torch.testing.assert_close(compiled(derivative)(x), derivative(x))


@needs_kernels
def test_compiled_gradients_come_from_the_kernels(have):
    x, y = torch.randn(2, 6, 5)
    codes = []

    def noted(graph, _):
        codes.append(graph.code)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=noted, bw_compiler=noted)
    for c in (0.7, torch.tensor(0.7, requires_grad=True), torch.rand(6, requires_grad=True)):
        torch._dynamo.reset()
        codes.clear()
        leaves = [x.clone().requires_grad_(), y] + ([c] if isinstance(c, torch.Tensor) else [])
        learned = [leaf for leaf in leaves if leaf.requires_grad]
        scalar = (lambda: ()) if isinstance(c, torch.Tensor) else (lambda: (0.7,))
        traced = torch.compile(lorentz.log, backend=backend, fullgraph=True)
        found = torch.autograd.grad(traced(*leaves, *scalar()).sum(), learned)
        expected = torch.autograd.grad(lorentz.log(*leaves, *scalar()).sum(), learned)
        torch.testing.assert_close(found, expected)
        assert "one_pass" in codes[0]
        assert "one_pass_backward" in codes[1]


def test_gradients_of_gradients():
    x, y = (t.requires_grad_() for t in torch.randn(2, 4, 3))
    out = poincare.mobius_add(lorentz.to_poincare(x), lorentz.to_poincare(y))
    (once,) = torch.autograd.grad(out[:, 0].sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), y)
    exact = [t.detach().double().requires_grad_() for t in (x, y)]
    wide = poincare.mobius_add(*(lorentz.to_poincare(t) for t in exact))
    (slope,) = torch.autograd.grad(wide[:, 0].sum(), exact[0], create_graph=True)
    (expected,) = torch.autograd.grad(slope.square().sum(), exact[1])
    torch.testing.assert_close(twice.double(), expected, rtol=1e-4, atol=1e-6)


@needs_kernels
def test_kernels_without_vector_mathematics_or_threads(have, tmp_path, monkeypatch):
    x, y = torch.randn(2, 20, 40)
    expected = lorentz.distance(x, y)
    monkeypatch.setattr(native, "VARIANTS", native.VARIANTS[-1:])
    quick = [option.replace("-O3", "-O1") for option in native.OPTIONS]
    monkeypatch.setattr(native, "OPTIONS", quick)
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    plain = native._library.__wrapped__(_native.SOURCE)
    monkeypatch.setattr(_native, "library", lambda: plain)
    torch.testing.assert_close(lorentz.distance(x, y), expected)


def _in_a_worker() -> None:
    torch.set_num_threads(1)  # as a DataLoader's workers do
    lorentz.distance(torch.ones(4096, 64), torch.zeros(4096, 64))


def test_forked_worker_does_not_wait_for_the_parents_threads():
    torch.set_num_threads(2)
    lorentz.distance(torch.ones(4096, 64), torch.zeros(4096, 64))
    worker = multiprocessing.get_context("fork").Process(target=_in_a_worker)
    worker.start()
    worker.join(60)
    alive = worker.is_alive()
    worker.kill()
    assert not alive
    assert worker.exitcode == 0
