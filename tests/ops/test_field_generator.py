"""field_generator: S and delta against the formulas of model.md 1 and 2 in dense float64 matrices."""

import pytest
import torch

from tests.cases import DTYPES, SIZES, fast_and_thorough, non_contiguous, quick, random_mesh, relative_error
from vfrnn_kernels.field_generator import field_generator

F64 = torch.float64
MESHES = ((1, 3, 2), (2, 1, 1), (3, 5, 2), (17, 9, 3), (190, 6, 4), (257, 5, 1))


def operators(b, w, N, G, v):
    """D_v, its adjoint under B, and div v of one field v (m, d), written as in model.md 1."""
    P = (N * w[:, None]).mT / b[:, None]
    vG = torch.einsum("cd,cdj->cj", v, G)
    D = P @ vG
    D_adjoint = torch.einsum("cdi,cd,c,cj->ij", G, v, w, N) / b[:, None]
    return D, D_adjoint, -torch.einsum("cdj,c,cd->j", G, w, v) / b


def dense_generator(b, w, N, G, v):
    D, D_adjoint, delta = operators(b, w, N, G, v)
    root = b.sqrt()
    return root[:, None] * (D - D_adjoint) / 2 / root, delta


def edge_mesh(n, edges):
    """N and G of edges averaged at their midpoints."""
    N, G = torch.zeros(len(edges), n, dtype=F64), torch.zeros(len(edges), 1, n, dtype=F64)
    for c, (i, j) in enumerate(edges):
        N[c, i] = N[c, j] = 0.5
        G[c, 0, i], G[c, 0, j] = -1, 1
    return N, G


def complete(n):
    b, w = torch.rand(n, dtype=F64) + 0.5, torch.rand(n * (n - 1) // 2, dtype=F64) + 0.5
    N, G = edge_mesh(n, [(i, j) for i in range(n) for j in range(i + 1, n)])
    return b, w, N, G


def leaves(*arguments):
    return [t.clone().requires_grad_() for t in arguments]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_values(backend, sizes, dtype):
    n, m, d = sizes
    b, w, N, G = random_mesh(n, m, d, dtype)
    v = torch.randn(m, d, dtype=dtype)
    S, delta = field_generator(b, w, N, G, v, backend=backend)
    expected = dense_generator(*(t.double() for t in (b, w, N, G, v)))
    assert S.dtype == delta.dtype == dtype
    assert torch.equal(S, -S.mT)
    # sums of m d products in another order: sqrt(m d) eps, and a few eps for the scaling
    tolerance = 20 * torch.finfo(dtype).eps
    assert relative_error(S, expected[0]) < tolerance
    assert relative_error(delta, expected[1]) < tolerance


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_complete_mesh_equals_its_dense_edges(backend, n, dtype):
    if n < 100:
        b, w, N, G = (t.to(dtype) for t in complete(n))
        v = torch.randn(w.shape[0], 1, dtype=dtype)
        expected = field_generator(*(t.double() for t in (b, w, N, G, v)), backend="reference")
    else:  # its N alone would have 16 000 rows
        b, w = torch.rand(n, dtype=dtype) + 0.5, torch.rand(n * (n - 1) // 2, dtype=dtype) + 0.5
        v = torch.randn(w.shape[0], 1, dtype=dtype)
        i, j = torch.triu_indices(n, n, 1)
        S = torch.zeros(n, n, dtype=F64)
        S[i, j] = w.double() * v[:, 0].double() / (2 * (b.double()[i] * b.double()[j]).sqrt())
        S = S - S.mT
        root = b.double().sqrt()
        expected = S, 2 / root * (S @ root)
    S, delta = field_generator(b, w, None, None, v, backend=backend)
    assert torch.equal(S, -S.mT)
    tolerance = 20 * torch.finfo(dtype).eps  # delta is a sum of n terms
    assert relative_error(S, expected[0]) < tolerance
    assert relative_error(delta, expected[1]) < tolerance


def test_complete_mesh_with_unit_weights_is_the_plain_skew_matrix(backend):
    n = 17
    v = torch.randn(n * (n - 1) // 2, 1, dtype=F64)
    S, delta = field_generator(torch.ones(n, dtype=F64), 2 * torch.ones_like(v[:, 0]), None, None, v, backend=backend)
    i, j = torch.triu_indices(n, n, 1)
    plain = torch.zeros(n, n, dtype=F64)
    plain[i, j] = v[:, 0]
    plain = plain - plain.mT
    assert torch.equal(S, plain)
    torch.testing.assert_close(delta, 2 * plain.sum(1), rtol=0, atol=1e-13)


def test_identities(backend):
    b, w, N, G = random_mesh(17, 9, 3)
    v = torch.randn(9, 3, dtype=F64)
    S, delta = field_generator(b, w, N, G, v, backend=backend)
    D, D_adjoint, _ = operators(b, w, N, G, v)
    f, g, one = torch.randn(17, dtype=F64), torch.randn(17, dtype=F64), torch.ones(17, dtype=F64)
    root = b.sqrt()
    A = S * root / root[:, None]  # back from symmetric coordinates
    close = {"rtol": 0, "atol": 1e-12}  # 17 x 9 x 3 products of numbers near 1
    torch.testing.assert_close((b * (D @ f) * g).sum(), (b * f * (D_adjoint @ g)).sum(), **close)
    torch.testing.assert_close(A, (D - D_adjoint) / 2, **close)
    torch.testing.assert_close((b * delta).sum(), torch.zeros((), dtype=F64), **close)
    torch.testing.assert_close(D @ one, torch.zeros(17, dtype=F64), **close)
    T = A - torch.diag(delta) / 2
    torch.testing.assert_close(T @ one, torch.zeros(17, dtype=F64), **close)
    assert (T - D).norm() > 0.1 * D.norm()  # a general mesh has no discrete product rule


def test_split_form_is_the_derivative_on_midpoint_edges(backend):
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (2, 4)]
    N, G = edge_mesh(5, edges)
    b, w = torch.rand(5, dtype=F64) + 0.5, torch.rand(6, dtype=F64) + 0.5
    v = torch.randn(6, 1, dtype=F64)
    S, delta = field_generator(b, w, N, G, v, backend=backend)
    root = b.sqrt()
    T = S * root / root[:, None] - torch.diag(delta) / 2
    torch.testing.assert_close(T, operators(b, w, N, G, v)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("general", [True, False])
def test_batches(backend, shape, general):
    b, w, N, G = random_mesh(5, 10, 2) if general else (*complete(5)[:2], None, None)
    v = torch.randn(*shape, 10, 2 if general else 1, dtype=F64)
    S, delta = field_generator(b, w, N, G, v, backend=backend)
    assert S.shape == (*shape, 5, 5)
    assert delta.shape == (*shape, 5)
    for k, field in enumerate(v.reshape(-1, *v.shape[-2:])):
        one = field_generator(b, w, N, G, field, backend=backend)
        torch.testing.assert_close(S.reshape(-1, 5, 5)[k], one[0], rtol=0, atol=1e-15)
        torch.testing.assert_close(delta.reshape(-1, 5)[k], one[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_gradients(backend, sizes, dtype):
    n, m, d = sizes
    b, w, N, G = random_mesh(n, m, d, dtype)
    arguments = leaves(b, w, N, G, torch.randn(2, m, d, dtype=dtype))
    grads = torch.randn(2, n, n, dtype=dtype), torch.randn(2, n, dtype=dtype)
    actual = torch.autograd.grad(field_generator(*arguments, backend=backend), arguments, grads)
    exact = leaves(*(t.detach().double() for t in arguments))
    results = [dense_generator(*exact[:4], v) for v in exact[4]]
    outputs = torch.stack([S for S, _ in results]), torch.stack([delta for _, delta in results])
    expected = torch.autograd.grad(outputs, exact, tuple(g.double() for g in grads))
    for name, x, y in zip("bwNGv", actual, expected, strict=True):
        # sums of up to n^2 terms with cancellation
        assert relative_error(x, y) < 200 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("n", SIZES)
def test_gradients_on_the_complete_mesh(backend, n):
    b, w = torch.rand(n, dtype=F64) + 0.5, torch.rand(n * (n - 1) // 2, dtype=F64) + 0.5
    arguments = leaves(b, w, torch.randn(w.shape[0], 1, dtype=F64))
    grad_S, grad_delta = torch.randn(n, n, dtype=F64), torch.randn(n, dtype=F64)
    result = field_generator(*arguments[:2], None, None, arguments[2], backend=backend)
    actual = torch.autograd.grad(result, arguments, (grad_S, grad_delta))
    i, j = torch.triu_indices(n, n, 1)
    b, w, v = arguments
    flux = w * v[:, 0]
    S_upper = flux / (2 * (b[i] * b[j]).sqrt())
    value = (S_upper * (grad_S - grad_S.mT)[i, j]).sum() + (
        flux * (grad_delta / b)[i] - flux * (grad_delta / b)[j]
    ).sum()
    for name, x, y in zip("bwv", actual, torch.autograd.grad(value, arguments), strict=True):
        assert relative_error(x, y) < 1e-12, name


@pytest.mark.parametrize("output", [0, 1])
def test_one_output_used(backend, output):
    b, w, N, G = random_mesh(5, 4, 2)
    arguments = leaves(b, w, N, G, torch.randn(4, 2, dtype=F64))
    actual = torch.autograd.grad(field_generator(*arguments, backend=backend)[output].square().sum(), arguments)
    expected = torch.autograd.grad(dense_generator(*arguments)[output].square().sum(), arguments, allow_unused=True)
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, torch.zeros_like(x) if y is None else y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("asked", ["b", "w", "N", "G", "v"])
def test_only_the_gradients_asked_for(backend, general, asked):
    if not general and asked in "NG":
        return
    b, w, N, G = random_mesh(5, 10, 1)
    arguments = dict(zip("bwNGv", (b, w, N, G, torch.randn(10, 1, dtype=F64)), strict=True))
    if not general:
        arguments["N"] = arguments["G"] = None
    everything = {k: t if t is None else t.clone().requires_grad_() for k, t in arguments.items()}
    sum(t.sum() for t in field_generator(**everything, backend=backend)).backward()
    arguments[asked] = arguments[asked].clone().requires_grad_()
    sum(t.sum() for t in field_generator(**arguments, backend=backend)).backward()
    assert torch.equal(arguments[asked].grad, everything[asked].grad)


@fast_and_thorough
@pytest.mark.parametrize("general", [True, False])
def test_gradcheck(backend, general, fast):
    b, w, N, G = random_mesh(3, 3, 2)
    if general:
        arguments = leaves(b, w, N, G, torch.randn(2, 3, 2, dtype=F64))

        def function(*args):
            return field_generator(*args, backend=backend)
    else:
        arguments = leaves(b, w, torch.randn(2, 3, 1, dtype=F64))

        def function(b, w, v):
            return field_generator(b, w, None, None, v, backend=backend)

    assert torch.autograd.gradcheck(function, arguments, fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=fast)


def test_gradcheck_fast_of_a_larger_mesh(backend):
    b, w, N, G = random_mesh(17, 9, 3)
    arguments = leaves(b, w, N, G, torch.randn(9, 3, dtype=F64))
    assert torch.autograd.gradcheck(lambda *a: field_generator(*a, backend=backend), arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *a: field_generator(*a, backend=backend), arguments, fast_mode=True)


def test_backward_twice_gives_the_same_bits(backend):
    b, w, N, G = random_mesh(17, 9, 3, torch.float32)
    arguments = leaves(b, w, N, G, torch.randn(2, 9, 3))
    results = field_generator(*arguments, backend=backend)
    grads = [torch.randn_like(t) for t in results]
    first = torch.autograd.grad(results, arguments, grads, retain_graph=True)
    second = torch.autograd.grad(results, arguments, grads, retain_graph=True)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_non_contiguous(backend):
    b, w, N, G = random_mesh(5, 4, 2)
    arguments = leaves(b, w, N, G, torch.randn(3, 4, 2, dtype=F64))
    strided = [non_contiguous(t) for t in arguments]
    expected = field_generator(*arguments, backend=backend)
    result = field_generator(*strided, backend=backend)
    assert all(torch.equal(x, y) for x, y in zip(result, expected, strict=True))
    grads = [torch.randn_like(t) for t in expected]
    actual = torch.autograd.grad(result, strided, [non_contiguous(g) for g in grads])
    for x, y in zip(actual, torch.autograd.grad(expected, arguments, grads), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("general", [True, False])
def test_opcheck(general):
    b, w, N, G = random_mesh(4, 6, 2)
    if not general:
        N, G = None, None
    v = torch.randn(2, 6, 2 if general else 1, dtype=F64)
    torch.library.opcheck(torch.ops.vfrnn_kernels.field_generator, (b, w, N, G, v))
    S, delta = torch.ops.vfrnn_kernels.field_generator(b, w, N, G, v)
    grads = torch.randn_like(S), torch.randn_like(delta)
    for needs in (31, 0b10000, 0b00011):
        backward = torch.ops.vfrnn_kernels.field_generator_backward
        torch.library.opcheck(backward, (*grads, b, w, N, G, v, S, delta, needs))


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
def test_compile(backend, general):
    b, w, N, G = random_mesh(4, 6, 1)
    b, w, v = leaves(b, w, torch.randn(6, 1, dtype=F64))
    mesh = (N, G) if general else (None, None)

    def loss(b, w, v):
        S, delta = field_generator(b, w, *mesh, v, backend=backend)
        return S.square().sum() + delta.sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for x, y in zip(*(torch.autograd.grad(f(b, w, v), (b, w, v)) for f in (loss, compiled)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-13)


def test_vmap_and_jacobian(backend):
    b, w, N, G = random_mesh(4, 3, 2)
    v = torch.randn(5, 3, 2, dtype=F64)
    S, delta = torch.func.vmap(lambda v: field_generator(b, w, N, G, v, backend=backend))(v)
    expected = field_generator(b, w, N, G, v, backend=backend)
    torch.testing.assert_close((S, delta), expected)
    # linear in v
    jacobian = torch.func.jacrev(lambda v: field_generator(b, w, N, G, v, backend=backend)[0])(v[0])
    torch.testing.assert_close(torch.einsum("ijcd,cd->ij", jacobian, v[0]), expected[0][0])


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("name", ["b", "w", "v"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_values_out_of_range(backend, name, value, general):
    b, w, N, G = random_mesh(4, 6, 1)
    arguments = {"b": b, "w": w, "N": N if general else None, "G": G if general else None}
    arguments["v"] = torch.randn(6, 1, dtype=F64)
    arguments[name].view(-1)[-1] = value
    if name == "v" and value == 0:
        assert field_generator(**arguments, backend=backend)[0].isfinite().all()
        return
    with pytest.raises(RuntimeError, match=f"{name} must be"):
        field_generator(**arguments, backend=backend)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"N": None}, ValueError, "N and G must both be given or both be None, got G alone"),
        ({"N": None, "G": None}, ValueError, r"w must have shape \(n \(n - 1\) / 2,\) with n = 4, got \(3,\)"),
        ({"b": torch.ones(4, 1, dtype=F64)}, ValueError, r"b must have shape \(n,\), got \(4, 1\)"),
        ({"b": torch.ones(0, dtype=F64)}, ValueError, "b must have at least one node"),
        ({"b": [1.0]}, TypeError, "b must be a tensor, got list"),
        ({"b": torch.ones(5, dtype=F64)}, ValueError, r"G must have shape \(m, d, n\) with m = 3, n = 5"),
        ({"w": torch.ones(3)}, TypeError, "w must have the dtype of b"),
        ({"N": torch.ones(3, 5, dtype=F64)}, ValueError, r"N must have shape \(m, n\)"),
        ({"v": torch.ones(3, dtype=F64)}, ValueError, r"v must have shape \(..., m, d\), got \(3,\)"),
        ({"v": torch.ones(3, 3, dtype=F64)}, ValueError, r"v must have shape \(..., m, d\) with m = 3, d = 2"),
        ({"v": torch.ones(3, 2, device="meta", dtype=F64)}, ValueError, "v must be on the device of b"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
    ids=str,
)
def test_bad_arguments(changes, error, message):
    arguments = dict(zip("bwNGv", (*random_mesh(4, 3, 2), torch.randn(3, 2, dtype=F64)), strict=True))
    with pytest.raises(error, match=message):
        field_generator(**{**arguments, **changes})
