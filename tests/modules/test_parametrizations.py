"""vfrnn.parametrizations.orthogonal does what PyTorch's and geotorch's do, and rebases."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal as torch_orthogonal

import vfrnn
from tests.cases import exact_exponential, orthogonality_error, relative_error
from vfrnn import skew_expm
from vfrnn.parametrizations import orthogonal, rebase

SHAPES = [(1, 1), (4, 4), (17, 17), (5, 4), (4, 5), (1, 3), (2, 4, 4), (2, 3, 6, 4), (2, 4, 6), (0, 3, 3)]
DTYPES = [torch.float32, torch.float64]


def holder(shape, dtype=torch.float64):
    """A module with a random matrix `weight`."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    return module


def assert_orthogonal(Q):
    tall = Q.mT if Q.shape[-2] < Q.shape[-1] else Q
    # PyTorch's own tolerance.
    tolerance = 10 * tall.shape[-2] * torch.finfo(Q.dtype).eps
    eye = torch.eye(tall.shape[-1], dtype=Q.dtype).expand(*tall.shape[:-2], -1, -1)
    torch.testing.assert_close(tall.mT @ tall, eye, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("use_trivialization", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_gradients_and_state_are_torchs(shape, use_trivialization, dtype):
    theirs = holder(shape, dtype)
    ours = copy.deepcopy(theirs)
    for register, module in ((torch_orthogonal, theirs), (orthogonal, ours)):
        torch.manual_seed(1)  # the columns that complete a tall matrix are random
        register(module, "weight", "matrix_exp", use_trivialization=use_trivialization)
    # Generators of norm ~ 5: some hundreds of roundings.
    tolerance = 1000 * torch.finfo(dtype).eps
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=tolerance, atol=tolerance)
    thin = ["parametrizations.weight.0.polar"] if use_trivialization and shape[-1] != shape[-2] else []
    assert list(ours.state_dict()) == [*theirs.state_dict(), *thin]

    with torch.no_grad():
        theirs.parametrizations.weight.original.normal_()
    ours.load_state_dict(theirs.state_dict())
    assert_orthogonal(ours.weight)
    grad, step = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    our, their = (
        (module.weight, *torch.autograd.grad(module.weight, module.parametrizations.weight.original, grad))
        for module in (ours, theirs)
    )
    torch.testing.assert_close(our[0], their[0], rtol=tolerance, atol=tolerance)
    if not thin:
        torch.testing.assert_close(our[1], their[1], rtol=tolerance, atol=tolerance)
    # The same step in both parameters, which is turned like the parameter where the bases are completed differently.
    ours.load_state_dict(theirs.state_dict() | {"parametrizations.weight.original": step})
    turned = ours.parametrizations.weight.original.detach()
    slopes = [(g * s).sum((-2, -1)) for g, s in ((our[1], turned), (their[1], step))]
    torch.testing.assert_close(*slopes, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_orthogonal_value_is_assigned_exactly(shape, dtype):
    module, start = holder(shape, dtype), torch.randn(shape, dtype=dtype)
    for matrix in start.flatten(0, -3) if start.dim() > 2 else [start]:
        nn.init.orthogonal_(matrix)
    with torch.no_grad():
        module.weight.copy_(start)
    orthogonal(module)
    assert torch.equal(module.weight, start)
    with torch.no_grad():
        module.parametrizations.weight.original.normal_()
    module.weight = start
    assert torch.equal(module.weight, start)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
def test_another_value_is_orthogonalised_by_qr(shape):
    module, value = orthogonal(holder(shape)), torch.randn(shape, dtype=torch.float64)
    module.weight = value
    tall = value if shape[0] >= shape[1] else value.mT
    Q, R = torch.linalg.qr(tall)
    Q = Q * R.diagonal().sign()
    torch.testing.assert_close(module.weight, Q if shape[0] >= shape[1] else Q.mT)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 4)], ids=str)
@pytest.mark.parametrize("use_trivialization", [True, False])
def test_training_stays_on_the_manifold_and_moves(shape, use_trivialization):
    module = orthogonal(holder(shape, torch.float32), use_trivialization=use_trivialization)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    target, losses, start = torch.randn(shape), [], module.weight.detach().clone()
    for _ in range(5):
        loss = (module.weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert_orthogonal(module.weight)
    assert losses[-1] < losses[0] - 0.1
    if shape == (4, 4) and use_trivialization:  # O(n) has two components: the determinant's sign cannot change
        torch.testing.assert_close(torch.linalg.det(module.weight), torch.linalg.det(start))


def test_gradcheck():
    module = orthogonal(holder((5, 3)))
    matrix = module.parametrizations.weight[0]
    assert torch.autograd.gradcheck(matrix, torch.randn(5, 3, dtype=torch.float64, requires_grad=True))


def test_errors():
    with pytest.raises(ValueError, match="has no parameter or buffer with name 'foo'"):
        orthogonal(nn.Linear(3, 4), "foo")
    with pytest.raises(ValueError, match=r"Expected a matrix or batch of matrices. Got a tensor of 1 dimensions."):
        orthogonal(nn.Linear(3, 4), "bias")
    for call in (
        vfrnn.parametrizations.orthogonal,
        vfrnn.parametrizations.rebase,
        vfrnn.parametrizations.once_per_forward,
    ):
        with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, got NoneType"):
            call(None)
    with pytest.raises(TypeError, match="name must be a str, got int"):
        vfrnn.parametrizations.orthogonal(nn.Linear(2, 2), 0)
    with pytest.raises(ValueError, match="has to be one of"):
        orthogonal(nn.Linear(3, 4), "weight", "foo")
    with pytest.raises(ValueError, match="weight must be real, got torch"):
        orthogonal(nn.Linear(3, 4, dtype=torch.complex64))
    with pytest.raises((RuntimeError, ValueError), match="nowhere"):
        orthogonal(nn.Linear(3, 4), backend="nowhere")
    layer = orthogonal(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="matrices of shape"):
        layer.weight = torch.randn(5, 5)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert_orthogonal(layer.weight)
    layer = orthogonal(nn.Linear(3, 4), use_trivialization=False)
    with pytest.raises(NotImplementedError, match="assign to the matrix exponential"):
        layer.weight = torch.randn(4, 3)


def test_without_base_the_weight_is_the_exponential_of_the_lower_triangle():
    module = holder((4, 4))
    lower = module.weight.detach().tril(-1)
    orthogonal(module, use_trivialization=False)
    assert relative_error(module.weight, exact_exponential(lower - lower.mT)) < 1e-13


@pytest.mark.parametrize(("shape", "op"), [((3, 3), "skew_expm"), ((3, 2), "thin_skew_expm")])
def test_the_backend_is_the_one_named(monkeypatch, shape, op):
    seen, function = [], getattr(vfrnn, op)
    monkeypatch.setattr(
        f"vfrnn.trivializations.{op}", lambda S, *, backend: seen.append(backend) or function(S, backend=backend)
    )
    assert_orthogonal(orthogonal(holder(shape), backend="reference").weight)
    assert seen == ["reference"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_rounded_once(dtype):
    layer = orthogonal(nn.Linear(40, 30, dtype=dtype))
    assert layer.weight.dtype == dtype
    # Rounding unit columns changes their products by one rounding at most.
    assert orthogonality_error(layer.weight.detach().mT) < 2 * torch.finfo(dtype).eps
    value = layer.weight.detach().clone()
    layer.weight = value
    assert torch.equal(layer.weight, value)


def test_autocast_changes_nothing():
    layer = orthogonal(nn.Linear(4, 4))
    nn.init.normal_(layer.parametrizations.weight.original)
    with torch.autocast("cpu", torch.bfloat16):
        orthogonal(nn.Linear(3, 5))
        inside = layer.weight
    assert torch.equal(inside, layer.weight)


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6), (2, 4, 4)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rebase_keeps_the_weight_and_the_parameter(shape, dtype):
    module = orthogonal(holder(shape, dtype))
    original = module.parametrizations.weight.original
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    nn.init.normal_(original)
    before = module.weight.detach().clone()
    assert rebase(module) == 1
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(module.weight, before, rtol=0, atol=tolerance)
    assert not original.any()
    module.weight.sum().backward()
    optimizer.step()  # the same parameter as before
    assert original.any()
    assert (module.weight - before).abs().max() > tolerance


def test_many_rebases_do_not_drift():
    module = orthogonal(holder((8, 8), torch.float32))
    for _ in range(300):
        nn.init.normal_(module.parametrizations.weight.original)
        rebase(module)
    # A few roundings. Without the Newton step they add up over the rebases.
    assert orthogonality_error(module.weight.detach()) < 5e-7


def test_dynamic_trivialization_learns_what_is_far_away():
    """A target more than pi away from the first base, reached by gradient steps with a rebase every tenth."""
    torch.manual_seed(3)
    target = exact_exponential(torch.randn(6, 6, dtype=torch.float64).sub(torch.randn(6, 6).mT).tril(-1).mul(2))
    target = torch.linalg.qr(target).Q
    target[:, 0] *= torch.linalg.det(target).sign()
    module = holder((6, 6))
    with torch.no_grad():
        module.weight.copy_(torch.eye(6))
    orthogonal(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(300):
        optimizer.zero_grad()
        (module.weight - target).square().sum().backward()
        optimizer.step()
        if step % 10 == 9:
            rebase(module)
    assert relative_error(module.weight, target) < 1e-3


def test_rebase_needs_a_base_and_to_be_first():
    with pytest.raises(ValueError, match="module must have an orthogonal parametrization with a base, got none"):
        rebase(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="got none"):
        rebase(orthogonal(nn.Linear(3, 3), use_trivialization=False))
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(ValueError, match="to be the first of its tensor"):
        rebase(orthogonal(layer))


def test_compile_has_no_graph_break():
    layer = orthogonal(nn.Linear(4, 6))
    nn.init.normal_(layer.parametrizations.weight.original)
    x, compiled = torch.randn(2, 4), torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    expected = torch.autograd.grad(layer(x).sum(), list(layer.parameters()))
    for one, other in zip(torch.autograd.grad(compiled(x).sum(), list(layer.parameters())), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_geotorchs_hook_takes_our_exponential():
    so = pytest.importorskip("geotorch.so", reason="geotorch is not installed")
    layers = []
    for triv in ("expm", skew_expm):
        torch.manual_seed(0)
        matrix, layer = so.SO((5, 5), triv=triv).double(), holder((5, 5))
        with torch.no_grad():
            layer.weight.copy_(matrix.sample())
        parametrize.register_parametrization(layer, "weight", matrix)
        nn.init.normal_(layer.parametrizations.weight.original)
        layers.append(
            (layer.weight, torch.autograd.grad(layer.weight[0].sum(), layer.parametrizations.weight.original))
        )
        assert matrix.in_manifold(layer.weight, in_so=True)
    torch.testing.assert_close(layers[1], layers[0])


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (3, 4, 4)], ids=str)
def test_training_in_so_n_takes_geotorchs_path(shape):
    geotorch = pytest.importorskip("geotorch", reason="geotorch is not installed")
    so = geotorch.so.SO(shape)
    start, target = so.sample(), so.sample()
    ours, theirs = holder(shape, torch.float32), holder(shape, torch.float32)
    for module in (ours, theirs):
        with torch.no_grad():
            module.weight.copy_(start)
    orthogonal(ours)
    parametrize.register_parametrization(theirs, "weight", so)
    for module, move in ((ours, rebase), (theirs, lambda module: geotorch.utils.update_base(module, "weight"))):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for step in range(8):
            if step == 4:
                move(module)
            optimizer.zero_grad()
            (module.weight - target).square().sum().backward()
            optimizer.step()
    assert so.in_manifold(ours.weight, in_so=True)  # at geotorch's tolerance
    # Eight steps, each with some roundings of an exponential.
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-5)
    original = ours.parametrizations.weight.original
    torch.testing.assert_close(original, theirs.parametrizations.weight.original, rtol=1e-4, atol=1e-5)
