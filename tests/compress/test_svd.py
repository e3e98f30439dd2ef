"""Truncated SVDs against their closed form, and against numpy's own SVD."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.compress.svd import DAMPING, Whitening, lost, truncated_svd

SHAPES = [(12, 20), (20, 12), (16, 16), (1, 9), (9, 1)]


def moments(n, seed=0, samples=200):
    """Second moments of inputs of which a few directions dominate."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(n, n, generator=generator, dtype=torch.float64) * 0.5 ** torch.arange(n)
    x = torch.randn(samples, n, generator=generator, dtype=torch.float64) @ mixing.T
    return x, x.T @ x / samples


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_equals_the_truncated_svd(shape):
    W = torch.randn(*shape, dtype=torch.float64)
    U, d, Vt = torch.linalg.svd(W, full_matrices=False)
    for rank in range(1, min(shape) + 1):
        A, B = truncated_svd(W, rank, Whitening())
        torch.testing.assert_close(B @ A, U[:, :rank] * d[:rank] @ Vt[:rank])
    tails = torch.stack([d[rank:].square().sum() for rank in range(len(d) + 1)])
    torch.testing.assert_close(lost(W, Whitening()), tails, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_whitened_loses_the_closed_form(shape):
    """``E |(W - W') x|^2`` is the tail of the squared singular values of ``W S^(1/2)``."""
    W = torch.randn(*shape, dtype=torch.float64)
    _, S = moments(shape[1])
    S = S + DAMPING * S.diagonal().mean() * torch.eye(shape[1])
    values, Q = torch.linalg.eigh(S)
    root = Q * values.sqrt() @ Q.T  # another root than the code's: the symmetric one
    d = torch.linalg.svdvals(W @ root)
    whitening = Whitening(moments(shape[1])[1])
    for rank in range(1, min(shape) + 1):
        A, B = truncated_svd(W, rank, whitening)
        E = W - B @ A
        found = torch.einsum("oi,ij,oj->", E, S, E)
        torch.testing.assert_close(
            found, d[rank:].square().sum(), atol=1e-9 * float(d[0]) ** 2, rtol=1e-8
        )
        assert whitening.energy(E) == pytest.approx(found.item(), abs=1e-9 * float(d[0]) ** 2)
    torch.testing.assert_close(lost(W, whitening)[0], d.square().sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, 7))
def test_no_other_matrix_of_the_rank_loses_less(seed, rank):
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    whitening = Whitening(moments(10, seed)[1])
    A, B = truncated_svd(W, rank, whitening)
    best = whitening.energy(W - B @ A)
    assert torch.linalg.matrix_rank(B @ A) <= rank
    for scale in (1e-3, 1e-1, 1.0):
        other = (B + scale * torch.randn(B.shape, generator=generator, dtype=torch.float64)) @ (
            A + scale * torch.randn(A.shape, generator=generator, dtype=torch.float64)
        )
        assert whitening.energy(W - other) >= best * (1 - 1e-9)
    plain = truncated_svd(W, rank, Whitening())
    assert whitening.energy(W - plain.B @ plain.A) >= best * (1 - 1e-9)


def test_error_on_the_inputs_themselves():
    """Moments stand for the inputs: the error over them is the mean over the inputs."""
    x, S = moments(10)
    W = torch.randn(8, 10, dtype=torch.float64)
    A, B = truncated_svd(W, 3, Whitening(S))
    seen = (x @ (W - B @ A).T).square().sum(1).mean().item()
    damping = DAMPING * S.diagonal().mean().item() * (W - B @ A).square().sum().item()
    assert Whitening(S).energy(W - B @ A) == pytest.approx(seen + damping)


def test_full_rank_gives_the_weight_back():
    for shape in SHAPES:
        W = torch.randn(*shape, dtype=torch.float64)
        for whitening in (Whitening(), Whitening(moments(shape[1])[1])):
            A, B = truncated_svd(W, min(shape), whitening)
            torch.testing.assert_close(B @ A, W, atol=1e-8, rtol=1e-8)


def test_a_direction_that_was_never_seen_survives_full_rank():
    x, _ = moments(10)
    x[:, 3] = 0
    W = torch.randn(12, 10, dtype=torch.float64)
    A, B = truncated_svd(W, 10, Whitening(x.T @ x / len(x)))
    torch.testing.assert_close(B @ A, W, atol=1e-7, rtol=1e-7)
