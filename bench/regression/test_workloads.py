"""pytest-benchmark over the registries: `pytest bench/regression --benchmark-autosave`, later `--benchmark-compare`."""

import pytest
import torch
from vfrnn_bench.cases import cases
from vfrnn_bench.measure import relative_error

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
    exact = made.exact() if made.exact is not None else case.exact()
    assert relative_error(made.results(), exact) <= made.limit
    benchmark.group = f"{name} ({torch.get_num_threads()} threads)"
    benchmark.pedantic(made.run, warmup_rounds=1, rounds=5)
