"""What modules do besides computing: dtypes, devices, copies on disk, initialisation, torch.nn.RNN's methods."""

import copy
import pickle

import pytest
import torch
from torch import nn

import vfrnn
from vfrnn import LatentMesh

NETWORKS = ("RNN", "VFRNN", "OrthogonalRNN", "InputFieldRNN")
EVERY = pytest.mark.parametrize("name", [*NETWORKS, *(f"{name}Cell" for name in NETWORKS)])
LOW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def module(name, **options):
    if name == "VFRNN on a mesh":
        return vfrnn.VFRNN(3, 5, mesh=LatentMesh.random(5, 6, 2, learn=("b", "N", "G")), **options)
    if "InputField" in name:
        where = {key: options[key] for key in ("device", "dtype") if key in options}
        options["mesh"] = LatentMesh.random(5, 6, 2, **where)
    return getattr(vfrnn, name)(3, 5, **options)


def example(module_, T=4, B=2, dtype=torch.float32):
    return torch.randn(*(() if "Cell" in type(module_).__name__ else (T,)), B, 3).to(dtype)


def tensors(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("name", [*NETWORKS, *(f"{name}Cell" for name in NETWORKS), "VFRNN on a mesh"])
@LOW
def test_16_bit_weights_compute_in_float32_on_the_cpu(name, dtype):
    """The results are those of the same numbers in float32, rounded once per layer: to one rounding."""
    low = module(name).to(dtype)
    wide = copy.deepcopy(low).float()
    x = example(low, T=30, dtype=dtype)
    for result, expected in zip(tensors(low(x)), tensors(wide(x.float())), strict=True):
        assert result.dtype == dtype
        assert torch.equal(result, expected.to(dtype))
    tensors(low(x))[0].sum().backward()
    tensors(wide(x.float()))[0].sum().backward()
    for (key, p), (_, q) in zip(low.named_parameters(), wide.named_parameters(), strict=True):
        assert p.grad.dtype == dtype
        # wide has its gradient of ones from unrounded states: a few roundings of the largest entry.
        bound = 8 * torch.finfo(dtype).eps * q.grad.abs().max()
        assert (p.grad.float() - q.grad).abs().max() <= bound, key


@LOW
def test_16_bit_weights_run_on_the_compiled_kernels(dtype):
    """backend="cpu" refuses 16-bit tensors: it is given float32."""
    for name in NETWORKS:
        network = module(name, backend="cpu", dtype=dtype, num_layers=2)
        assert network(example(network, dtype=dtype))[0].dtype == dtype


def test_a_16_bit_field_keeps_lengths():
    M = vfrnn.OrthogonalRNN(3, 17, dtype=torch.bfloat16).step_matrix()
    assert M.dtype == torch.float32
    assert (M.mT @ M - torch.eye(17)).abs().max() < 1e-5


@EVERY
def test_to_and_back(name):
    one = module(name)
    before = {key: value.clone() for key, value in one.state_dict().items()}
    assert {p.dtype for p in one.double().parameters()} == {torch.float64}
    assert tensors(one(example(one, dtype=torch.float64)))[0].dtype == torch.float64
    one.to("cpu", torch.float32)
    assert all(torch.equal(value, before[key]) for key, value in one.state_dict().items())


@EVERY
def test_copies_are_equal_and_apart(name, tmp_path):
    one = module(name)
    torch.save(one, tmp_path / "module.pt")
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other = module(name)
    assert other.load_state_dict(torch.load(tmp_path / "state.pt")) == ([], [])
    x = example(one)
    expected = tensors(one(x))
    for same in (
        other,
        copy.deepcopy(one),
        pickle.loads(pickle.dumps(one)),
        torch.load(tmp_path / "module.pt", weights_only=False),
    ):
        assert all(map(torch.equal, tensors(same(x)), expected))
        assert not {p.data_ptr() for p in same.parameters()} & {p.data_ptr() for p in one.parameters()}
        assert repr(same) == repr(one)


@EVERY
def test_state_of_a_newer_version_is_refused(name):
    state = module(name).state_dict()
    assert state._metadata[""]["version"] == 1
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match=f"{name} must have version 1 or older, got 2"):
        module(name).load_state_dict(state)


@EVERY
def test_meta_then_real_parameters(name):
    """Construction on meta costs nothing; to_empty and reset_parameters give what the seed gives."""
    torch.manual_seed(5)
    expected = module(name).state_dict()
    late = module(name, device="meta")
    assert all(value.is_meta for value in late.state_dict().values())
    assert tensors(late(example(late).to("meta")))[0].is_meta
    late.to_empty(device="cpu")
    torch.manual_seed(5)
    if "InputField" in name:  # a mesh that was given keeps its values, which to_empty lost
        late.mesh.load_state_dict(LatentMesh.random(5, 6, 2).state_dict())
    late.reset_parameters()
    assert all(torch.equal(value, expected[key]) for key, value in late.state_dict().items())


@EVERY
def test_skip_init(name):
    mesh = LatentMesh.random(5, 6, 2, device="meta", dtype=torch.float64)
    options = {"mesh": mesh} if "InputField" in name else {}
    skipped = nn.utils.skip_init(getattr(vfrnn, name), 3, 5, dtype=torch.float64, **options)
    assert all(not value.is_meta and value.dtype == torch.float64 for value in skipped.state_dict().values())
    drawn = module(name, dtype=torch.float64)
    skipped.load_state_dict(drawn.state_dict())
    x = example(drawn, dtype=torch.float64)
    assert all(map(torch.equal, tensors(skipped(x)), tensors(drawn(x))))


@EVERY
def test_under_a_default_device_and_dtype(name):
    with torch.device("meta"):
        assert all(value.is_meta for value in module(name).state_dict().values())
        for mesh in (LatentMesh.random(3, 4), LatentMesh.from_edges(3, [(0, 1)]), LatentMesh.grid(2, 2)):
            assert all(value.is_meta for value in mesh.state_dict().values())
    torch.set_default_dtype(torch.float64)
    try:
        assert {value.dtype for value in module(name).state_dict().values()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)


def test_reset_parameters_keeps_a_given_mesh():
    mesh = LatentMesh.random(5, 6, 2)
    before = {key: value.clone() for key, value in mesh.state_dict().items()}
    network = vfrnn.VFRNN(3, 5, mesh=mesh)
    network.reset_parameters()
    mesh.reset_parameters()
    assert all(torch.equal(value, before[key]) for key, value in mesh.state_dict().items())


@pytest.mark.parametrize("learn", [(), ("b", "w")])
def test_reset_parameters_of_a_complete_mesh(learn):
    mesh = LatentMesh.complete(4, learn=learn)
    with torch.no_grad():
        for value in mesh.state_dict().values():
            value.fill_(7.0)
    mesh.reset_parameters()
    torch.testing.assert_close(mesh.b, torch.ones(4))
    torch.testing.assert_close(mesh.w, torch.full((6,), 2.0))


def test_a_parametrized_weight_is_computed_once_per_forward():
    network, calls = vfrnn.RNN(3, 5), []

    class Counted(nn.Module):
        def forward(self, weight):
            calls.append(weight.shape)
            return weight * 2

    for name in ("weight_ih_l0", "weight_hh_l0"):
        nn.utils.parametrize.register_parametrization(network, name, Counted())
    calls.clear()
    network(example(network))
    assert calls == [(5, 3), (5, 5)] or calls == [(5, 5), (5, 3)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_training_step_copies_no_weight(name, packed):
    # No batch or step has these sizes: what has a parameter's shape is a parameter.
    options = {"mesh": LatentMesh.random(13, 6, 2)} if "InputField" in name else {}
    network = getattr(vfrnn, name)(7, 13, 2, bidirectional=True, **options)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    shapes = {tuple(p.shape) for p in network.parameters()}
    x = nn.utils.rnn.pack_sequence([torch.randn(4, 7), torch.randn(2, 7)]) if packed else torch.randn(4, 2, 7)
    network(x)[1].sum().backward()
    # Kept gradients are added to; a first one is cloned where two parameters (the biases of RNN) share it.
    optimizer.zero_grad(set_to_none=False)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        network(x)[1].sum().backward()
        optimizer.step()
    copied = [
        (event.name, shape)
        for event in profile.events()
        if event.name in ("aten::copy_", "aten::clone", "aten::_to_copy")
        for shape in event.input_shapes
        if tuple(shape) in shapes
    ]
    assert not copied
