"""What is measured on a GPU: parts, names, targets. Nothing is computed here."""

from dataclasses import replace

import pytest
import torch
from vfrnn_bench.cases import OURS, Case
from vfrnn_bench.gpu import cases
from vfrnn_bench.providers import FORWARD, STEP, Provider

from tests.bench.small import CPU, SEQUENCE

CUDA = torch.device("cuda")


@pytest.mark.parametrize("part", cases.PARTS)
def test_names_are_unique_and_start_with_the_part(part):
    # On the CPU: a case's tensors are made where it runs, when its providers are asked for.
    every = list(cases.PARTS[part](CPU, False))
    assert len({case.key for case in every}) == len(every) > 0
    assert {case.key.split()[0] for case in every} == {part}


def test_workloads_and_targets():
    def key(case):
        return case.name, case.dtype

    recurrences = {key(case): case for case in cases.recurrences(CUDA, False)}
    assert len(recurrences) == 2 * (5 + 5) + 5  # R1 to R5, R6 of five sizes, which has float16 too
    assert recurrences["R6 n=512", "bf16"].targets == {(OURS, "torch.nn.RNN"): 0.4}
    assert recurrences["R6 n=128", "fp16"].targets == recurrences["R1", "fp32"].targets == {(OURS, "torch.nn.RNN"): 0.8}
    assert all(case.modes == (FORWARD, STEP) for case in recurrences.values())
    steps = {key(case): case for case in cases.training_steps(CUDA, False)}
    assert {name for name, _ in steps} == {"S1", "S2", "S3", "S5"}
    assert {dtype for _, dtype in steps} == {"fp32", "bf16 autocast"}
    assert steps["S2", "bf16 autocast"].targets == {(OURS, "orthogonal loop"): 0.03}
    exponentials = list(cases.exponentials(CUDA, False))
    assert len(exponentials) == 8 * 7
    assert {case.sizes["n"] for case in exponentials if case.targets} == {64, 128, 190, 256, 512}
    assert [case.name for case in cases.moving_fields(CUDA, False)] == ["I1", "I2"]


def test_who_takes_part_names_the_backend():
    (case,) = cases.recurrences(CPU, True)
    assert list(case.providers()) == ["vfrnn.RNN cpu", "torch.nn.RNN"]
    (case,) = cases.loops(CPU, True)
    assert list(case.providers()) == ["vfrnn.RNN cpu", "torch.nn.RNN", "loop", "loop, compiled step"]
    case = next(cases.training_steps(CPU, True))
    ours = ["vfrnn.OrthogonalRNN cpu", "vfrnn.VFRNN cpu"]
    assert list(case.providers()) == [*ours, "orthogonal(torch.nn.RNN)", "orthogonal loop"]


def test_ours_are_recorded_as_graphs_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(cases, "in_graph", lambda provider, *modes: replace(provider, limit=2.0))
    made = {name: lambda: Provider({}, 1.0) for name in ("vfrnn.op cuda", "peer")}
    case = Case("", "", 1, 1, lambda: made)
    assert list(cases.ours_in_graphs(case, CPU).providers()) == list(made)
    found = cases.ours_in_graphs(case, CUDA).providers()
    assert list(found) == ["vfrnn.op cuda", "vfrnn.op cuda, CUDA graph", "peer"]
    assert [make().limit for make in found.values()] == [1.0, 2.0, 1.0]


def test_the_loop_is_recorded_on_a_gpu_alone():
    assert cases.graphed_loop(SEQUENCE, cases.setting(CPU), False) == {}
