"""When a reference reads values, and what it says of those that are wrong."""

import pytest
import torch

from vfrnn_kernels import reference_values

X = torch.zeros(3, 2)


def test_values_on_a_device_are_checked_on_request_only(monkeypatch):
    assert reference_values.values_wanted(torch.device("cpu"))
    assert not reference_values.values_wanted(torch.device("cuda"))
    monkeypatch.setenv("VFRNN_CHECK_VALUES", "1")
    assert reference_values.values_wanted(torch.device("cuda"))
    assert not reference_values.values_wanted(torch.device("meta"))


def test_values_that_are_mapped_over_are_not_read():
    seen = []
    torch.func.vmap(lambda x: (seen.append(reference_values.values_readable(x)), x)[1])(X)
    torch.func.grad(lambda x: (seen.append(reference_values.values_readable(x)), x.sum())[1])(X)
    assert seen == [False, True]
    assert reference_values.values_readable(torch.nn.Parameter(X))
    assert not reference_values.values_readable(X.to("meta"))


def test_wrong_values_are_named():
    one, nan = torch.ones(2), torch.tensor([1.0, float("nan")])
    for name, arguments in (("b", (-one, one, one)), ("w", (one, nan, one)), ("v", (one, one, nan))):
        with pytest.raises(RuntimeError, match=f"^{name} must be "):
            reference_values.check_mesh_values(*arguments)
    reference_values.check_mesh_values(one, one, one)
    with pytest.raises(RuntimeError, match=r"^S must be finite"):
        reference_values.check_skew(nan.expand(2, 2))
    with pytest.raises(RuntimeError, match=r"^S must be skew-symmetric, .* = 2$"):
        reference_values.check_skew(torch.ones(2, 2))
    reference_values.check_skew(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
