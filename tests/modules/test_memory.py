"""The gradient over the lag: autograd of a plain loop in float64, for every kind of network and sequence."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import vfrnn

F64 = torch.float64
T, LAGS = 7, (1, 2, 5, 7)


def drawn(rnn: nn.Module) -> nn.Module:
    """Parameters that hide nothing: no zeros."""
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if "field" not in name or "input" in name:
                parameter.copy_(0.4 * torch.randn_like(parameter))
    return rnn


def jacobian_norms(step, h0: Tensor, length: int, lags=LAGS) -> Tensor:
    """Spectral norms of d h_T / d h_{T-k} of `h <- step(t, h)` on one sample, differentiated as a whole."""
    states = [h0]
    for t in range(length):
        states.append(step(t, states[-1]))

    def rest(k: int, h: Tensor) -> Tensor:
        for t in range(length - k, length):
            h = step(t, h)
        return h

    jacobians = [torch.autograd.functional.jacobian(lambda h, k=k: rest(k, h), states[length - k]) for k in lags]
    return torch.stack([torch.linalg.matrix_norm(J, ord=2) for J in jacobians])


def close(found, expected):
    torch.testing.assert_close(found, expected.detach().to(F64), rtol=1e-8, atol=1e-12)


def test_a_plain_network_against_a_loop():
    rnn = drawn(vfrnn.RNN(2, 4, dtype=F64))
    x, h0 = torch.randn(T, 3, 2, dtype=F64), torch.randn(1, 3, 4, dtype=F64)
    (found,) = vfrnn.inspect(rnn, (x, h0), lags=LAGS).layers
    c = rnn.bias_ih_l0 + rnn.bias_hh_l0
    for b in range(3):
        expected = jacobian_norms(
            lambda t, h, b=b: torch.tanh(rnn.weight_hh_l0 @ h + rnn.weight_ih_l0 @ x[t, b] + c), h0[0, b], T
        )
        close(found.gradient[:, b], expected)
    assert found.gradient.shape == (4, 3)
    assert found.lags == LAGS


@pytest.mark.parametrize("batch_first", [False, True])
def test_layers_and_directions_read_what_lies_below_them(batch_first):
    rnn = drawn(vfrnn.VFRNN(2, 3, num_layers=2, bidirectional=True, batch_first=batch_first, dtype=F64))
    x = torch.randn(T, 2, 2, dtype=F64)
    layers = vfrnn.inspect(rnn, x.transpose(0, 1) if batch_first else x, lags=LAGS).layers
    assert [layer.suffix for layer in layers] == ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    below = x
    for k in range(2):
        outputs = []
        for reverse in (False, True):
            suffix = f"_l{k}" + ("_reverse" if reverse else "")
            M, U, c, beta = (
                rnn.step_matrix(k, reverse),
                *(getattr(rnn, n + suffix) for n in ("weight_ih", "bias", "beta")),
            )
            seen = below.flip(0) if reverse else below

            def step(t, h, b, M=M, U=U, c=c, beta=beta, seen=seen):
                z = M @ h + U @ seen[t, b] + c
                return z.sign() * torch.relu(z.abs() + beta)

            for b in range(2):
                close(
                    layers[2 * k + reverse].gradient[:, b], jacobian_norms(lambda t, h, b=b: step(t, h, b), h0_of(3), T)
                )
            hs = []
            for b in range(2):
                h, states = h0_of(3), []
                for t in range(T):
                    h = step(t, h, b)
                    states.append(h)
                hs.append(torch.stack(states))
            states = torch.stack(hs, 1).detach()
            outputs.append(states.flip(0) if reverse else states)
        below = torch.cat(outputs, -1)


def h0_of(n: int) -> Tensor:
    return torch.zeros(n, dtype=F64)


@pytest.mark.parametrize("shape", [(T,), (T, 2)])
def test_times_that_come_with_the_data_are_followed(shape):
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = drawn(vfrnn.VFRNN(2, 4, nonlinearity="tanh", init="cayley", dtype=F64))

        def forward(self, x, dt):
            return self.rnn(x, dt=dt)[0]

    model, x, dt = Timed(), torch.randn(T, 2, 2, dtype=F64), torch.rand(shape, dtype=F64)
    (found,) = vfrnn.inspect(model, (x, dt), lags=LAGS).layers
    rnn = model.rnn
    for b in range(2):
        times = dt if dt.dim() == 1 else dt[:, b]
        matrices = [rnn.step_matrix(dt=time) for time in times]
        expected = jacobian_norms(
            lambda t, h, b=b, Ms=matrices: torch.tanh(Ms[t] @ h + rnn.weight_ih_l0 @ x[t, b] + rnn.bias_l0), h0_of(4), T
        )
        close(found.gradient[:, b], expected)
    assert f"whose steps last {dt.min():.3g} to {dt.max():.3g}" in found.notes[-1]


def test_a_packed_example_is_one_sequence_after_the_other():
    rnn = drawn(vfrnn.OrthogonalRNN(2, 4, nonlinearity="tanh", bidirectional=True, dtype=F64))
    xs = [torch.randn(length, 2, dtype=F64) for length in (4, 7, 5)]
    packed = vfrnn.inspect(rnn, pack_sequence(xs, enforce_sorted=False), lags=(1, 4)).layers
    for b, x in enumerate(xs):
        for layer, alone in zip(packed, vfrnn.inspect(rnn, x, lags=(1, 4)).layers, strict=True):
            close(layer.gradient[:, b : b + 1], alone.gradient)
    assert vfrnn.inspect(rnn, pack_sequence(xs, enforce_sorted=False)).layers[0].lags == (1, 2, 3, 4)  # the shortest


def test_a_field_that_reads_the_input_is_followed():
    mesh = vfrnn.LatentMesh.grid(2, 3, dtype=F64)
    rnn = drawn(vfrnn.InputFieldRNN(2, 6, mesh=mesh, nonlinearity="tanh", dtype=F64, init="cayley"))
    with torch.no_grad():
        rnn.divergence_scale_l0.zero_()  # substeps are planned for every call, and change what the splitting leaves
    x = torch.randn(3, 1, 2, dtype=F64)
    (found,) = vfrnn.inspect(rnn, x, lags=(1, 2)).layers
    expected = jacobian_norms(lambda t, h: rnn(x[t : t + 1], h.view(1, 1, 6))[1].view(6), h0_of(6), 3, (1, 2))
    close(found.gradient[:, 0], expected)


def test_without_a_nonlinearity_it_is_the_powers_of_the_matrix():
    rnn = drawn(vfrnn.VFRNN(2, 4, nonlinearity="identity", dtype=F64))
    (found,) = vfrnn.inspect(rnn, torch.randn(T, 1, 2, dtype=F64), lags=LAGS).layers
    close(found.gradient[:, 0], found.linear_gradient)


def test_dead_units_forget_and_an_explosion_is_infinite():
    rnn = vfrnn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=F64)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(torch.eye(2))
        rnn.weight_ih_l0.fill_(-1.0)
    (found,) = vfrnn.inspect(rnn, torch.ones(3, 1, 1, dtype=F64)).layers
    assert found.gradient.tolist() == [[0.0]] * 3
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(1e200)
        rnn.weight_ih_l0.fill_(0.0)
    rnn.nonlinearity = "identity"
    (found,) = vfrnn.inspect(rnn, torch.zeros(2, 1, 1, dtype=F64)).layers
    assert found.gradient[1].item() == found.linear_gradient[1].item() == math.inf


def test_states_that_are_not_finite_are_nan_and_disturb_no_other_sample():
    rnn, x = drawn(vfrnn.RNN(1, 2, dtype=F64)), torch.ones(4, 2, 1, dtype=F64)
    x[0, 1] = math.nan
    (found,) = vfrnn.inspect(rnn, x, lags=(1, 2)).layers
    assert found.gradient[:, 1].isnan().all()
    close(found.gradient[:, :1], vfrnn.inspect(rnn, x[:, :1], lags=(1, 2)).layers[0].gradient)


def test_what_an_example_does_not_reach_is_said():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.cell = vfrnn.RNN(2, 3), vfrnn.RNN(2, 3), vfrnn.RNNCell(2, 3)

        def forward(self, x):
            return self.used(self.used(x)[0][..., :2])  # the first call counts

    used, unused, cell = vfrnn.inspect(Half(), torch.randn(5, 2, 2)).layers
    assert used.gradient.shape == (len(used.lags), 2)
    assert used.notes[-1] == "used: the gradient over the lag is that of 2 example sequences."
    assert unused.gradient is cell.gradient is None
    assert unused.notes[-1] == "unused: the model did not call this network with the example."
    assert "a cell is called step by step" in cell.notes[-1]
