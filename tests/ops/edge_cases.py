"""What tests at the edge of the range share: formulas in float64 that autograd differentiates, and the tolerance."""

import torch

from tests import oracles
from tests.cases import exact_exponential, exact_exponential_gradient, skew_matrix

#: Roundings of an op, at the sizes here, and what an angle of `condition` costs beside them: that of its product with
#: the time, and of the squarings, which double it.
ROUNDINGS, OF_THE_ANGLE = 100, 4


class Exponential(torch.autograd.Function):
    """exp of skew-symmetric matrices by their eigenvalues, its gradient by divided differences; float64."""

    @staticmethod
    def forward(ctx, A):
        ctx.save_for_backward(A)
        return exact_exponential(A)

    @staticmethod
    def backward(ctx, grad):
        return exact_exponential_gradient(*ctx.saved_tensors, grad)


def rotation(S, dt):
    return Exponential.apply(dt[..., None, None] * (S - S.mT) / 2)


def frame(S, dt):
    n, k = S.shape[-2:]
    A, B = S[..., :k, :], S[..., k:, :]
    lower = torch.cat([B, S.new_zeros(*S.shape[:-2], n - k, n - k)], -1)
    whole = torch.cat([torch.cat([(A - A.mT) / 2, -B.mT], -1), lower], -2)
    return Exponential.apply(dt[..., None, None] * whole)[..., :k]


def step(S, delta, dt, k):
    e = torch.exp(-dt[..., None] * delta / (4 * k))
    return torch.linalg.matrix_power(e[..., :, None] * rotation(S, dt / k) * e[..., None, :], k)


def states(x, U, c, M_of, h, activation, beta):
    hs = []
    for t, x_t in enumerate(x):
        h = oracles.activate(activation, (M_of(t) @ h.unsqueeze(-1)).squeeze(-1) + x_t @ U.mT + c, beta)
        hs.append(h)
    return torch.stack(hs)


def judge(function, oracle, tensors, condition, scales=None):
    """Values and gradients of `function` against those of `oracle` for the same numbers in float64.

    Errors are Frobenius norms over that of what is expected, or over `scales[name]` of a gradient that cancels.
    """
    dtype = next(iter(tensors.values())).dtype
    tolerance = torch.finfo(dtype).eps * (ROUNDINGS + OF_THE_ANGLE * condition)
    mine = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    exact = {name: t.double().requires_grad_() for name, t in tensors.items()}
    results, expected = function(**mine), oracle(**exact)
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    grads = [torch.randn_like(r) for r in results]
    found = torch.autograd.grad(results, list(mine.values()), grads)
    wanted = torch.autograd.grad(expected, list(exact.values()), [g.double() for g in grads])
    names = [f"result {k}" for k in range(len(results))] + list(tensors)
    for name, x, y in zip(names, (*results, *found), (*expected, *wanted), strict=True):
        assert x.dtype == dtype
        scale = max(float(y.detach().norm()), (scales or {}).get(name, 0.0), torch.finfo(dtype).tiny)
        error = float((x.detach().double() - y.detach()).norm()) / scale
        assert error <= tolerance, f"{name}: {error:.1e} of {scale:.1e}, expected {tolerance:.1e}"


def generator_of(norm, n, dtype, K=3):
    S = torch.stack([norm * skew_matrix(n, 1.0) for _ in range(K)]).to(dtype)
    return S, torch.tensor(1.0, dtype=dtype)


def of_time(S):
    """What the gradient of a time is a sum of: entries of a gradient of about 1, times S."""
    return {"dt": float(S.double().norm()) * S.shape[-1] + 1e-300}
