"""A few odd calls of every target, the same every time (`make fuzz` has more); and that the harness sees its faults."""

import math
from contextlib import nullcontext
from unittest import mock

import pytest
import torch

from tests.fuzz import oracle, targets, worker
from tests.fuzz.__main__ import Campaign
from tests.fuzz.oracle import Fault, compare, is_clear, refused
from vfrnn_kernels.declaration import OPS

#: The command line's and a picture's take seconds.
QUICK = [name for name in targets.TARGETS if " " not in name and name != "vfrnn.inspect"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", QUICK)
def test_a_few_calls(target, tmp_path):
    known = set()
    worker.explore(target, 0, 4, worker.Journal(tmp_path), known)
    assert not known, (tmp_path / "outcomes").read_text()


def test_every_op_and_module_is_called():
    assert set(OPS) <= set(targets.TARGETS)
    assert {"VFRNN", "RNNCell", "InputFieldRNN", "vfrnn.convert", "vfrnn.LatentMesh.grid", "vfrnn train"} <= set(
        targets.TARGETS
    )


def raised(call):
    with pytest.raises(Exception) as info:  # noqa: PT011
        call()
    return info.value


def test_which_exceptions_are_clear():
    from vfrnn import recurrence, skew_expm

    S = torch.zeros(2, 2)
    assert is_clear(raised(lambda: skew_expm(S, "x")), ("S", "dt"))
    assert is_clear(raised(lambda: skew_expm(S + 1)), ("S", "dt"))  # by native code
    assert not is_clear(raised(lambda: skew_expm(S, "x")), ("A",))  # names none
    assert not is_clear(raised(lambda: S @ torch.zeros(3)), ("S", "size"))  # torch's own
    assert not is_clear(raised(lambda: [][0]), ("list",))
    with pytest.raises(Fault, match="S must be a tensor") as fault:
        refused(raised(lambda: skew_expm(None)), ("dt",), "skew_expm")
    assert fault.value.key == "skew_expm unclear TypeError: S must be a tensor, got NoneType"
    x = torch.zeros(1, 1, 1).expand(2**45, 1, 1)
    assert is_clear(raised(lambda: recurrence(x, S[:1, :1], None, S[:1, :1])), ())  # memory


@pytest.mark.parametrize(
    ("actual", "key"),
    [
        ([1.0, math.nan], "value 0 NaN"),
        ([1.0, math.inf], "value 0 infinite"),
        ([1.0, 2.001], "value 0 values"),
        ([1.0], "value 0 shape"),
        ([1.0, 2.000001], None),
    ],
)
def test_which_values_are_right(actual, key):
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    with pytest.raises(Fault) if key else nullcontext() as fault:
        compare("value", [torch.tensor(actual)], [exact.float()], [exact])
    assert key is None or fault.value.key == key


def test_nan_that_is_swallowed_is_seen():
    nan = torch.tensor([math.nan], dtype=torch.float64)
    with pytest.raises(Fault, match="where the reference has NaN"):
        compare("value", [torch.tensor([0.0])], [nan.float()], [nan], [nan])


@pytest.mark.filterwarnings("ignore")
def test_an_op_that_is_wrong_is_found_and_shrunk(tmp_path):
    wrong = mock.patch.object(oracle, "_compare_values", side_effect=Fault("wrong", "planted"))
    known = set()
    with wrong:
        worker.explore("skew_expm", 0, 60, worker.Journal(tmp_path), known)
    assert known == {"wrong"}
    assert "changes=[]" in (tmp_path / "outcomes").read_text().splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "how"), [("os.kill(os.getpid(), 11)", "crash (-11)"), ("time.sleep(99)", "hang")])
def test_a_crash_and_a_hang_are_told_with_their_call(code, how, tmp_path):
    script = f"""
import os, sys, time
open(sys.argv[3] + "/call", "w").write("1\\nop('recurrence', planted)\\n")
{code}
"""
    campaign = Campaign(tmp_path, 0, 5, ["recurrence"])
    import subprocess

    start = subprocess.Popen
    with (
        mock.patch(
            "subprocess.Popen", lambda command, **options: start([command[0], "-c", script, *command[1:]], **options)
        ),
        mock.patch("tests.fuzz.__main__.PATIENCE", 2.0),
    ):
        campaign.run(1)
    (fault,) = campaign.faults.values()
    assert fault["key"] == f"recurrence {how}"
    assert fault["call"] == "op('recurrence', planted)"
