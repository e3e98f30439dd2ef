"""Whole functions in one pass: equal to their definitions, and out of the way where they must."""

import multiprocessing
import shutil

import cases
import pytest
import torch
from torch import func

from geodapt.geometry import _native, _whole, checked, lorentz, poincare

needs_kernels = pytest.mark.parametrize("have", [True] if _native.library() else [])


NAMES = [
    *(name for name in cases.FUNCTIONS if name.replace(".", "_") in _whole.BODIES),
    "poincare.mobius_matvec",
]


def points(name, rows, d):
    return cases.arguments(cases.FUNCTIONS[name].takes, "far", 0.8, 1.3, rows, d)


@pytest.mark.parametrize("name", NAMES)
def test_three_ways_are_one_function(name, monkeypatch):
    """The whole kernel, the row kernels that gradients use, and operators in float64."""
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


@needs_kernels
@pytest.mark.parametrize("name", NAMES[:-1])
def test_ordinary_calls_run_the_kernel(name, have, monkeypatch):
    args = points(name, 4, 6)
    ran = []
    original = _whole.run
    monkeypatch.setattr(_whole, "run", lambda *a, **k: ran.append(original(*a, **k)) or ran[-1])
    cases.FUNCTIONS[name].ours(*args, 1.3)
    assert [out is not None for out in ran] == [True]
    with checked():
        cases.FUNCTIONS[name].ours(*args, 1.3)
    assert ran[-1] is None  # the checks are in the definition


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
    with pytest.raises(TypeError, match="argument"):
        lorentz.distance(x)


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
    leaf = x.clone().requires_grad_()
    compiled(lorentz.distance)(leaf, y, 0.7).sum().backward()
    assert "one_pass" not in codes[-1]
    assert leaf.grad.abs().sum() > 0


@needs_kernels
def test_library_of_another_user_is_not_loaded(have, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    library = _native._compiled(_compiler(), shared / "kernels.so")
    with pytest.raises(OSError, match="another user"):
        _native._load(library)
    shared.chmod(0o755)
    _native._load(library)


@needs_kernels
def test_read_only_cache_compiles_for_this_process(have, tmp_path, monkeypatch):
    (tmp_path / "native").write_text("a file where the folder should be")
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    assert _native.library.__wrapped__() is not None


@needs_kernels
def test_kernels_without_vector_mathematics_or_threads(have, tmp_path, monkeypatch):
    x, y = torch.randn(2, 20, 40)
    expected = lorentz.distance(x, y)
    monkeypatch.setattr(_native, "VARIANTS", _native.VARIANTS[-1:])
    plain = _native._load(_native._compiled(_compiler(), tmp_path / "kernels.so"))
    monkeypatch.setattr(_native, "library", lambda: plain)
    torch.testing.assert_close(lorentz.distance(x, y), expected)


def _compiler() -> str:
    compiler = shutil.which("cc")
    assert compiler
    return compiler


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
