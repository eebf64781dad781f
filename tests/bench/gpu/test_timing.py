"""Clocks and CUDA graphs. Without a GPU: which clock serves which device."""

import pytest
import torch
from vfrnn_bench.gpu.timing import clock_of, event_clock, graphed, in_graph, synchronize
from vfrnn_bench.providers import FORWARD, STEP, Provider
from vfrnn_bench.timing import host_clock

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_every_device_has_its_clock():
    assert clock_of(torch.device("cpu")) is host_clock
    assert clock_of(torch.device("cuda")) is event_clock
    synchronize(torch.device("cpu"))


def test_runs_are_recorded_by_mode(monkeypatch):
    monkeypatch.setattr("vfrnn_bench.gpu.timing.graphed", lambda run: ("graph of", run))
    provider = Provider({FORWARD: "f", STEP: "s"}, 1e-3)
    assert in_graph(provider).runs == {FORWARD: ("graph of", "f"), STEP: ("graph of", "s")}
    assert in_graph(provider, STEP).runs == {STEP: ("graph of", "s")}


@needs_gpu
def test_a_graph_computes_again_at_every_replay():
    t = torch.zeros(3, device="cuda")
    replay = graphed(lambda: t + 1)
    t.fill_(4)
    assert replay().tolist() == [5, 5, 5]


@needs_gpu
def test_events_give_seconds_of_one_call():
    t = torch.randn(512, 512, device="cuda")
    assert 0 < event_clock(lambda: t @ t, 3) < 1
