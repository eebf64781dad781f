"""The registry of learning benchmarks names what `vfrnn train` knows, and every model takes part or says why not."""

import pytest
from vfrnn_bench.tasks import benchmarks
from vfrnn_bench.tasks.benchmarks import BENCHMARKS

from vfrnn.tasks import TASKS
from vfrnn.tasks.models import MODELS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_of_a_task_and_models_that_exist(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.task in TASKS
    assert set(benchmark.models) <= set(MODELS)
    assert set(benchmarks.MODELS) <= set(benchmark.models) | set(benchmark.absent)
    assert not set(benchmark.models) & set(benchmark.absent)
