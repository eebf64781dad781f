"""pytest-benchmark over the registries: `pytest bench/regression --benchmark-autosave`, later `--benchmark-compare`."""

import pytest
import torch
from vfrnn_bench.cases import cases
from vfrnn_bench.measure import check

CASES = {case.name: case for case in cases()}
PAIRS = [
    (name, provider)
    for name, case in CASES.items()
    for provider in case.providers()
    if "compiled" not in provider  # minutes of compilation: vfrnn bench --suite full has them
]


@pytest.mark.parametrize(("name", "provider"), PAIRS, ids=lambda value: value)
def test_workload(benchmark, name, provider):
    case = CASES[name]
    made = case.providers()[provider]()
    check(case, made, None if case.exact is None else case.exact())
    benchmark.group = f"{name} ({torch.get_num_threads()} threads)"
    (mode,) = case.modes
    benchmark.pedantic(made.runs[mode], warmup_rounds=1, rounds=5)
