"""How people train: autocast, GradScaler, compiled and exported models, checkpointing, accumulated gradients."""

import copy
import io
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import vfrnn
from tests.cases import quick
from tests.modules.loops import F64, construct, loop

NETWORKS = (vfrnn.RNN, vfrnn.VFRNN, vfrnn.OrthogonalRNN)
every_network = pytest.mark.parametrize("network_type", NETWORKS)


class Model(torch.nn.Module):
    """A layer, and what reads it: what users compile, export and train."""

    def __init__(self, network_type, **options):
        super().__init__()
        self.embed = torch.nn.Linear(3, 6)
        self.network = network_type(6, 5, 2, bidirectional=True, **options)
        self.readout = torch.nn.Linear(10, 2)

    def forward(self, x):
        output, h_n = self.network(self.embed(x).tanh())
        return self.readout(output), h_n


def gradients(model, call, *x):
    """What `call` returns for the inputs, and the gradients of the parameters of the sum of its squares."""
    model.zero_grad()
    for one in x:
        output, h_n = call(one)
        (output.square().sum() + h_n.square().sum()).backward()
    return output.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@every_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(network_type, dtype):
    """Layers around ours run in 16 bits; ours computes in float32 on the CPU, from what they give."""
    model = Model(network_type)
    x = torch.randn(7, 4, 3)
    expected, exact = gradients(model, model, x)
    seen = []
    model.network.register_forward_hook(lambda module, args, output: seen.append((args[0].dtype, output[0].dtype)))
    with torch.autocast("cpu", dtype):
        output, _ = model(x)
        low = model.network.step_matrix() if network_type is not vfrnn.RNN else None
    assert seen == [(dtype, torch.float32)]
    assert output.dtype == dtype
    tolerance = 20 * torch.finfo(dtype).eps  # a few roundings of entries of order one
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance)
    if low is not None:
        assert torch.equal(low, model.network.step_matrix())

    def in_autocast(x):
        with torch.autocast("cpu", dtype):
            return model(x)

    _, found = gradients(model, in_autocast, x)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() <= 4 * tolerance * exact[name].norm() + tolerance, name


@every_network
def test_grad_scaler(network_type):
    """An overflow, which reaches every gradient, skips the step; other steps are those without a scaler."""
    model = Model(network_type)
    plain = copy.deepcopy(model)
    x = torch.randn(7, 4, 3)
    steps = []
    for trained, scaler in ((model, torch.amp.GradScaler("cpu", init_scale=1024.0)), (plain, None)):
        optimizer = torch.optim.SGD(trained.parameters(), lr=1e-2)
        for size in (1.0, 1e38, 1.0):
            optimizer.zero_grad()
            loss = trained(x)[0].square().sum() * size
            if scaler is not None:
                scaler.scale(loss).backward()
                assert size == 1.0 or not all(p.grad.isfinite().all() for p in trained.parameters())
                scaler.step(optimizer)
                scaler.update()
                steps.append(scaler.get_scale())
            elif size == 1.0:
                loss.backward()
                optimizer.step()
    assert steps == [1024.0, 512.0, 512.0]
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@every_network
def test_accumulated_gradients(network_type):
    model = Model(network_type)
    x = torch.randn(7, 4, 3)
    _, expected = gradients(model, model, x)
    _, found = gradients(model, model, x[:, :1], x[:, 1:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_network
def test_checkpointing(network_type):
    """Recomputed in backward, with the same dropout."""
    model = Model(network_type, dropout=0.5)
    x = torch.randn(7, 4, 3)
    torch.manual_seed(1)
    expected = gradients(model, model, x)
    forwards = []
    model.network.register_forward_hook(lambda *_: forwards.append(1))
    torch.manual_seed(1)
    found = gradients(model, lambda x: checkpoint(model, x, use_reentrant=False), x)
    assert len(forwards) == 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("network_type", quick(NETWORKS[:2], vfrnn.VFRNN))
def test_compiled_training(network_type):
    model = Model(network_type)
    x = torch.randn(7, 4, 3)
    expected = gradients(model, model, x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(model, compiled, x), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], expected[0])


def test_compiled_under_autocast_and_checkpointing():
    model = Model(vfrnn.VFRNN)
    x = torch.randn(7, 4, 3)

    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return checkpoint(model, x, use_reentrant=False)

    expected = gradients(model, run, x)
    found = gradients(model, torch.compile(run, fullgraph=True, backend="aot_eager"), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network_type", quick(NETWORKS, vfrnn.VFRNN))
def test_export_and_reload(tmp_path, network_type):
    """A fresh process that imports vfrnn_kernels alone runs the program at other lengths, and can train it on."""
    x, others = torch.randn(7, 4, 3), torch.randn(9, 2, 3)
    T, B = torch.export.Dim("T", min=2), torch.export.Dim("B", min=2)
    model, name = Model(network_type), tmp_path / "model"
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: T, 1: B},)), f"{name}.pt2")
    torch.save((others, *gradients(model, model, others)), f"{name}.expected")
    code = """
        import sys, torch
        import vfrnn_kernels

        name = sys.argv[1]
        program = torch.export.load(f"{name}.pt2").module()
        x, expected, exact = torch.load(f"{name}.expected")
        output, h_n = program(x)
        torch.testing.assert_close(output, expected)
        (output.square().sum() + h_n.square().sum()).backward()
        torch.testing.assert_close({key: p.grad for key, p in program.named_parameters()}, exact)
        assert "vfrnn" not in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(name)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_strict_export_keeps_its_gradients():
    model, x = Model(vfrnn.VFRNN), torch.randn(7, 4, 3)
    expected, exact = gradients(model, model, x)
    program = torch.export.export(model, (x,), strict=True).module()
    found, of_program = gradients(program, program, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_program, exact)


@every_network
def test_a_checkpoint_of_a_later_version_is_refused(network_type):
    """Also inside a model that went through torch.save."""
    model = Model(network_type)
    state = model.state_dict()
    state._metadata["network"]["version"] = 2
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with pytest.raises(RuntimeError, match=f"{network_type.__name__} must have version 1 or older, got 2"):
        model.load_state_dict(torch.load(file))


@every_network
@pytest.mark.parametrize("learned", [False, True])
def test_truncated_backpropagation_through_time(network_type, learned):
    """The recipe of docs/how-to/sequences.md: the state goes on, its gradient does not."""
    network = construct(network_type, 2, learn_h0=learned)
    x, target = torch.randn(11, 3, 3, dtype=F64), torch.randn(11, 3, 5, dtype=F64)
    loss, h = torch.nn.functional.mse_loss, None
    for part, wanted in zip(x.split(4), target.split(4), strict=True):
        output, h = network(part, h)
        loss(output, wanted).backward()
        h = h.detach()
    found = [parameter.grad for parameter in network.parameters()]
    state, losses = None, []
    for begin in (0, 4, 8):
        outputs, last = loop(network, x[begin : begin + 4], state)
        losses.append(loss(outputs[-1], target[begin : begin + 4]))
        state = last.detach()
    expected = torch.autograd.grad(sum(losses), list(network.parameters()), allow_unused=True)
    torch.testing.assert_close(h, state)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)
    whole = torch.autograd.grad(loss(network(x)[0], target), list(network.parameters()))
    assert not torch.allclose(whole[0], found[0] / 3, rtol=1e-3)  # it is truncated


TRACED = {
    "RNN": lambda: vfrnn.RNN(3, 8, 2, bidirectional=True),
    "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(3, 8),
    "VFRNN": lambda: vfrnn.VFRNN(3, 8, mesh=vfrnn.LatentMesh.grid(2, 4), substeps=2),
    "InputFieldRNN": lambda: vfrnn.InputFieldRNN(3, 8, mesh=vfrnn.LatentMesh.grid(2, 4)),
    "parametrized": lambda: vfrnn.parametrizations.orthogonal(vfrnn.RNN(3, 8), "weight_hh_l0"),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", TRACED)
def test_a_trace_is_saved_and_loaded(name, tmp_path):
    model, path = TRACED[name](), str(tmp_path / "trace.pt")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.jit.trace(model, torch.randn(6, 4, 3)).save(path)
        for T, B in ((6, 4), (9, 2)):
            x = torch.randn(T, B, 3, requires_grad=True)
            output, expected = torch.jit.load(path)(x)[0], model(x)[0]
            assert torch.equal(output, expected)
            one, other = (torch.autograd.grad(value.square().sum(), x)[0] for value in (output, expected))
            torch.testing.assert_close(one, other)


def test_script_is_refused_with_what_to_do():
    for model in (vfrnn.RNN(3, 4), torch.nn.Sequential(torch.nn.Tanh(), vfrnn.VFRNNCell(3, 4))):
        with pytest.raises(RuntimeError, match=r"RNN\w* cannot be compiled by torch.jit.script: use torch.export"):
            torch.jit.script(model)
