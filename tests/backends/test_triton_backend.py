"""The backend "triton" on a machine that need not have a GPU: choice, refusals, launches, the commands around it."""

import pytest
import torch

import vfrnn_kernels.dispatch as dispatch
from vfrnn.cli import main
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.dispatch import BACKENDS, Backend, refusal, select_backend
from vfrnn_kernels.loader import TRITON_INTERPRETED, TRITON_MISSING

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
triton_backend = dispatch.get_backend("triton")

needs_compiler = pytest.mark.skipif(
    TRITON_MISSING is not None or TRITON_INTERPRETED, reason="needs Triton, and not its interpreter"
)

#: The one number that may select a kernel: the hidden size, whether 16 divides it.
SPECIALISED = {"n"}


def test_what_it_serves():
    for op in OPS:
        assert triton_backend.refuses(op, CUDA, torch.float32, 1024) is None
        assert "got torch.float64" in triton_backend.refuses(op, CUDA, torch.float64, None)
        refused = triton_backend.refuses(op, CUDA, torch.bfloat16, None)
        assert (refused is None) == (op == "recurrence")
    if not TRITON_INTERPRETED:
        with pytest.raises(RuntimeError, match=r"backend 'triton' .* it serves CUDA tensors .* got cpu"):
            select_backend("recurrence", "triton", [torch.zeros(1)])


def test_too_many_nodes_for_the_chip(monkeypatch):
    class OnGpu:
        device, dtype = CUDA, torch.float32

    assert triton_backend.refuses("skew_expm", CUDA, torch.float32, 1025) is None
    monkeypatch.setattr(dispatch, "BACKENDS", (Backend("triton", None, triton_backend.refuses), BACKENDS[-1]))
    with pytest.raises(RuntimeError, match=r"cannot serve this call: it computes field_flow up to n = 1024, got n = 1"):
        select_backend("field_flow", "triton", [OnGpu()], n=1025)
    with pytest.raises(RuntimeError, match=r"no compiled backend .* \(triton: it computes field_flow up to n = 1024"):
        select_backend("field_flow", None, [OnGpu()], n=1025)


def test_it_is_the_choice_on_a_gpu(monkeypatch):
    x = torch.empty(1, device="meta")
    there = [Backend("triton", None, lambda op, device, dtype, n: None), dispatch.get_backend("reference")]
    monkeypatch.setattr(dispatch, "BACKENDS", tuple(there))

    class OnGpu:
        device, dtype = CUDA, x.dtype

    assert select_backend("recurrence", None, [OnGpu()]) == "triton"
    absent = Backend("triton", "not installed: no package triton", there[0].refuses)
    monkeypatch.setattr(dispatch, "BACKENDS", (absent, there[1]))
    assert refusal(absent, "recurrence", CUDA, torch.float32) == "not installed: no package triton"
    with pytest.raises(RuntimeError, match=r"no compiled backend serves .* on cuda .*not installed: no package triton"):
        select_backend("recurrence", None, [OnGpu()])


def test_the_environment_names_it(monkeypatch):
    monkeypatch.setenv("VFRNN_BACKEND", "triton")
    if TRITON_INTERPRETED:
        assert select_backend("recurrence", None, [torch.zeros(1)]) == "triton"
    else:
        with pytest.raises(RuntimeError, match=r"backend 'triton' \(from VFRNN_BACKEND\) cannot serve this call"):
            select_backend("recurrence", None, [torch.zeros(1)])


@needs_compiler
@pytest.mark.parametrize("op", OPS)
def test_batches_and_lengths_are_not_specialised(op):
    from vfrnn_kernels.library import triton_kernels

    specs = list(triton_kernels(op).specs())
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
    for spec in specs:
        arguments = {parameter.name: parameter for parameter in spec.kernel.params}
        assert set(arguments) == {*spec.signature, *spec.constexprs}
        # `launch` passes the run-time arguments by place
        assert list(arguments)[: len(spec.signature)] == list(spec.signature)
        numbers = {name for name, kind in spec.signature.items() if not kind.startswith("*")}
        assert {name for name in numbers if not arguments[name].do_not_specialize} <= SPECIALISED, spec.name
        # a number of samples or steps as a constant would make a kernel for each of them
        assert not {"T", "B", "K", "rows", "samples", "steps"} & set(spec.constexprs), spec.name


@needs_compiler
def test_steps_of_any_address_share_a_kernel():
    from vfrnn_kernels.library import triton_kernels

    f = torch.float32
    for n, free in ((257, {"from_ptr", "start_ptr", "h_ptr", "to_ptr"}), (256, set())):
        kernel = triton_kernels("recurrence").step_spec(n, False, f, f).kernel
        assert {p.name for p in kernel.params if p.do_not_specialize_on_alignment} == free


def test_warm_up_without_a_gpu_says_so(capsys):
    if torch.cuda.is_available():
        assert main(["warmup", "--hidden-size", "17", "--ops", "recurrence"]) == 0
        assert "recurrence" in capsys.readouterr().out
    else:
        assert main(["warmup"]) == 1
        assert "torch sees no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [1, 8, 75, 131])
def test_chunks_of_steps(monkeypatch, T, reverse):
    from vfrnn_kernels.recurrence import triton_graphs as graphs

    def step(state, weights, operands):
        torch.add(state * weights[0], operands[0], out=operands[1])

    class StepGraph(graphs.StepGraph):
        """Replays its steps one by one instead of through a recording."""

        def __init__(self, step, length, state, weights, operands, reverse):
            self.state, self.length, self.reverse = torch.zeros_like(state), length, reverse
            self.weights = [torch.zeros_like(weight) for weight in weights]
            self.operands = [operand.new_zeros(length, *operand.shape[1:]) for operand in operands]
            self.graph = self

        def replay(self):
            before = self.state
            for k in reversed(range(self.length)) if self.reverse else range(self.length):
                step(before, self.weights, [operand[k] for operand in self.operands])
                before = self.operands[-1][k]

    monkeypatch.setattr(graphs, "_chunk_lengths", lambda state: (64, 8))
    monkeypatch.setattr(graphs, "StepGraph", StepGraph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("Stream", (), {"cuda_stream": 0}))
    state, weight, z = torch.randn(2, 3), torch.tensor(0.5), torch.randn(T, 2, 3)
    for _ in range(2):  # the second time with the graphs of the first
        found = torch.empty(T, 2, 3)
        graphs.run_steps("test", step, state, [weight], [z, found], reverse=reverse)
        expected, h = torch.empty(T, 2, 3), state
        for t in reversed(range(T)) if reverse else range(T):
            h = expected[t] = h * weight + z[t]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        weight = weight * 2
    graphs._graphs.clear()
