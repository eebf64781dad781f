"""What only a GPU shows: long and odd sizes, CUDA graphs, streams, waiting, autocast and torch.compile of whole models.

test_gpu_ops.py has the op matrix at small sizes; here every backend that serves CUDA tensors is tested.
"""

import contextlib
import copy
import math
import warnings

import pytest
import torch
import torch._dynamo.testing
from torch import nn

import vfrnn
from tests.backends.gpu_cases import BACKENDS, CASES, DEVICE, GPU, LOW, NOT_RECORDED, assert_right, recurrence_case
from tests.backends.recurrence_rounding import assert_states
from tests.cases import (
    ACTIVATIONS,
    exact_exponential,
    exact_exponential_gradient,
    orthogonality_error,
    relative_error,
    skew_matrix,
)
from vfrnn_kernels import skew_expm

pytestmark = pytest.mark.skipif(not GPU, reason="needs a CUDA device")

DTYPES = (torch.float32, *LOW)

#: Cases with an n of which M stays on the chip, and some that go step by step on rows that are not aligned.
PLACES = [(name, 33) for name in CASES] + [("recurrence", 257), ("spectral_recurrence", 257)]
RECORDED = [place for place in PLACES if place[0] not in NOT_RECORDED]


@pytest.fixture(params=BACKENDS or ["none"])
def backend(request):
    return request.param


def outputs_and_gradients(case, leaves, weights, backend):
    """Everything that a call and its backward compute."""
    outputs = case.run(leaves, backend)
    present = [t for t in leaves if t is not None]
    return [*outputs, *torch.autograd.grad(outputs, present, weights, allow_unused=True, materialize_grads=True)]


def weights_of(case, leaves, backend):
    return [torch.randn_like(output) for output in case.run(leaves, backend)]


def recorded(function):
    """The function as a CUDA graph, warmed up: its results are those of the last replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph, results


@contextlib.contextmanager
def waiting_is_an_error():
    """Raises where the host waits for the device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- values and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("T", "B", "n", "i"), [(40, 33, 127, 17), (75, 17, 65, 1), (30, 130, 190, 16), (20, 7, 515, 3)], ids=str
)
def test_recurrence_against_float64(backend, T, B, n, i, dtype, activation):
    assert_right(recurrence_case(n, dtype, activation, T=T, B=B, i=i), backend)


@pytest.mark.parametrize("spectrum", ["gaussian", "flat"])
@pytest.mark.parametrize("norm", [0.3, math.pi, 10.0, 50.0])
@pytest.mark.parametrize("n", [31, 64, 65, 128, 190, 300])
def test_exponential_against_float64(backend, n, norm, spectrum):
    S = skew_matrix(n, norm, spectrum, torch.float32)
    grad = torch.randn(n, n)
    leaf = S.to(DEVICE).requires_grad_()
    Q = skew_expm(leaf, backend=backend)
    (gradient,) = torch.autograd.grad(Q, leaf, grad.to(DEVICE))
    # The targets of the design for float32, at each norm; twice, for other orders of summation.
    bound = 2e-6 if norm <= math.pi else 1e-5 if norm <= 10 else 3e-5
    assert orthogonality_error(Q.detach().cpu()) <= 2 * 3e-6
    assert relative_error(Q.cpu(), exact_exponential(S)) <= 2e-6 * max(1.0, norm)
    assert relative_error(gradient.cpu(), exact_exponential_gradient(S, grad)) <= 2 * bound
    assert torch.equal(gradient, -gradient.mT)


@pytest.mark.parametrize(("n", "K"), [(64, 64), (513, 2), (1000, 1)])
def test_large_exponentials(backend, n, K):
    S = torch.stack([skew_matrix(n, 10.0, dtype=torch.float32) for _ in range(K)]).to(DEVICE).requires_grad_()
    exact = S.detach().double().requires_grad_()
    grad = torch.randn(K, n, n, device=DEVICE)
    Q, right = skew_expm(S, backend=backend), torch.matrix_exp(exact)
    (gradient,), (skew_part,) = torch.autograd.grad(Q, S, grad), torch.autograd.grad(right, exact, grad.double())
    assert relative_error(Q, right) <= 2e-5
    assert relative_error(gradient, (skew_part - skew_part.mT) / 2) <= 2e-5


def test_what_the_cpu_refuses_is_nan(backend):
    S = torch.full((2, 40, 40), math.nan, device=DEVICE)
    S[1] = 0
    Q = skew_expm(S, backend=backend)
    assert Q[0].isnan().all()
    assert torch.equal(Q[1], torch.eye(40, device=DEVICE))


# ---- graphs, streams, waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), RECORDED)
def test_a_graph_follows_its_inputs(backend, name, n):
    case = CASES[name](n)
    leaves = case.leaves()
    weights = weights_of(case, leaves, backend)
    graph, found = recorded(lambda: outputs_and_gradients(case, leaves, weights, backend))
    for factor in (1.0, 0.5):
        with torch.no_grad():
            for t in leaves:
                if t is not None:
                    t.mul_(factor)
        graph.replay()
        for a, b in zip(found, outputs_and_gradients(case, leaves, weights, backend), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "n"), RECORDED)
def test_nothing_waits_for_the_device(backend, name, n):
    options = {"T": 75} if name == "recurrence" else {}
    case = CASES[name](n, **options)
    leaves = case.leaves()
    weights = weights_of(case, leaves, backend)
    outputs_and_gradients(case, leaves, weights, backend)  # compiles and loads what is needed
    with waiting_is_an_error():
        outputs_and_gradients(case, leaves, weights, backend)


@pytest.mark.parametrize(("name", "n"), PLACES)
def test_on_a_stream_of_its_own(backend, name, n):
    case = CASES[name](n)
    leaves = case.leaves()
    weights = weights_of(case, leaves, backend)
    expected = outputs_and_gradients(case, leaves, weights, backend)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = outputs_and_gradients(case, leaves, weights, backend)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("n", [128, 190])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_runs_beside_other_work_give_the_same_bits(backend, n, dtype):
    case = recurrence_case(n, dtype, "modrelu", T=100, B=150)
    leaves = case.leaves()
    weights = weights_of(case, leaves, backend)
    first = outputs_and_gradients(case, leaves, weights, backend)
    other, A = torch.cuda.Stream(), torch.randn(1024, 1024, device=DEVICE)
    for _ in range(10):
        with torch.cuda.stream(other):
            for _ in range(10):
                A = torch.tanh(A @ A)
        again = outputs_and_gradients(case, leaves, weights, backend)
        assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))


@pytest.mark.parametrize("n", [64, 190, 300])
def test_many_exponentials_give_the_same_bits(backend, n):
    S = torch.stack([skew_matrix(n, 10.0, dtype=torch.float32) for _ in range(8)]).to(DEVICE)
    first = skew_expm(S, backend=backend)
    for _ in range(10):
        assert torch.equal(skew_expm(S, backend=backend), first)
    # and each does not depend on its neighbours
    assert torch.equal(skew_expm(S[3], backend=backend), first[3])


@contextlib.contextmanager
def compiled_kernels():
    """The Triton kernels that are compiled meanwhile, also those found in the cache on disk."""
    import triton

    names = []
    before = triton.knobs.runtime.jit_cache_hook
    triton.knobs.runtime.jit_cache_hook = lambda **event: names.append(event["repr"]) and None
    try:
        yield names
    finally:
        triton.knobs.runtime.jit_cache_hook = before


@pytest.mark.skipif("triton" not in BACKENDS, reason="needs Triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [33, 128, 257])
def test_any_length_and_batch_is_compiled_once(n, dtype):
    def run(T, B):
        case = recurrence_case(n, dtype, T=T, B=B)
        leaves = case.leaves()
        outputs_and_gradients(case, leaves, weights_of(case, leaves, "triton"), "triton")

    run(75, 3)  # chunks and single steps
    with compiled_kernels() as names:
        for T, B in ((1, 1), (2, 16), (75, 4), (80, 17), (130, 64)):
            run(T, B)
    assert names == []


# ---- models ----------------------------------------------------------------------------------------------------------

MODELS = {
    "RNN": lambda n, **options: vfrnn.RNN(5, n, 2, bidirectional=True, **options),
    "VFRNN": lambda n, **options: vfrnn.VFRNN(5, n, substeps=2, **options),
    "OrthogonalRNN": lambda n, **options: vfrnn.OrthogonalRNN(5, n, **options),
    "VFRNN on a mesh": lambda n, **options: vfrnn.VFRNN(5, n, mesh=vfrnn.LatentMesh.grid(n), **options),
}


def model_and_exact(name, n, backend):
    """A model on the device, with every parameter away from where it is 0, and the same in float64 on the CPU."""
    model = MODELS[name](n, backend=backend)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    exact = copy.deepcopy(model).double()
    exact.backend = "reference"
    return model.to(DEVICE), exact


@pytest.mark.parametrize("n", [37, 150])
@pytest.mark.parametrize("name", MODELS)
def test_models_against_float64(backend, name, n):
    model, exact = model_and_exact(name, n, backend)
    x = torch.randn(20, 6, 5)
    output, right = model(x.to(DEVICE))[0], exact(x.double())[0]
    # 20 steps of a matrix that was rounded to float32
    assert relative_error(output.cpu(), right) <= 1e-4
    grad = torch.randn_like(right)
    output.backward(grad.to(DEVICE, torch.float32))
    right.backward(grad)
    for (key, a), b in zip(model.named_parameters(), exact.parameters(), strict=True):
        # modReLU is not differentiable where it begins to act: an entry there may fall on either side
        assert relative_error(a.grad.cpu(), b.grad) <= 5e-3, key


@pytest.mark.parametrize("n", [37, 150])
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_waits_for_nothing(backend, name, n):
    model, _ = model_and_exact(name, n, backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(75, 6, 5, device=DEVICE)

    def step():
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()

    step()
    with waiting_is_an_error():
        step()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_library_layer_gives_the_same(backend, nonlinearity, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    peer = nn.RNN(7, 90, 2, nonlinearity=nonlinearity, device=DEVICE)
    ours = vfrnn.RNN(7, 90, 2, nonlinearity=nonlinearity, device=DEVICE, backend=backend)
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(50, 20, 7, device=DEVICE)
    for a, b in zip(ours(x), peer(x), strict=True):
        assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [64, 150])
def test_autocast_of_a_model(backend, n, dtype):
    model, _ = model_and_exact("OrthogonalRNN", n, backend)
    x = torch.randn(20, 6, 5)
    with torch.autocast("cuda", dtype):
        output = model(x.to(DEVICE))[0]
        M = model.step_matrix()
    assert output.dtype == M.dtype == torch.float32
    # the exponential keeps its length
    assert orthogonality_error(M.detach().cpu()) <= 1e-5
    tensors = [t.detach().to(dtype) for t in (x.to(DEVICE), model.weight_ih_l0, M)]
    tensors = [*tensors[:2], model.bias_l0.detach(), tensors[2], output.new_zeros(6, n), model.beta_l0.detach()]
    assert_states(output.detach(), tensors, "modrelu", splits=backend == "triton")
    output.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


class Classifier(nn.Module):
    """A layer and a head."""

    def __init__(self, layer, n):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(n, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][-1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch's own compiler
@pytest.mark.parametrize("name", ["RNN", "VFRNN", "OrthogonalRNN"])
def test_compile_of_a_model(backend, name):
    layer = {
        "RNN": lambda: vfrnn.RNN(5, 40, backend=backend),
        "VFRNN": lambda: vfrnn.VFRNN(5, 40, backend=backend),
        "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(5, 40, backend=backend),
    }[name]()
    model = Classifier(layer, 40).to(DEVICE)
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for T, B in ((6, 3), (9, 5), (40, 17), (75, 33)):
        x = torch.randn(T, B, 5, device=DEVICE)
        found, expected = compiled(x), model(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        parameters = list(model.parameters())
        for a, b in zip(
            torch.autograd.grad(found.square().sum(), parameters),
            torch.autograd.grad(expected.square().sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    # once for the first shape, once for all others
    assert counter.frame_count <= 2


def test_training_on_the_device(backend):
    torch.manual_seed(0)
    model = Classifier(vfrnn.VFRNN(5, 40, backend=backend), 40).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = torch.randn(30, 64, 5, device=DEVICE)
    labels = (x.sum((0, 2)) > 0).long()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert losses[-1] < 0.5 * losses[0]
