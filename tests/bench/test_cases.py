"""The registry of what is measured: names, targets, sizes."""

import importlib.util
from dataclasses import replace

import pytest
from vfrnn_bench.cases import (
    LEFT_OUT_OF_QUICK,
    OURS,
    QUICK,
    cases,
    exponential_case,
    exponential_forward_case,
    field_case,
    field_targets,
    inference_case,
    mapped_exponential_case,
    recurrence_case,
    training_step_case,
)
from vfrnn_bench.measure import checked
from vfrnn_bench.providers import FORWARD, STEP
from vfrnn_bench.workloads import INPUT_FIELDS, IRREGULAR, MESHES

from tests.bench.small import EXPONENTIAL, FIELDS, ON_CPU, SEQUENCE

CASES = {case.name: case for case in cases()}


def test_names_are_unique_and_quick_ones_exist():
    assert len(CASES) == len(list(cases()))
    assert set(QUICK) <= set(CASES)
    assert len({case.key for case in CASES.values()}) == len(CASES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a peer, where it is installed
def test_targets_name_providers():
    seen = set()
    for case in CASES.values():
        providers = set(case.providers())
        seen |= providers
        if importlib.util.find_spec("geotorch") is None:
            providers.add("geotorch, cached")
        assert {name for pair in case.targets for name in pair} <= providers | {OURS}
        assert all(0 < ratio <= 6 for ratio in case.targets.values())
    assert set(LEFT_OUT_OF_QUICK) <= seen


def test_every_workload_of_the_suite_has_one_mode():
    assert {case.modes for case in CASES.values()} == {(STEP,), (FORWARD,)}


def test_a_target_of_one_of_ours_goes_before_that_of_all():
    case = CASES["R1"]
    assert case.target("vfrnn.RNN", "torch.nn.RNN") == 0.36
    assert case.target("vfrnn.RNN (triton)", "torch.nn.RNN") is None
    assert CASES["F1"].target("vfrnn.field_generator", "eager") == 0.5
    assert CASES["F1"].target("vfrnn.field_generator (triton)", "compiled") == 1.0


def test_shares_are_of_providers_that_take_part():
    shares = {name: case.shares for name, case in CASES.items() if case.shares}
    assert set(shares) == {name + what for name in ("R1", "R2", "R3", "R5", "R7") for what in ("", " inference")}
    for name, share in shares.items():
        assert set(share) <= set(CASES[name].providers())
        assert all(0.5 < least < 1 for least in share.values())


def test_targets_of_fields():
    assert all(field_targets(w) == {(OURS, "eager"): 0.5, (OURS, "compiled"): 1.0} for w in MESHES)
    assert [field_targets(w)[OURS, "eager loop"] for w in (*INPUT_FIELDS, *IRREGULAR)] == [0.3, 0.1]


def test_a_case_knows_its_sizes_and_steps():
    case = recurrence_case(SEQUENCE, ON_CPU)
    assert case.sizes == {"T": 5, "B": 3, "n": 8, "i": 2}
    assert (case.steps, case.dtype, case.key) == (5, "fp32", "recurrence small fp32")
    case = exponential_case(EXPONENTIAL, ON_CPU)
    assert case.sizes == {"n": 12, "norm": 1.0, "batch": 1}
    assert case.steps == 1
    assert [field_case(w, ON_CPU).steps for w in FIELDS] == [1, 1, 4, 4]


def test_inference_is_of_the_forward_alone():
    case = inference_case(SEQUENCE, ON_CPU)
    assert case.flops == SEQUENCE.forward_flops
    right, errors, _ = checked(case, lambda name: True)
    assert list(right) == ["vfrnn.RNN", "torch.nn.RNN"]
    assert set(errors["vfrnn.RNN"]) == {"output"}


def test_an_exponential_alone_and_mapped():
    e = replace(EXPONENTIAL, batch=3)
    case = exponential_forward_case(e, ON_CPU)
    assert (case.name, case.flops) == (f"{e.name} forward", e.forward_flops)
    right, errors, _ = checked(case, lambda name: True)
    assert list(right) == ["vfrnn.skew_expm", "torch.matrix_exp"]
    assert set(errors["vfrnn.skew_expm"]) == {"Q", "orthogonality"}
    right, errors, _ = checked(mapped_exponential_case(e, ON_CPU), lambda name: True)
    assert list(right) == ["vfrnn.skew_expm, vmap", "vfrnn.skew_expm"]
    assert errors["vfrnn.skew_expm, vmap"] == errors["vfrnn.skew_expm"]


def test_small_exponentials_have_a_target_both_ways():
    pair = ("vfrnn.skew_expm", "torch.matrix_exp")
    for name, target in (("E(3) x 100000", 0.1), ("E(4) x 20000", 0.1), ("E(13) x 4000", 0.25), ("E(16) x 4000", 0.25)):
        for more in ("", " forward"):
            assert CASES[f"{name} norm 3.14{more}"].target(*pair) == target


def test_a_training_step_has_the_number_of_its_recurrence():
    assert training_step_case(SEQUENCE, ON_CPU, ()).name == "small"
    assert {"S1", "S2", "S3", "S4", "S5"} <= set(CASES)
