"""What the ops ask about torch.autocast, and what they convert. What each op does with it: its own tests."""

import pytest
import torch

from vfrnn_kernels.autocast import autocast_dtype, autocasts, converted, in_float32

VALUES = {dtype: torch.ones(2, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}


def test_it_is_off_unless_asked_for():
    assert not autocasts("cpu")
    assert autocast_dtype(VALUES[torch.float32]) is None
    assert in_float32(VALUES[torch.float16], None)[0].dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_its_dtype_is_that_of_the_tensors_device(dtype):
    with torch.autocast("cpu", dtype):
        assert autocasts("cpu")
        assert not autocasts("cuda")
        assert autocast_dtype(VALUES[torch.float32]) == dtype
        assert autocast_dtype(VALUES[torch.float32].to("meta")) is None
        assert autocast_dtype(1.0) is None


def test_float64_and_numbers_stay_as_they_are():
    found = converted(torch.float16, *VALUES.values(), None, 2.5)
    assert [value.dtype for value in found[:4]] == [torch.float64, torch.float16, torch.float16, torch.float16]
    assert found[4:] == (None, 2.5)


def test_under_autocast_16_bits_become_float32():
    with torch.autocast("cpu", torch.bfloat16):
        found = in_float32(*VALUES.values(), None)
    assert [value.dtype for value in found[:4]] == [torch.float64, torch.float32, torch.float32, torch.float32]
    assert found[4] is None


def test_a_device_that_autocast_does_not_know():
    assert not autocasts("meta")
