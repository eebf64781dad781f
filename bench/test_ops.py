"""pytest-benchmark over the registries: `pytest bench`; `--benchmark-compare` works across commits."""

import pytest

from bench.cpu import cases

CASES = tuple(cases())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("provider", [0, -1], ids=["ours", "peer"])
def test_workload(benchmark, case, provider):
    name, run = list(case.make_runs().items())[provider]
    benchmark.group, benchmark.extra_info["provider"] = case.name, name
    benchmark.pedantic(run, warmup_rounds=1, rounds=5)
