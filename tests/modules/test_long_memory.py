"""return_sequence=False of the networks: the end of the sequence, in memory that hardly grows with T."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from vfrnn_bench import long_memory

from vfrnn import RNN, VFRNN, InputFieldRNN, LatentMesh, OrthogonalRNN

F64 = torch.float64


def network(kind, *args, **kwargs):
    """With all parameters away from 0."""
    model = kind(2, 5, *args, dtype=F64, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_the_end(model, x, expected_rows, **options):
    """Both ways, with hx; `expected_rows(output)` finds the last states in the sequence."""
    batch = x.shape[1 if not model.batch_first else 0] if x.dim() == 3 else None
    shape = (model.num_layers * (1 + model.bidirectional), batch, 5)
    hx = torch.randn([size for size in shape if size is not None], dtype=F64, requires_grad=True)
    given = [*model.parameters(), hx]
    results = []
    for sequence in (False, True):
        output, h_n = model(x, hx, return_sequence=sequence, **options)
        output = expected_rows(output) if sequence else output
        grads = torch.autograd.grad(output.square().sum() + h_n.sum(), given)
        results.append((output, h_n, *grads))
    for mine, wanted in zip(*results, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-12)


MODELS = {
    "RNN": lambda **options: network(RNN, **options),
    "VFRNN": lambda **options: network(VFRNN, **options),
    "orthogonal": lambda **options: network(OrthogonalRNN, **options),
    "identity": lambda **options: network(OrthogonalRNN, nonlinearity="identity", **options),
    "input": lambda **options: network(InputFieldRNN, mesh=LatentMesh.random(5, cells=3, dim=2, dtype=F64), **options),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_end_of_the_sequence(name):
    assert_the_end(MODELS[name](), torch.randn(7, 3, 2, dtype=F64), lambda output: output[-1])
    assert_the_end(MODELS[name](), torch.randn(7, 2, dtype=F64), lambda output: output[-1])


def test_layers_and_directions():
    model = network(VFRNN, 2, bidirectional=True, batch_first=True)
    x = torch.randn(3, 7, 2, dtype=F64)
    # the second direction ends at the first step
    assert_the_end(model, x, lambda output: torch.cat([output[:, -1, :5], output[:, 0, 5:]], -1))


def test_irregular_times():
    for kind in (VFRNN, OrthogonalRNN):
        assert_the_end(
            network(kind), torch.randn(7, 3, 2, dtype=F64), lambda output: output[-1], dt=torch.randn(7, 3, dtype=F64)
        )


def test_packed_sequences_end_elsewhere():
    packed = pack_sequence([torch.randn(4, 2, dtype=F64), torch.randn(2, 2, dtype=F64)])
    with pytest.raises(ValueError, match="return_sequence must be True for a PackedSequence"):
        network(VFRNN)(packed, return_sequence=False)


def test_only_an_orthogonal_linear_layer_turns_back():
    def kept(model):
        numbers = 0

        def pack(t):
            nonlocal numbers
            numbers += t.numel()
            return t

        x = torch.randn(400, 1, 2, dtype=F64)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model(x, return_sequence=False)
        return numbers - x.numel()

    linear, general = (network(kind, nonlinearity="identity") for kind in (OrthogonalRNN, VFRNN))
    small = network(OrthogonalRNN, nonlinearity="identity")
    assert kept(linear) == kept(small)
    assert kept(linear) < kept(general)


@pytest.mark.parametrize("T", [300_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_very_many_steps_in_little_memory(T):
    all_states, checkpointed, turned_back = (
        long_memory.in_fresh_process(kind, T)["bytes"] for kind in long_memory.KINDS
    )
    assert all_states > 240 * T  # the measurement sees them
    assert checkpointed < 40e6
    assert turned_back < 40e6
