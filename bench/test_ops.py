"""pytest-benchmark over both registries: `pytest bench`; `--benchmark-compare` works across commits."""

import pytest

from bench.providers import exponential_runs, recurrence_runs, training_step_runs
from bench.workloads import EXPONENTIALS, SEQUENCES

CASES = (
    *((recurrence_runs, workload, workload.name) for workload in SEQUENCES),
    *((training_step_runs, workload, workload.name.replace("R", "S")) for workload in SEQUENCES),
    *((exponential_runs, workload, workload.name) for workload in EXPONENTIALS),
)


@pytest.mark.parametrize(("make_runs", "workload"), [case[:2] for case in CASES], ids=[case[2] for case in CASES])
@pytest.mark.parametrize("provider", [0, -1], ids=["ours", "peer"])
def test_forward_and_backward(benchmark, make_runs, workload, provider):
    name, run = list(make_runs(workload).items())[provider]
    benchmark.group, benchmark.extra_info["provider"] = workload.name, name
    benchmark.pedantic(run, warmup_rounds=1, rounds=5)
