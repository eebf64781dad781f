"""How many substeps flow_recurrence plans, of which degree, and what it computes with them."""

import pytest
import torch

from tests.cases import (
    DTYPES,
    generator,
    relative_error,
)
from tests.ops.flow_recurrence_cases import (
    F64,
    NAMES,
    TOLERANCE,
    dense,
    inputs,
    leaves,
    loop,
    run,
    symbols,
)
from vfrnn_kernels.field_flow.reference_plan import check_substeps, series_limit
from vfrnn_kernels.flow_recurrence.reference_plan import LARGEST_ARGUMENT, largest_generator, planned_series


@pytest.mark.parametrize("dt", [0.0, -1.3, 2.0])
def test_planned_substeps(backend, dt):
    arguments = inputs(3, 2, 7, 5, 2, 2, norm=0.4, dt=dt)
    hs = run(arguments, "modrelu", order=8, backend=backend)
    fine = run(arguments, "modrelu", substeps=400, backend="cpu")
    # where there is a divergence the splitting itself depends on the number of substeps, to second order
    assert relative_error(hs, fine) < 1e-3
    free = [*arguments[:-1], torch.zeros((), dtype=F64)]
    fine = run(free, "modrelu", substeps=400, backend="cpu")
    for order in (None, 8, 12):
        assert relative_error(run(free, "modrelu", order=order, backend=backend), fine) < 1e-12


def norms(arguments):
    """||S|| in float64 of every step and sample."""
    x, _, _, v, V, *mesh = (t.double() for t in arguments[:9])
    S, _ = generator(*mesh, (v + torch.einsum("tbi,cdi->tbcd", x, V)).flatten(0, 1))
    return torch.linalg.matrix_norm(S, 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("i", [1, 2, 30])
@pytest.mark.parametrize("norm", [1e-4, 0.3, 2.0, 50.0, 300.0])
def test_the_plan_suffices_and_is_not_absurd(dtype, i, norm):
    arguments = inputs(7, 3, 17, 9, 2, i, norm=norm, dtype=dtype, dt=1.0)
    for given, excess in ((arguments, 3.0), (symbols(arguments, i), 1.3)):
        x, _, _, v, V, b, w, N, G = given[:9]
        largest = float(norms(given).max())
        assert largest <= largest_generator(x, v, V, b, w, N, G) <= excess * largest
        _, k = planned_series(x, v, V, b, w, N, G, arguments[-2], 8)
        assert largest <= k * series_limit(8, dtype) <= excess * largest + series_limit(8, dtype)
        order, k = planned_series(x, v, V, b, w, N, G, arguments[-2], 0)
        assert largest <= k * min(series_limit(order, dtype), LARGEST_ARGUMENT)
        assert 8 <= order <= 40
        assert planned_series(x, 0 * v, 0 * V, b, w, N, G, arguments[-2], 0) == (8, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("field", ["one cell", "equal cells", "one node", "scales apart"])
def test_the_bound_holds_where_it_is_least_sharp_and_where_it_is_exact(dtype, field):
    # of one plane of rotation the moments tell the angle exactly; of many equal ones they have the most room
    arguments = inputs(4, 2, 16, 8, 1, 3, norm=1.0)
    x, _, _, v, V, b, w, N, G = arguments[:9]
    if field == "one cell":
        v[1:], V[1:] = 0, 0
    elif field == "equal cells":  # 8 planes of the same angle
        N, G = torch.zeros_like(N), torch.zeros_like(G)
        N[:, :8], G[:, 0, 8:] = torch.eye(8), torch.eye(8)
        v, V, b, w = torch.ones_like(v), torch.zeros_like(V), torch.ones_like(b), torch.ones_like(w)
    elif field == "one node":
        G[..., 1:] = 0
    else:
        w = w * torch.logspace(-6, 6, 8, dtype=F64)
    given = [t.to(dtype) for t in (x, v, V, b, w, N, G)]
    x, v, V, b, w, N, G = given
    largest = float(norms([x, x, x, v, V, b, w, N, G]).max())
    assert largest <= largest_generator(x, v, V, b, w, N, G)


def test_backends_plan_alike():
    for norm in (0.01, 1.0, 10.0):
        arguments = inputs(3, 2, 17, 9, 2, 2, "tanh", norm=norm, scale=0.1 if norm > 1 else 1.0)
        for given in (arguments, symbols(arguments)):
            for order in (None, 8):
                mine, reference = (run(given, "tanh", order=order, backend=name) for name in ("cpu", "reference"))
                assert relative_error(mine, reference) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", [0.0, 0.01, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("repeat", [False, True])
def test_planned_values_and_gradients(backend, repeat, norm, dtype):
    """Series of the planned degree and, where rows of x repeat, matrices."""
    arguments = inputs(9, 20, 6, 5, 2, 2, "tanh", norm=norm, dtype=dtype, dt=1.0, scale=0.0)
    if repeat:
        arguments = symbols(arguments)
    mine, exact = leaves(arguments), leaves([None if t is None else t.double() for t in arguments])
    hs, expected = run(mine, "tanh", backend=backend), loop(exact, "tanh", dense(1))
    tolerance = TOLERANCE[dtype] * max(1.0, norm)
    assert relative_error(hs, expected) < tolerance
    grad = torch.randn(hs.shape, dtype=dtype)
    # x apart from the others: with its gradient every row has its series
    for asked in (range(1, len(NAMES)), range(1)):
        names = [NAMES[k] for k in asked if mine[k] is not None and not (NAMES[k] == "divergence_scale" and norm > 1)]
        found = torch.autograd.grad(hs, [mine[NAMES.index(name)] for name in names], grad, retain_graph=True)
        wanted = torch.autograd.grad(
            expected, [exact[NAMES.index(name)] for name in names], grad.double(), retain_graph=True
        )
        for name, x, y in zip(names, found, wanted, strict=True):
            assert (x.double() - y).norm() < 20 * tolerance * max(float(y.norm()), 1.0), name


@pytest.mark.parametrize("volume_preserving", [False, True])
def test_fields_that_repeat(volume_preserving):
    """Matrices of the fields beside the series, in all gradients."""
    arguments = symbols(inputs(11, 24, 7, 4, 2, 3, norm=2.0), 3)
    k = planned_series(*(arguments[NAMES.index(name)] for name in ("x", "v", "V", "b", "w", "N", "G", "dt")), 0)[1]
    results = []
    for order, substeps in ((None, None), (30, k)):
        mine = leaves(arguments)
        mine[0].requires_grad_(False)
        hs = run(mine, "modrelu", order=order, substeps=substeps, volume_preserving=volume_preserving, backend="cpu")
        results.append((hs, *torch.autograd.grad(hs.square().sum(), mine[1:])))
    assert not torch.equal(results[0][0], results[1][0])  # they went different ways
    for x, y in zip(*results, strict=True):
        assert relative_error(x, y) < 1e-12


def test_a_bound_that_is_not_finite_is_named():
    with pytest.raises(RuntimeError, match=r"v, N and G must be finite and of moderate size.* is inf"):
        check_substeps(float("inf"), 8, 2, torch.float32)
