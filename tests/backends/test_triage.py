"""The first look at a GPU, with processes that do what a broken kernel may: end, not return, be wrong."""

import sys

import pytest
import torch

from tests.backends import triage
from tests.backends.gpu_cases import assert_near, recurrence_case
from tests.backends.recurrence_rounding import assert_states

#: Verdicts by number of the check: right, wrong, a process that ends, one that does not return.
SCRIPT = """
import sys, time
for line in sys.stdin:
    number = int(line)
    if number == 2:
        sys.exit(3)
    if number == 3:
        time.sleep(60)
    print("AssertionError: hs[0] must be 1, got 2" if number == 1 else "ok", flush=True)
"""


@pytest.fixture
def checks(monkeypatch):
    every = [triage.Check("cuda", "recurrence", n, "cta", "float32", "values") for n in range(6)]
    monkeypatch.setattr(triage, "checks", lambda: every)
    monkeypatch.setattr(triage.Worker, "command", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(triage, "LONGEST_SECONDS", 1.0)
    return every


@pytest.mark.parametrize("workers", [1, 3])
def test_a_check_costs_its_own_line(checks, tmp_path, workers):
    said = []
    assert triage.triage(tmp_path, 30.0, workers, said.append) == 3
    lines = (tmp_path / "triage.txt").read_text().splitlines()
    assert sorted(lines) == sorted(
        f"{check.name}: {verdict}"
        for check, verdict in zip(
            checks,
            [
                "ok",
                "AssertionError: hs[0] must be 1, got 2",
                "ended its process with code 3",
                "did not return in 1 s",
                "ok",
                "ok",
            ],
            strict=True,
        )
    )
    assert sorted((tmp_path / "failures.txt").read_text().splitlines()) == sorted(
        line for line in lines if not line.endswith(": ok")
    )
    assert said[-1].startswith("triage: 3 of 6 right, 3 wrong, 0 not tried")


def test_without_time_nothing_is_tried(checks, tmp_path):
    said = []
    assert triage.triage(tmp_path, 0.0, 1, said.append) == 0
    assert said[-1].startswith("triage: 0 of 6 right, 0 wrong, 6 not tried")


def test_a_check_that_the_end_cuts_off_is_not_wrong(checks, tmp_path, monkeypatch):
    monkeypatch.setattr(triage, "LONGEST_SECONDS", 60.0)
    said = []
    assert triage.triage(tmp_path, 3.0, 1, said.append) == 2
    assert said[-1].startswith("triage: 1 of 6 right, 2 wrong, 3 not tried")


def test_the_most_telling_come_first():
    whats = [check.what for check in triage.checks()]
    assert whats == sorted(whats, key=["values", "gradients", "the same bits"].index)


def test_a_wrong_entry_is_named():
    right = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    assert_near(right + 1e-9, right, 1e-8, float(right.norm()), "hs")
    found = right.clone()
    found[1, 2] += 1
    with pytest.raises(AssertionError, match=r"hs\[1, 2\] must be 5, got 6; 1 of 6"):
        assert_near(found, right, 1e-3, float(right.norm()), "hs")
    found[1, 2] = torch.nan
    with pytest.raises(AssertionError, match=r"hs\[1, 2\] must be 5, got nan"):
        assert_near(found, right, 1e-3, float(right.norm()), "hs")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_state_that_is_two_roundings_off_is_named(dtype):
    case = recurrence_case(17, dtype, T=3)
    x, U, c, M, h0, _ = case.tensors
    hs, h = [], h0.double()
    for x_t in x.double():
        h = torch.tanh(h @ M.double().mT + x_t @ U.double().mT + c.double()).to(dtype).double()
        hs.append(h)
    hs = torch.stack(hs).to(dtype)
    assert_states(hs, case.tensors, "tanh", splits=False)
    hs[1, 2, 5] *= 1 + 40 * torch.finfo(torch.float32).eps if dtype == torch.float32 else 1.02
    with pytest.raises(AssertionError, match=r"hs\[1, 2, 5\]"):
        assert_states(hs, case.tensors, "tanh", splits=False)
