"""Who serves a call: by the argument, by the environment, else the first of the table that can."""

import warnings

import pytest
import torch

import vfrnn_kernels
from vfrnn_kernels import dispatch
from vfrnn_kernels.dispatch import Backend, select_backend


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend must be one of 'cpu', 'cuda', 'triton', 'reference', got 'cuda9'"):
        select_backend("skew_expm", "cuda9", [torch.zeros(1)])


def test_a_backend_that_cannot_serve_says_why():
    with pytest.raises(RuntimeError, match=r"backend 'cpu' .* float32 and float64, got torch.bfloat16"):
        select_backend("recurrence", "cpu", [torch.zeros(1, dtype=torch.bfloat16)])


def test_a_backend_from_the_environment_is_obeyed_and_named(monkeypatch):
    monkeypatch.setenv("VFRNN_BACKEND", "reference")
    assert select_backend("recurrence", None, [torch.zeros(1)]) == "reference"
    assert select_backend("recurrence", "cpu", [torch.zeros(1)]) == "cpu"
    monkeypatch.setenv("VFRNN_BACKEND", "fast")
    with pytest.raises(ValueError, match="VFRNN_BACKEND must be one of"):
        select_backend("recurrence", None, [torch.zeros(1)])


def test_automatic_choice_is_compiled_where_it_can_be():
    assert select_backend("recurrence", None, [torch.zeros(1)]) == "cpu"
    with pytest.warns(
        RuntimeWarning, match=r"recurrence runs on plain PyTorch \(slow\); cpu: it computes recurrence in"
    ):
        assert select_backend("recurrence", None, [torch.zeros(1, dtype=torch.bfloat16)]) == "reference"


@pytest.mark.parametrize("chosen", ["cuda", "triton"])
def test_a_backend_from_the_environment_that_is_not_there_is_an_error(monkeypatch, chosen):
    monkeypatch.setenv("VFRNN_BACKEND", chosen)
    with pytest.raises(RuntimeError, match=rf"backend '{chosen}' \(from VFRNN_BACKEND\) cannot serve this call: "):
        vfrnn_kernels.skew_expm(torch.zeros(3, 3))


def test_a_slow_choice_is_told_once():
    x = torch.zeros(1, dtype=torch.float16)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            assert select_backend("recurrence", None, [x]) == "reference"
        assert select_backend("skew_expm", None, [x]) == "reference"
    assert [str(w.message).split()[0] for w in told] == ["recurrence", "skew_expm"]


def test_what_is_no_name_of_a_backend_is_refused():
    with pytest.raises(ValueError, match=r"^backend must be one of 'cpu'"):
        dispatch.get_backend(torch.ones(2))


def test_without_compiled_kernels_the_reference_serves_and_says_so(monkeypatch):
    monkeypatch.delenv("VFRNN_BACKEND", raising=False)
    absent = Backend("cpu", "not built: gone", lambda op, device, dtype, n: None)
    monkeypatch.setattr(dispatch, "BACKENDS", (absent, *dispatch.BACKENDS[1:]))
    with pytest.warns(RuntimeWarning, match=r"recurrence runs on plain PyTorch \(slow\); cpu: not built: gone"):
        assert select_backend("recurrence", None, [torch.zeros(1)]) == "reference"
    with pytest.raises(RuntimeError, match=r"backend 'cpu' \(from backend\) cannot serve this call: not built: gone"):
        select_backend("recurrence", "cpu", [torch.zeros(1)])


def test_the_first_tensor_that_is_given_decides():
    assert select_backend("recurrence", None, [None, torch.zeros(1)]) == "cpu"
    assert select_backend("recurrence", "reference", [torch.zeros(1)], dtype=torch.bfloat16) == "reference"
    with pytest.raises(RuntimeError, match=r"got torch.bfloat16"):
        select_backend("recurrence", "cpu", [torch.zeros(1)], dtype=torch.bfloat16)
    assert select_backend("recurrence", None, [torch.zeros(1, device="meta")]) == "cpu"
