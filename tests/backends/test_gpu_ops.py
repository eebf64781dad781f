"""Every op on the backends of a GPU against the reference in float64: one matrix of op x size x dtype x layout.

On a GPU, else on small sizes in Triton's interpreter (`make test`) and in the simulator of CUDA kernels.
"""

import math

import pytest
import torch
from torch import Tensor

from tests import oracles
from tests.backends.gpu_cases import (
    BACKENDS,
    CASES,
    DEVICE,
    GPU,
    LOW,
    NOT_RECORDED,
    SIZES,
    STEP_N,
    assert_right,
    flow_recurrence_case,
    gradients,
    recurrence_case,
    small_case,
    spectral_recurrence_case,
)
from tests.cases import ACTIVATIONS, non_contiguous, quick, relative_error
from vfrnn_kernels import final_state, recurrence, skew_expm
from vfrnn_kernels.library import triton_kernels
from vfrnn_kernels.loader import TRITON_INTERPRETED

pytestmark = pytest.mark.skipif(
    not BACKENDS, reason="needs a GPU, TRITON_INTERPRET=1 with Triton, or VFRNN_CUDA_SIMULATED"
)


@pytest.fixture(params=BACKENDS or ["none"])
def backend(request):
    return request.param


#: What `make test` tries where the kernels of an op are not what is tested, but how they are called: those with the
#: least to interpret.
FEW = ("recurrence", "skew_expm", "field_generator")


@pytest.fixture(autouse=True)
def _small_residents(monkeypatch):
    if TRITON_INTERPRETED and BACKENDS:
        monkeypatch.setattr(triton_kernels("recurrence"), "resident_limit", lambda dtype: STEP_N - 1)
        monkeypatch.setattr(triton_kernels("spectral_recurrence"), "resident_limit", lambda: STEP_N - 1)


@pytest.mark.parametrize("n", quick(SIZES, 17))
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(backend, name, n):
    assert_right(CASES[name](n) if GPU or n < 37 else small_case(name, n), backend)


@pytest.mark.parametrize("name", quick(CASES, *FEW))
def test_non_contiguous(backend, name):
    assert_right(CASES[name](5), backend, non_contiguous)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_recurrence_in_every_dtype_and_activation(backend, n, dtype, activation):
    for i in (3, 20) if n == 17 or GPU else (3,):
        assert_right(recurrence_case(n, dtype, activation, T=3, i=i), backend)


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_a_float32_state_beside_products_in_16_bits(backend, n, dtype):
    case = recurrence_case(n, dtype, "modrelu", state=torch.float32)
    assert_right(case, backend)
    (hs,) = case.run(case.leaves(), backend)
    assert hs.dtype == torch.float32
    if backend == "triton":  # it splits the state for its products; the CUDA kernels round what enters them
        (exact,) = case.run([None if t is None else t.double() for t in case.leaves()], "reference")
        assert relative_error(hs, exact) < 1e-5


@pytest.mark.parametrize(("T", "B", "i"), [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (2, 35, 2)], ids=str)
@pytest.mark.parametrize("n", [5, STEP_N])
def test_recurrence_sizes(backend, n, T, B, i):
    assert_right(recurrence_case(n, torch.float32, "modrelu", T=T, B=B, i=i, bias=i != 1), backend)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_spectral_recurrence_in_every_activation(backend, n, activation):
    divergence = activation != "identity"
    assert_right(spectral_recurrence_case(n, activation=activation, substeps=2, divergence=divergence), backend)


@pytest.mark.parametrize(("T", "B"), [(0, 3), (3, 0), (1, 1), (2, 35)], ids=str)
@pytest.mark.parametrize("n", [5, STEP_N])
def test_spectral_recurrence_sizes(backend, n, T, B):
    assert_right(spectral_recurrence_case(n, T=T, B=B), backend)


@pytest.mark.parametrize("activation", quick(ACTIVATIONS, "modrelu"))
def test_flow_recurrence_in_every_activation(backend, activation):
    substeps = 2 if activation == "relu" else 1
    case = flow_recurrence_case(7, activation=activation, substeps=substeps, volume_preserving=substeps == 2)
    assert_right(case, backend)


@pytest.mark.parametrize(("T", "B"), [(0, 3), (3, 0), (1, 1)], ids=str)
def test_flow_recurrence_sizes(backend, T, B):
    assert_right(flow_recurrence_case(5, T=T, B=B), backend)


def test_flow_recurrence_plans_its_substeps(backend):
    case, right = flow_recurrence_case(5, substeps=None), flow_recurrence_case(5, substeps=1)
    right.tensors = case.tensors
    leaves = case.leaves()
    torch.testing.assert_close(case.run(leaves, backend), right.run(leaves, backend))


@pytest.mark.parametrize("reversible", [False, True])
def test_the_last_state_alone(backend, reversible, monkeypatch):
    monkeypatch.setattr(final_state, "LEAST_NUMBERS", 0)
    case = recurrence_case(5, T=5)
    if reversible:
        case.tensors[3] = torch.linalg.qr(case.tensors[3]).Q
    activation = "identity" if reversible else "tanh"
    case.options |= {"activation": activation, "return_sequence": False, "reversible": reversible}
    assert_right(case, backend)


@pytest.mark.parametrize("name", ["skew_expm", "strang_step", "field_generator", "field_generator complete"])
@pytest.mark.parametrize("K", quick([0, 3], 0))
def test_batches(backend, name, K):
    assert_right(CASES[name](5, K=K), backend)


@pytest.mark.parametrize("name", ["skew_expm", "strang_step"])
@pytest.mark.parametrize("norm", quick([0.0, 0.05, 3.0, 10.0], 3.0))
def test_norms(backend, name, norm):
    assert_right(CASES[name](9, norm=norm), backend)


@pytest.mark.parametrize("name", quick(CASES, *FEW, "spectral_recurrence", "strang_step"))
def test_only_what_is_needed(backend, name):
    case = small_case(name, 11)
    leaves = case.leaves()
    outputs = case.run(leaves, backend)
    weights = [torch.randn_like(output) for output in outputs]
    every = iter(gradients(outputs, leaves, weights))
    for k, leaf in enumerate(leaves):
        if leaf is None:
            continue
        some = [None if t is None else t.detach().requires_grad_(j == k) for j, t in enumerate(leaves)]
        (found,) = gradients(case.run(some, backend), some, weights)
        torch.testing.assert_close(found, next(every), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", quick(CASES, *FEW))
def test_the_same_bits_every_time(backend, name):
    case = small_case(name, 21 if GPU else 7)
    leaves = case.leaves()
    outputs, again = case.run(leaves, backend), case.run(leaves, backend)
    weights = [torch.randn_like(output) for output in outputs]
    present = [t for t in leaves if t is not None]
    first = torch.autograd.grad(outputs, present, weights, retain_graph=True)
    second = torch.autograd.grad(outputs, present, weights)
    third = torch.autograd.grad(again, present, weights)
    for a, b, c in zip((*outputs, *first), (*outputs, *second), (*again, *third), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("name", quick(CASES, "recurrence"))
def test_compile(backend, name):
    case = small_case(name, 5)
    leaves = case.leaves()
    present = [t for t in leaves if t is not None]

    def loss(*values):
        remaining = iter(values)
        outputs = case.run([None if t is None else next(remaining) for t in leaves], backend)
        return sum(output.square().sum() for output in outputs)

    torch.compiler.reset()  # one function is compiled only so many times
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = (torch.autograd.grad(f(*present), present) for f in (compiled, loss))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", quick(CASES, "recurrence"))
def test_double_backward_and_vmap(backend, name):
    case = small_case(name, 3)
    leaves = case.leaves()
    present = [t for t in leaves if t is not None]

    def penalty(kind, *values):
        remaining = iter(values)
        outputs = case.run([None if t is None else next(remaining) for t in leaves], kind)
        energy = sum(output.square().sum() for output in outputs)
        (gradient,) = torch.autograd.grad(energy, values[:1], create_graph=True)
        return gradient.square().sum()

    for a, b in zip(
        *(torch.autograd.grad(penalty(k, *present), present, materialize_grads=True) for k in (backend, "reference")),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

    def energy(first):
        return sum(output.square().sum() for output in case.run([first, *leaves[1:]], backend))

    stack = torch.stack([leaves[0].detach(), leaves[0].detach() / 2])
    together = torch.func.vmap(torch.func.grad(energy))(stack)
    one_by_one = torch.stack([torch.func.grad(energy)(row) for row in stack])
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("name", quick(CASES, *FEW))
def test_opcheck(backend, name):
    case, op = small_case(name, 5), name.split()[0] + ("_triton" if backend == "triton" else "")
    library = torch.ops.vfrnn_kernels
    found = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if str(function).startswith(f"vfrnn_kernels.{op}"):
                found.append((function, args))
            return function(*args, **(kwargs or {}))

    with Recorder():
        leaves = case.leaves()
        outputs = case.run(leaves, backend)
        gradients(outputs, leaves, [torch.ones_like(output) for output in outputs])
    assert [f.overloadpacket for f, _ in found] == [getattr(library, op), getattr(library, f"{op}_backward")]
    for function, args in found:
        detached = tuple(arg.detach() if isinstance(arg, Tensor) else arg for arg in args)
        torch.library.opcheck(function, detached, test_utils=("test_schema", "test_faketensor"))


def apply(backend, activation, z, beta=None) -> Tensor:
    """act on a vector, through one step without a state."""
    zero, one = z.new_zeros(len(z), 1), z.new_ones(1, 1)
    return recurrence(z[None, :, None], one, None, one, zero, activation, beta, backend=backend).flatten()


def test_tanh_is_accurate(backend):
    # identity: the product with U = 1 is exact in float32 in the interpreter, and in three TensorFloat32 parts
    z = torch.cat([torch.linspace(-10, 10, 1001), torch.logspace(-30, 1, 301), torch.tensor([0.0, 1e30, -1e30])]).to(
        DEVICE
    )
    exact = torch.tanh(z.double())
    found = apply(backend, "tanh", z)
    assert ((found.double() - exact).abs() <= 8 * torch.finfo(torch.float32).eps * exact.abs()).all()
    assert torch.equal(apply(backend, "tanh", -z), -found)


def test_a_nan_stays_one(backend):
    z = torch.tensor([math.nan, 1.0], device=DEVICE)
    for activation in ACTIVATIONS:
        beta = torch.full((1,), -0.5, device=DEVICE) if oracles.takes_beta(activation) else None
        assert apply(backend, activation, z, beta).isnan().tolist() == [True, False]


def test_an_inactive_unit_has_no_gradient(backend):
    for activation in ("modrelu", "relu"):
        case = recurrence_case(1, activation=activation, T=1, B=1, i=1)
        case.tensors = [None if t is None else torch.ones_like(t) for t in case.tensors]
        case.tensors[0], case.tensors[2], case.tensors[4] = torch.zeros(1, 1, 1), torch.zeros(1), torch.zeros(1, 1)
        leaves = case.leaves()
        (hs,) = case.run(leaves, backend)
        assert hs.item() == 0
        assert all(g.abs().max() == 0 for g in gradients((hs,), leaves, (torch.ones_like(hs),)))


def test_autocast(backend):
    leaves = recurrence_case(17).leaves()
    with torch.autocast(DEVICE.type, torch.float16):
        hs = recurrence(*leaves[:5], "tanh", backend=backend)
        mixed = recurrence(leaves[0].half(), *leaves[1:5], "tanh", backend=backend)
        Q = skew_expm(leaves[3] - leaves[3].T, backend=backend)
    assert hs.dtype == mixed.dtype == Q.dtype == torch.float32
    assert torch.equal(hs, mixed)
    x, U, c, M, h0 = (t.detach() for t in leaves[:5])
    assert torch.equal(hs, recurrence(x.half(), U.half(), c, M.half(), h0, "tanh", backend=backend))
    assert torch.equal(Q, skew_expm(M - M.T, backend=backend))
    for gradient, leaf in zip(torch.autograd.grad(hs.sum(), leaves[:5]), leaves, strict=False):
        assert gradient.dtype == leaf.dtype


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_RECORDED])
def test_cuda_graph(backend, name):
    for n in (33, STEP_N) if name == "recurrence" else (33,):
        case = CASES[name](n)
        leaves = case.leaves()
        expected = case.run(leaves, backend)
        weights = [torch.randn_like(output) for output in expected]
        wanted = [*expected, *gradients(expected, leaves, weights)]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = case.run(leaves, backend)
            found = [*outputs, *gradients(outputs, leaves, weights)]
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("n", [17, STEP_N])
def test_long_sequences(backend, n):
    # 64 + 8 + 3 steps: chunks of both lengths and single steps
    for activation in ("tanh", "modrelu"):
        assert_right(recurrence_case(n, activation=activation, T=75, B=33), backend)


@pytest.mark.skipif(not GPU or "triton" not in BACKENDS, reason="needs a GPU and Triton")
@pytest.mark.parametrize("name", CASES)
def test_other_lengths_and_batches_compile_nothing(name):
    import triton

    def sizes(k):
        if name.endswith("recurrence"):
            return {"T": k, "B": k}
        return {"B": k} if name.startswith("field_flow") else {"K": k}

    def run(k):
        for n in (33, STEP_N) if name == "recurrence" else (33,):
            case = CASES[name](n, **sizes(k))
            leaves = case.leaves()
            outputs = case.run(leaves, "triton")
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
