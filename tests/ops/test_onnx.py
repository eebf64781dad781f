"""torch.onnx.export(model, dynamo=True) of the modules themselves, with nothing passed for our ops, in ONNX Runtime."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vfrnn
from tests.cases import quick
from vfrnn.parametrizations import orthogonal
from vfrnn_kernels.activations import ACTIVATIONS
from vfrnn_kernels.declaration import OPS

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
# The exporter's own, of deprecated functions and of inputs without a dynamic size.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

T, B = torch.export.Dim("T"), torch.export.Dim("B")
TIME_AND_BATCH = {0: T, 1: B}


def grid():
    """A mesh of its own for every model: `model.double()` changes the model's."""
    return vfrnn.LatentMesh.grid(2, 3)


def moved(model):
    """The model with other parameters than the initial ones, in evaluation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def operators(graph):
    """The names of all operators, also inside of Scan and Loop."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*map(operators, inner))


def exported(model, arguments, shapes, path):
    program = torch.onnx.export(model, arguments, dynamo=True, dynamic_shapes=shapes, verbose=False)
    program.save(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    run = lambda *given: session.run(None, {n: v.numpy() for n, v in zip(names, given, strict=True)})  # noqa: E731
    return run, operators(onnx.load(path).graph)


def assert_equal(model, run, *arguments, tolerance=1e-5):
    with torch.no_grad():
        expected = model(*arguments)
    for found, value in zip(run(*arguments), expected if isinstance(expected, tuple) else (expected,), strict=True):
        torch.testing.assert_close(torch.from_numpy(np.asarray(found)), value, rtol=tolerance, atol=tolerance)


NETWORKS = {
    "tanh": (lambda: vfrnn.RNN(4, 6), "RNN"),
    "relu": (lambda: vfrnn.RNN(4, 6, 2, "relu", bidirectional=True), "RNN"),
    "a state of one": (lambda: vfrnn.OrthogonalRNN(4, 1), "Scan"),
    "modrelu": (lambda: vfrnn.RNN(4, 6, nonlinearity="modrelu", bias=False, bidirectional=True), "Scan"),
    "leaky_relu": (lambda: vfrnn.RNN(4, 6, 2, "leaky_relu"), "Scan"),
    "identity": (lambda: vfrnn.OrthogonalRNN(4, 6, nonlinearity="identity", dt=4.0), "Scan"),
    "orthogonal": (lambda: vfrnn.OrthogonalRNN(4, 6, 2, bidirectional=True), "Scan"),
    "field": (lambda: vfrnn.VFRNN(4, 6, nonlinearity="tanh", mesh=grid(), substeps=5), "RNN"),
    "exp_dtype": (
        lambda: vfrnn.VFRNN(4, 6, nonlinearity="relu", exp_dtype=torch.float64, volume_preserving=True),
        "RNN",
    ),
    "reads": (lambda: vfrnn.InputFieldRNN(4, 6, mesh=grid(), substeps=7, volume_preserving=True), "Scan"),
    "parametrized": (lambda: orthogonal(vfrnn.RNN(4, 6), "weight_hh_l0"), "RNN"),
    "frame": (lambda: orthogonal(vfrnn.RNN(4, 6), "weight_ih_l0"), "RNN"),
}


@pytest.mark.parametrize("name", quick(NETWORKS, "relu", "modrelu", "field"))
def test_networks_with_a_dynamic_time_and_batch(name, tmp_path):
    make, loop = NETWORKS[name]
    model = moved(make())
    n = model.hidden_size
    layers = model.num_layers * (1 + model.bidirectional)
    run, found = exported(
        model, (torch.randn(5, 3, 4), torch.randn(layers, 3, n)), (TIME_AND_BATCH, {1: B}), tmp_path / "m.onnx"
    )
    assert loop in found
    for time, batch in ((5, 3), (9, 2), (2, 7)):
        assert_equal(model, run, torch.randn(time, batch, 4), torch.randn(layers, batch, n))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [vfrnn.RNN, vfrnn.VFRNN])
def test_float64_batch_first_and_no_first_state(kind, tmp_path):
    model = moved(kind(4, 6, 2, "tanh", batch_first=True, bidirectional=True, dtype=torch.float64))
    run, found = exported(model, (torch.randn(3, 5, 4).double(),), ({0: B, 1: T},), tmp_path / "m.onnx")
    assert "Scan" in found  # ONNX Runtime has RNN in float32 alone
    assert_equal(model, run, torch.randn(6, 9, 4).double(), tolerance=1e-12)


class Call(nn.Module):
    """A module called in another way."""

    def __init__(self, inner, call):
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x, dt):
        return self.call(self.inner, x, dt)


CALLS = {
    "times": (vfrnn.VFRNN(4, 6, substeps=2, mesh=grid()), lambda m, x, dt: m(x, dt=dt)),
    "times without a divergence": (vfrnn.OrthogonalRNN(4, 6), lambda m, x, dt: m(x, dt=dt)),
    "one time": (vfrnn.VFRNN(4, 6), lambda m, x, dt: m(x, dt=dt[0, 0])),
    "the last state": (vfrnn.RNN(4, 6, nonlinearity="modrelu"), lambda m, x, dt: m(x, return_sequence=False)),
    "unbatched": (vfrnn.RNN(4, 6), lambda m, x, dt: m(x[:, 0])),
}


@pytest.mark.parametrize("name", quick(CALLS, "times"))
def test_other_calls(name, tmp_path):
    model = moved(Call(*CALLS[name]))
    dynamic = name.startswith("times")
    shapes = (TIME_AND_BATCH, TIME_AND_BATCH) if dynamic else None
    run, _ = exported(model, (torch.randn(5, 3, 4), torch.randn(5, 3)), shapes, tmp_path / "m.onnx")
    assert_equal(model, run, torch.randn(5, 3, 4), torch.randn(5, 3))
    if dynamic:
        # far times, whose angles and growth float32 rounds visibly
        arguments = (torch.randn(5, 3, 4).double(), torch.randn(5, 3).double())
        run, _ = exported(model.double(), arguments, shapes, tmp_path / "wide.onnx")
        assert_equal(model, run, torch.randn(8, 2, 4).double(), 20 * torch.randn(8, 2).double(), tolerance=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [vfrnn.RNNCell(4, 6), vfrnn.VFRNNCell(4, 6), vfrnn.OrthogonalRNNCell(4, 6, nonlinearity="relu")], ids=repr
)
def test_cells(cell, tmp_path):
    run, _ = exported(moved(cell), (torch.randn(3, 4), torch.randn(3, 6)), ({0: B}, {0: B}), tmp_path / "m.onnx")
    assert_equal(cell, run, torch.randn(5, 4), torch.randn(5, 6))


@pytest.mark.slow
def test_ops_by_themselves(tmp_path):
    mesh = grid()

    class Ops(nn.Module):
        def forward(self, S, delta, thin, h, v):
            flow = vfrnn.field_flow(h, v, mesh, 0.3, substeps=3)
            return (
                vfrnn.skew_expm(S, 3.0), vfrnn.strang_step(S, delta, 2.0, 6), vfrnn.thin_skew_expm(thin),
                vfrnn.field_generator(mesh, v)[0], flow,
            )  # fmt: skip

    S = torch.randn(2, 6, 6)
    S = 8 * (S - S.mT)
    arguments = (
        S,
        torch.rand(2, 6),
        torch.cat([S[0, :2, :2], torch.randn(7, 2)]),
        torch.randn(3, 6),
        torch.randn(2, 2),
    )
    run, _ = exported(Ops(), arguments, None, tmp_path / "m.onnx")
    # angles of about 200: float32's own rounding of an angle
    assert_equal(Ops(), run, *arguments, tolerance=3e-4)


@pytest.mark.slow
def test_an_exported_program(tmp_path):
    model, x = moved(vfrnn.OrthogonalRNN(4, 6)), torch.randn(5, 3, 4)
    run, _ = exported(torch.export.export(model, (x,)), (), None, tmp_path / "m.onnx")
    assert_equal(model, run, x)


@pytest.mark.slow
def test_planned_substeps_are_refused():
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as error:
        torch.onnx.export(
            vfrnn.InputFieldRNN(4, 6, mesh=grid()).eval(), (torch.randn(5, 3, 4),), dynamo=True, verbose=False
        )
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert re.match(r"substeps must be given for ONNX, as in .* model.substeps = 4", str(cause))


def test_every_op_and_activation_is_translated():
    import vfrnn_kernels.onnx

    names = {target._schema.name for target in vfrnn_kernels.onnx.translation_table()}
    assert names >= {f"vfrnn_kernels::{op}" for op in OPS}
    assert names >= {f"vfrnn_kernels::{op}_triton" for op in OPS}
    source = Path(vfrnn_kernels.onnx.ops.__file__).read_text()
    assert all(f'case "{activation}"' in source for activation in ACTIVATIONS)


def test_a_torch_with_another_registry_is_told(monkeypatch):
    import vfrnn_kernels.onnx

    monkeypatch.setattr("vfrnn_kernels.onnx._REGISTRY", "torch.there_is_no_such_registry")
    with pytest.warns(RuntimeWarning, match=r"pass custom_translation_table=vfrnn_kernels.onnx.translation_table\(\)"):
        vfrnn_kernels.onnx._register()
