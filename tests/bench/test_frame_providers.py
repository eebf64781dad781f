"""Who makes frames: ours and torch's exponential give the float64 results, the others their own."""

from dataclasses import replace

from vfrnn_bench.cases import frame_case, frame_targets
from vfrnn_bench.measure import checked
from vfrnn_bench.providers import FORWARD, STEP
from vfrnn_bench.workloads import FRAMES

from tests.bench.small import FRAME, ON_CPU


def test_every_provider_is_right():
    case = replace(frame_case(FRAME, ON_CPU), modes=(FORWARD, STEP))
    right, errors, refused = checked(case, lambda name: True)
    torchs = ["torch.linalg.qr", "torch orthogonal, matrix_exp", "torch orthogonal, householder"]
    assert list(right) == ["vfrnn.parametrizations.orthogonal", *torchs]
    assert not refused
    for found in errors.values():
        assert {"weight", "grad X"} <= set(found)
        assert max(found.values()) < 1e-5


def test_what_takes_half_a_minute_is_left_out():
    for f in FRAMES:
        providers = set(frame_case(f, ON_CPU).providers())
        assert ("torch orthogonal, matrix_exp" in providers) == (f.n == 600)
        assert {peer for _, peer in frame_targets(f)} <= providers
