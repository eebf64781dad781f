"""Every op on the backend "triton" against the reference in float64: one matrix of op x size x dtype x layout.

On a GPU, else in Triton's interpreter on small sizes (`make test`), where bfloat16 is not to be trusted and left out.
"""

import math

import pytest
import torch
from torch import Tensor

from tests.cases import non_contiguous, random_mesh, relative_error, skew_matrix
from vfrnn_kernels import field_flow, field_generator, recurrence, skew_expm, strang_step
from vfrnn_kernels.library import triton_kernels
from vfrnn_kernels.loader import TRITON_INTERPRETED, TRITON_MISSING
from vfrnn_kernels.recurrence import ACTIVATIONS

GPU = torch.cuda.is_available() and not TRITON_INTERPRETED
pytestmark = pytest.mark.skipif(
    TRITON_MISSING is not None or not (GPU or TRITON_INTERPRETED),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)

DEVICE = "cuda" if GPU else "cpu"
SIZES = (1, 2, 17, 64, 128, 190, 257) if GPU else (1, 2, 17, 37)
LOW = (torch.float16, torch.bfloat16) if GPU else (torch.float16,)
#: An n for which M is not resident, so that the recurrence goes step by step: in the interpreter, made so.
STEP_N = 257 if GPU else 37


@pytest.fixture(autouse=True)
def _small_residents(monkeypatch):
    if not GPU:
        monkeypatch.setattr(triton_kernels("recurrence"), "resident_limit", lambda dtype: STEP_N - 1)


class Case:
    """Tensors and a call of one op; the tolerance is in units of eps, relative, for values and for gradients."""

    def __init__(self, tensors, call, values=30.0, gradients=60.0):
        self.tensors, self.call, self.values, self.gradients = tensors, call, values, gradients

    def leaves(self, layout=lambda t: t) -> list[Tensor | None]:
        moved = (None if t is None else layout(t.to(DEVICE)) for t in self.tensors)
        return [None if t is None else t.detach().requires_grad_() for t in moved]

    def run(self, tensors, backend="triton") -> tuple[Tensor, ...]:
        return self.call(*tensors, backend=backend)


def recurrence_case(n, dtype=torch.float32, activation="tanh", T=4, B=3, i=3, state=None, bias=True) -> Case:
    state = state or dtype
    tensors = [
        torch.randn(T, B, i).to(dtype),
        (torch.randn(n, i) / math.sqrt(i or 1)).to(dtype),
        torch.randn(n).to(state) if bias else None,
        (torch.randn(n, n) * (0.4 / math.sqrt(n))).to(dtype),  # |M| is about 0.8: rounding does not grow with t
        torch.randn(B, n).to(state),
        (0.3 * torch.randn(n)).to(state) if activation == "modrelu" else None,
    ]

    def call(x, U, c, M, h0, beta, backend):
        return (recurrence(x, U, c, M, h0, activation, beta, backend=backend),)

    # A sum of n + i products rounds by its root in eps.
    return Case(tensors, call, 30 * math.sqrt(n + i), 30 * math.sqrt(n + i))


def skew_expm_case(n, norm=1.0, K=2) -> Case:
    S = torch.stack([skew_matrix(n, norm, dtype=torch.float32) for _ in range(K)]) if K else torch.zeros(0, n, n)
    # Values 1e-6 max(1, norm), gradients 2e-6 up to norm pi and 1e-5 up to 10 (targets of the design) in eps = 1.2e-7.
    scale = max(1.0, norm)
    return Case(
        [S, torch.linspace(0.5, 1, K)],
        lambda S, dt, backend: (skew_expm(S, dt, backend=backend),),
        10 * scale,
        20 * scale,
    )


def strang_step_case(n, norm=1.0, K=2, substeps=2) -> Case:
    tensors = [*skew_expm_case(n, norm, K).tensors, 0.3 * torch.randn(K, n)]

    def call(S, dt, delta, backend):
        return (strang_step(S, delta, dt, substeps, backend=backend),)

    return Case(tensors, call, 20 * max(1.0, norm), 60 * max(1.0, norm))


def field_generator_case(n, K=2, complete=False, m=9, d=2) -> Case:
    b, w, N, G = random_mesh(n, m, d, torch.float32)
    if complete:
        m, d = n * (n - 1) // 2, 1
        w, N, G = torch.rand(m) + 0.5, None, None
    return Case([b, w, N, G, torch.randn(K, m, d)], lambda *t, backend: field_generator(*t, backend=backend))


def field_flow_case(n, B=3 if GPU else 2, per_sample=False, substeps=2, volume_preserving=False) -> Case:
    b, w, N, G = random_mesh(n, 9, 2, torch.float32)
    v = torch.randn(*([B] if per_sample else []), 9, 2)
    tensors = [torch.randn(B, n), v, b, w, N, G, torch.tensor(0.2 / n), torch.tensor(0.7)]

    def call(*tensors, backend):
        return (field_flow(*tensors, volume_preserving=volume_preserving, substeps=substeps, backend=backend),)

    return Case(tensors, call, 60, 200)


CASES = {
    "recurrence": recurrence_case,
    "skew_expm": skew_expm_case,
    "strang_step": strang_step_case,
    "field_generator": field_generator_case,
    "field_generator complete": lambda n, **options: field_generator_case(n, complete=True, **options),
    "field_flow": field_flow_case,
    "field_flow per sample": lambda n, **options: field_flow_case(n, per_sample=True, **options),
}


def small_case(name: str, n: int) -> Case:
    """One matrix, one substep instead of two: the interpreter's time is one program's after the other."""
    few = {"field_flow": {"substeps": 1}, "skew_expm": {"K": 1}, "strang_step": {"K": 1}}
    return CASES[name](n, **few.get(name.split()[0], {}))


def gradients(outputs, tensors, weights) -> list[Tensor | None]:
    present = [t for t in tensors if t is not None and t.requires_grad]
    return list(torch.autograd.grad(outputs, present, weights, allow_unused=True, materialize_grads=True))


def assert_right(case: Case, layout=lambda t: t) -> None:
    leaves = case.leaves(layout)
    exact_leaves = [None if t is None else t.detach().double().requires_grad_() for t in leaves]
    outputs, exact = case.run(leaves), case.run(exact_leaves, "reference")
    eps = max(torch.finfo(t.dtype).eps for t in leaves if t is not None)
    for found, right in zip(outputs, exact, strict=True):
        assert found.shape == right.shape
        assert relative_error(found, right) <= case.values * eps
    weights = [torch.randn_like(right) for right in exact]
    low = [weight.to(found.dtype) for weight, found in zip(weights, outputs, strict=True)]
    expected = gradients(exact, exact_leaves, [weight.double() for weight in low])
    for k, (found, right) in enumerate(zip(gradients(outputs, leaves, low), expected, strict=True)):
        # Sums of terms of size 1 that may cancel: the error is relative to the terms, so to 1 at least.
        assert (found.double() - right).norm() <= case.gradients * eps * max(float(right.norm()), 1.0), k
    for leaf, gradient in zip(
        [t for t in leaves if t is not None], gradients(case.run(leaves), leaves, low), strict=True
    ):
        assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, n):
    assert_right(CASES[name](n) if GPU or n < 37 else small_case(name, n))


@pytest.mark.parametrize("name", CASES)
def test_non_contiguous(name):
    assert_right(CASES[name](5), non_contiguous)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_recurrence_in_every_dtype_and_activation(n, dtype, activation):
    for i in (3, 20) if n == 17 or GPU else (3,):
        assert_right(recurrence_case(n, dtype, activation, T=3, i=i))


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_a_float32_state_beside_products_in_16_bits(n, dtype):
    case = recurrence_case(n, dtype, "modrelu", state=torch.float32)
    assert_right(case)
    (hs,) = case.run(case.leaves())
    assert hs.dtype == torch.float32
    if n == 17:  # the input product is made in the kernel, so that no result is rounded to 16 bits
        (exact,) = case.run([None if t is None else t.double() for t in case.leaves()], "reference")
        assert relative_error(hs, exact) < 1e-5


@pytest.mark.parametrize(("T", "B", "i"), [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (2, 35, 2)], ids=str)
@pytest.mark.parametrize("n", [5, STEP_N])
def test_recurrence_sizes(n, T, B, i):
    assert_right(recurrence_case(n, torch.float32, "modrelu", T=T, B=B, i=i, bias=i != 1))


@pytest.mark.parametrize("name", ["skew_expm", "strang_step", "field_generator", "field_generator complete"])
@pytest.mark.parametrize("K", [0, 3])
def test_batches(name, K):
    assert_right(CASES[name](5, K=K))


@pytest.mark.parametrize("name", ["skew_expm", "strang_step"])
@pytest.mark.parametrize("norm", [0.0, 0.05, 3.0, 10.0])
def test_norms(name, norm):
    assert_right(CASES[name](9, norm=norm))


@pytest.mark.parametrize("name", CASES)
def test_only_what_is_needed(name):
    case = small_case(name, 11)
    leaves = case.leaves()
    outputs = case.run(leaves)
    weights = [torch.randn_like(output) for output in outputs]
    every = iter(gradients(outputs, leaves, weights))
    for k, leaf in enumerate(leaves):
        if leaf is None:
            continue
        some = [None if t is None else t.detach().requires_grad_(j == k) for j, t in enumerate(leaves)]
        (found,) = gradients(case.run(some), some, weights)
        torch.testing.assert_close(found, next(every), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_every_time(name):
    case = small_case(name, 21 if GPU else 7)
    leaves = case.leaves()
    outputs, again = case.run(leaves), case.run(leaves)
    weights = [torch.randn_like(output) for output in outputs]
    present = [t for t in leaves if t is not None]
    first = torch.autograd.grad(outputs, present, weights, retain_graph=True)
    second = torch.autograd.grad(outputs, present, weights)
    third = torch.autograd.grad(again, present, weights)
    for a, b, c in zip((*outputs, *first), (*outputs, *second), (*again, *third), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("name", CASES)
def test_compile(name):
    case = small_case(name, 5)
    leaves = case.leaves()
    present = [t for t in leaves if t is not None]

    def loss(*values):
        remaining = iter(values)
        outputs = case.run([None if t is None else next(remaining) for t in leaves])
        return sum(output.square().sum() for output in outputs)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(f(*present), present) for f in (compiled, loss))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_double_backward_and_vmap(name):
    case = small_case(name, 3)
    leaves = case.leaves()
    present = [t for t in leaves if t is not None]

    def penalty(backend, *values):
        remaining = iter(values)
        outputs = case.run([None if t is None else next(remaining) for t in leaves], backend)
        energy = sum(output.square().sum() for output in outputs)
        (gradient,) = torch.autograd.grad(energy, values[:1], create_graph=True)
        return gradient.square().sum()

    for a, b in zip(
        *(torch.autograd.grad(penalty(k, *present), present, materialize_grads=True) for k in ("triton", "reference")),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

    def energy(first):
        return sum(output.square().sum() for output in case.run([first, *leaves[1:]]))

    stack = torch.stack([leaves[0].detach(), leaves[0].detach() / 2])
    together = torch.func.vmap(torch.func.grad(energy))(stack)
    one_by_one = torch.stack([torch.func.grad(energy)(row) for row in stack])
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    case, op = small_case(name, 5), name.split()[0]
    library = getattr(torch.ops.vfrnn_kernels, f"{op}_triton")
    found = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "_triton" in str(function):
                found.append((function, args))
            return function(*args, **(kwargs or {}))

    with Recorder():
        leaves = case.leaves()
        outputs = case.run(leaves)
        gradients(outputs, leaves, [torch.ones_like(output) for output in outputs])
    assert [function.overloadpacket for function, _ in found] == [
        library,
        getattr(torch.ops.vfrnn_kernels, f"{op}_triton_backward"),
    ]
    for function, args in found:
        detached = tuple(arg.detach() if isinstance(arg, Tensor) else arg for arg in args)
        torch.library.opcheck(function, detached, test_utils=("test_schema", "test_faketensor"))


def apply(activation, z, beta=None) -> Tensor:
    """act on a vector, through one step without a state."""
    zero, one = z.new_zeros(len(z), 1), z.new_ones(1, 1)
    return recurrence(z[None, :, None], one, None, one, zero, activation, beta, backend="triton").flatten()


def test_tanh_is_accurate():
    # identity: the product with U = 1 is exact in float32 in the interpreter, and in three TensorFloat32 parts
    z = torch.cat([torch.linspace(-10, 10, 1001), torch.logspace(-30, 1, 301), torch.tensor([0.0, 1e30, -1e30])]).to(
        DEVICE
    )
    exact = torch.tanh(z.double())
    found = apply("tanh", z)
    assert ((found.double() - exact).abs() <= 8 * torch.finfo(torch.float32).eps * exact.abs()).all()
    assert torch.equal(apply("tanh", -z), -found)


def test_a_nan_stays_one():
    z = torch.tensor([math.nan, 1.0], device=DEVICE)
    for activation in ACTIVATIONS:
        beta = torch.full((1,), -0.5, device=DEVICE) if activation == "modrelu" else None
        assert apply(activation, z, beta).isnan().tolist() == [True, False]


def test_an_inactive_unit_has_no_gradient():
    for activation in ("modrelu", "relu"):
        case = recurrence_case(1, activation=activation, T=1, B=1, i=1)
        case.tensors = [None if t is None else torch.ones_like(t) for t in case.tensors]
        case.tensors[0], case.tensors[2], case.tensors[4] = torch.zeros(1, 1, 1), torch.zeros(1), torch.zeros(1, 1)
        leaves = case.leaves()
        (hs,) = case.run(leaves)
        assert hs.item() == 0
        assert all(g.abs().max() == 0 for g in gradients((hs,), leaves, (torch.ones_like(hs),)))


def test_autocast():
    leaves = recurrence_case(17).leaves()
    with torch.autocast(DEVICE, torch.float16):
        hs = recurrence(*leaves[:5], "tanh", backend="triton")
        mixed = recurrence(leaves[0].half(), *leaves[1:5], "tanh", backend="triton")
        Q = skew_expm(leaves[3] - leaves[3].T, backend="triton")
    assert hs.dtype == mixed.dtype == Q.dtype == torch.float32
    assert torch.equal(hs, mixed)
    x, U, c, M, h0 = (t.detach() for t in leaves[:5])
    assert torch.equal(hs, recurrence(x.half(), U.half(), c, M.half(), h0, "tanh", backend="triton"))
    assert torch.equal(Q, skew_expm(M - M.T, backend="triton"))
    for gradient, leaf in zip(torch.autograd.grad(hs.sum(), leaves[:5]), leaves, strict=False):
        assert gradient.dtype == leaf.dtype


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_cuda_graph(name):
    for n in (33, STEP_N) if name == "recurrence" else (33,):
        case = CASES[name](n)
        leaves = case.leaves()
        expected = case.run(leaves)
        weights = [torch.randn_like(output) for output in expected]
        wanted = [*expected, *gradients(expected, leaves, weights)]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = case.run(leaves)
            found = [*outputs, *gradients(outputs, leaves, weights)]
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("n", [17, STEP_N])
def test_long_sequences(n):
    # 64 + 8 + 3 steps: chunks of both lengths and single steps
    for activation in ("tanh", "modrelu"):
        assert_right(recurrence_case(n, activation=activation, T=75, B=33))


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_other_lengths_and_batches_compile_nothing(name):
    import triton

    def sizes(k):
        if name == "recurrence":
            return {"T": k, "B": k}
        return {"B": k} if name.startswith("field_flow") else {"K": k}

    def run(k):
        for n in (33, STEP_N) if name == "recurrence" else (33,):
            case = CASES[name](n, **sizes(k))
            leaves = case.leaves()
            outputs = case.run(leaves)
            gradients(outputs, leaves, [torch.ones_like(output) for output in outputs])

    run(3)
    compiled = []
    before = triton.knobs.runtime.jit_cache_hook
    triton.knobs.runtime.jit_cache_hook = lambda **event: compiled.append(event["repr"]) and None
    try:
        for k in (1, 2, 16, 17, 64):
            run(k)
    finally:
        triton.knobs.runtime.jit_cache_hook = before
    assert compiled == []
