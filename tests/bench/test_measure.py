"""How a case is measured: what is wrong is not timed, what is right is timed in turns."""

import json
import math
from dataclasses import replace

import pytest
import torch
from vfrnn_bench import measure
from vfrnn_bench.cases import OURS, cases
from vfrnn_bench.providers import FORWARD, STEP, Provider
from vfrnn_bench.timing import Budget

from tests.bench import small

SHORT = Budget(0.0)


def everyone(name):
    return True


def test_a_case_is_measured_in_turns_and_told_as_json():
    case = next(case for case in cases() if case.name == "E(32) norm 1")
    row = measure.measure(case, Budget(5.0, most=6), ceiling=1e11, wanted=everyone)
    assert row["rounds"] == 6
    assert [p["provider"] for p in row["providers"]] == ["vfrnn.skew_expm", "torch.matrix_exp"]
    (ratio,) = row["ratios"]
    assert ratio["target"] == 0.4
    assert ratio["ratio"] > 0
    assert row["providers"][0]["error"] < 1e-6
    assert json.loads(json.dumps(row)) == row


def test_a_provider_that_is_wrong_is_not_timed():
    case = small.case(**{"vfrnn.op": torch.full((2,), 1.01), "peer": torch.ones(2)})

    def broken():
        raise RuntimeError("not on this machine\nand more")

    changed = replace(case, providers=lambda: case.providers() | {"broken": broken})
    row = measure.measure(changed, SHORT, ceiling=1e11, wanted=everyone)
    assert [p["provider"] for p in row["providers"]] == ["peer"]
    assert row["refused"]["vfrnn.op"].startswith("wrong: relative error 1.0e-02 of output")
    assert row["refused"]["broken"] == "not on this machine"


def test_only_who_is_wanted_takes_part():
    case = small.case(**{"vfrnn.op": torch.ones(2), "peer": torch.ones(2)})
    row = measure.measure(case, SHORT, ceiling=1e11, wanted=lambda name: name == "peer")
    assert [p["provider"] for p in row["providers"]] == ["peer"]
    assert row["ratios"] == []


def test_nobody_to_measure():
    row = measure.measure(small.case(), SHORT, ceiling=1e11, wanted=everyone)
    assert (row["rounds"], row["providers"], row["ratios"]) == (0, [], [])


def test_nan_is_wrong():
    exact = {"Q": torch.ones(2, dtype=torch.float64)}
    assert math.isnan(measure.relative_errors({"Q": torch.tensor([1.0, math.nan])}, exact)["Q"])
    assert measure.relative_errors({"Q": torch.tensor([1.0, 2.0])}, exact)["Q"] == pytest.approx(math.sqrt(0.5))
    _, _, refused = measure.checked(small.case(peer=torch.tensor([1.0, math.nan])), everyone)
    assert refused["peer"].startswith("wrong: relative error nan")


def test_another_shape_is_wrong():
    _, _, refused = measure.checked(small.case(peer=torch.ones(1)), everyone)
    assert refused["peer"] == "output has shape (1,), must be (2,)"


def test_results_with_other_names_are_not_compared_with_nothing():
    with pytest.raises(ValueError, match="none of the results"):
        measure.relative_errors({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert measure.relative_errors({"a": torch.ones(1)}, {}) == {}  # of a provider that says so


def test_a_provider_may_have_exact_results_of_its_own():
    two = {"output": torch.full((2,), 2.0)}
    case = replace(small.case(), exact=None)
    with pytest.raises(ValueError, match="no results to be compared with"):
        measure.check(case, Provider({STEP: lambda: two}, 1e-3), None)
    assert measure.check(case, Provider({STEP: lambda: two}, 1e-3, lambda: two), None) == {"output": 0.0}


def test_every_mode_is_checked():
    case = replace(small.case(), modes=(FORWARD, STEP))
    one, off = {"output": torch.ones(2)}, {"output": torch.full((2,), 1.1)}
    exact = case.exact()
    assert measure.check(case, Provider({STEP: lambda: one}, 1e-3), exact) == {"output": 0.0}
    for runs in ({FORWARD: lambda: off, STEP: lambda: one}, {FORWARD: lambda: one, STEP: lambda: off}):
        with pytest.raises(ValueError, match=r"wrong: relative error 1\.0e-01"):
            measure.check(case, Provider(runs, 1e-3), exact)


def test_orthogonality_is_told_beside_the_errors():
    Q = torch.eye(3)
    Q[0, 0] = 2
    assert measure.orthogonality(Q) == 3
    case = replace(small.case(), exact=lambda: {"Q": Q})
    errors = measure.check(case, Provider({STEP: lambda: {"Q": Q}}, 1e-3), case.exact())
    assert errors == {"Q": 0.0, "orthogonality": 3.0}


def test_pairs_with_a_target_come_first_and_ours_meet_only_by_a_target():
    case = replace(small.case(), targets={("vfrnn.a", "vfrnn.b"): 1.0, (OURS, "peer"): 0.5})
    times = {name: [1.0] for name in ("vfrnn.a", "vfrnn.b", "peer")}
    assert measure.pairs(case, times) == [("vfrnn.a", "vfrnn.b"), ("vfrnn.a", "peer"), ("vfrnn.b", "peer")]
    assert case.target("vfrnn.b", "peer") == 0.5


def test_a_case_with_shares_has_a_large_product_in_its_turns():
    case = replace(small.case(**{"vfrnn.op": torch.ones(2), "peer": torch.ones(2)}), shares={"vfrnn.op": 0.5})
    row = measure.measure(case, SHORT, ceiling=math.nan, wanted=everyone)
    assert [(p["provider"], p["least_share"]) for p in row["providers"]] == [("vfrnn.op", 0.5), ("peer", None)]
    assert all(math.isfinite(p["share_of_ceiling"]) for p in row["providers"])
