"""Who computes fields: ours and the formulas in PyTorch give the same."""

import pytest
from vfrnn_bench.cases import field_case
from vfrnn_bench.field_providers import our_function
from vfrnn_bench.measure import checked

from tests.bench.small import FIELDS, ON_CPU


@pytest.mark.parametrize("workload", FIELDS, ids=lambda w: w.name)
def test_every_provider_is_right(workload):
    case = field_case(workload, ON_CPU)
    right, errors, refused = checked(case, lambda name: name != "compiled")
    peer = "eager" if workload.name in ("generator", "flow") else "eager loop"
    op = our_function(workload)[0].__name__
    assert list(right) == [f"vfrnn.{op}", peer]
    assert not refused
    learned = {f"grad {name}" for name in workload.learned}
    for found in errors.values():
        assert learned < set(found)
        assert max(found.values()) < 1e-4
