"""Arguments of flow_recurrence, and its states step by step by dense matrix exponentials."""

import torch

from tests import oracles
from tests.cases import (
    beta_for,
    dense_flow,
    generator,
    random_mesh,
    relative_error,
)
from vfrnn_kernels import flow_recurrence

F64 = torch.float64
NAMES = ("x", "U", "c", "v", "V", "b", "w", "N", "G", "h0", "beta", "dt", "divergence_scale")
# Of the series, for each substep; the steps contract or keep lengths.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def inputs(T, B, n, m, d, i, activation="modrelu", *, norm=0.1, dtype=F64, dt=0.8, scale=0.6):
    """Arguments in the order of NAMES with ||S|| about `norm`."""
    b, w, N, G = random_mesh(n, m, d)
    x = torch.randn(T, B, i, dtype=F64)
    U, c = 0.5 * torch.randn(n, i, dtype=F64), 0.3 * torch.randn(n, dtype=F64)
    v, V = torch.randn(m, d, dtype=F64), torch.randn(m, d, i, dtype=F64)
    fields = (v + torch.einsum("tbi,cdi->tbcd", x, V)).flatten(0, 1)
    S, _ = generator(b, w, N, G, fields if fields.numel() else v.unsqueeze(0))
    largest = float(torch.linalg.matrix_norm(S, 2).max())
    v, V = (t * (norm / max(largest, 1e-3)) for t in (v, V))
    h0 = torch.randn(B, n, dtype=F64)
    beta = beta_for(activation, n, 0.1)
    scalars = torch.tensor(dt, dtype=F64), torch.tensor(scale, dtype=F64)
    return [None if t is None else t.to(dtype) for t in (x, U, c, v, V, b, w, N, G, h0, beta, *scalars)]


def symbols(arguments, count=2):
    """The same with the inputs of `count` symbols: rows of x that repeat."""
    x = arguments[0]
    tokens = torch.randint(count, x.shape[:2])
    return [torch.nn.functional.one_hot(tokens, x.shape[2]).to(x.dtype), *arguments[1:]]


def leaves(arguments):
    return [None if t is None else t.clone().requires_grad_() for t in arguments]


def present(arguments):
    return [t for t in arguments if t is not None]


def run(arguments, activation, **options):
    *tensors, beta, dt, scale = arguments
    return flow_recurrence(*tensors, activation, beta, dt, scale, **options)


def loop(arguments, activation, flow):
    """The states step by step; `flow` moves h along a field per sample."""
    x, U, c, v, V, b, w, N, G, h, beta, dt, scale = arguments
    hs = []
    for x_t in x:
        v_t = v + torch.einsum("bi,cdi->bcd", x_t, V)
        z = flow(h, v_t, b, w, N, G, dt, scale) + x_t @ U.mT
        h = oracles.activate(activation, z if c is None else z + c, beta)
        hs.append(h)
    return torch.stack(hs)


def dense(substeps, volume_preserving=False):
    return lambda *args: dense_flow(
        *args, substeps=substeps, volume_preserving=volume_preserving, exponential=torch.matrix_exp
    )


def assert_right(arguments, activation, backend, substeps, *, volume_preserving=False):
    dtype = arguments[0].dtype
    mine, exact = leaves(arguments), leaves([None if t is None else t.double() for t in arguments])
    hs = run(mine, activation, substeps=substeps, volume_preserving=volume_preserving, backend=backend)
    expected = loop(exact, activation, dense(substeps, volume_preserving))
    assert (hs.shape, hs.dtype) == (expected.shape, dtype)
    assert relative_error(hs, expected) < TOLERANCE[dtype]
    grad = torch.randn(hs.shape, dtype=dtype)
    found = torch.autograd.grad(hs, present(mine), grad)
    wanted = torch.autograd.grad(expected, present(exact), grad.double())
    names = [name for name, t in zip(NAMES, arguments, strict=True) if t is not None]
    for name, x, y in zip(names, found, wanted, strict=True):
        assert (x.shape, x.dtype) == (y.shape, dtype)
        assert (x.double() - y).norm() < 10 * TOLERANCE[dtype] * max(float(y.norm()), 1.0), name
