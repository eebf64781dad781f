"""The argument checks that the ops share: what passes, and the words for what does not. The ops' own: their tests."""

import math

import numpy as np
import pytest
import torch

from vfrnn_kernels import checks, field_flow
from vfrnn_kernels.declaration import OPS

X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: checks.check_tensor("c", 1.0), TypeError, "c must be a tensor, got float"),
        (lambda: checks.check_tensor("c", X.to_sparse()), TypeError, "c must be a dense tensor, got layout"),
        (lambda: checks.check_tensor("c", X.int()), TypeError, "c must be float32, .* got torch.int32"),
        (lambda: checks.check_tensor("c", X.double(), X, "x"), TypeError, "c must have the dtype of x, torch.float32"),
        (lambda: checks.check_tensor("c", X.to("meta"), X, "x"), ValueError, "c must be on the device of x, cpu, got"),
        (lambda: checks.check_shape("c", X, "(n,)", (3,), n=3), ValueError, r"shape \(n,\) with n = 3, got \(3, 2\)"),
        (lambda: checks.check_rank("c", X, "(n,)", 1), ValueError, r"c must have shape \(n,\), got \(3, 2\)"),
        (lambda: checks.check_rank("c", X, "(..., a, b, c)", 3, batched=True), ValueError, "c must have shape"),
        (lambda: checks.check_positive_int("k", True), TypeError, "k must be an int, got bool"),
        (lambda: checks.check_positive_int("k", 0), ValueError, "k must be at least 1, got 0"),
        (lambda: checks.check_positive_int("k", 2**63), ValueError, "k must be at most 9223372036854775807, got 9223"),
        (lambda: checks.check_series(171, None), ValueError, "order must be at most 170, got 171"),
        (lambda: checks.check_series(None, 10**9), ValueError, "substeps must be at most 1000000, got 1000000000"),
        (lambda: checks.check_dtype("dtype", torch.int64), TypeError, "dtype must be None, .* got torch.int64"),
        (lambda: checks.check_dtype("dtype", np.ones(2)), TypeError, "dtype must be None, .* got array"),
        (lambda: checks.check_module("model", "rnn"), TypeError, "model must be a torch.nn.Module, got str"),
        (lambda: checks.check_broadcast("y", (2,), "x", (3, 4)), ValueError, r"shape of x, \(3, 4\), got \(2,\)"),
        (lambda: checks.check_entries("dt", 2**32, 2**31), ValueError, r"dt must give .* fewer than 2\*\*63 entries"),
        (
            lambda: checks.check_choice("of", np.ones(2), ("a", "b")),
            ValueError,
            "of must be one of 'a', 'b', got array",
        ),
        (lambda: checks.check_choice("of", "c", ("a", "b")), ValueError, "of must be one of 'a', 'b', got 'c'"),
        (lambda: checks.as_scalar_tensor("dt", X, X), ValueError, r"dt must have shape \(\)"),
        (lambda: checks.as_number_tensor("dt", "1", X), TypeError, "dt must be a number or a tensor, got str"),
        (lambda: checks.as_number_tensor("dt", math.nan, X), ValueError, "dt must be finite, got nan"),
        (lambda: checks.as_number_tensor("dt", 1e300, X), ValueError, r"dt must be at most 3.4e\+38.* got 1e\+300"),
        (
            lambda: checks.as_number_tensor("dt", -(10**400), X),
            ValueError,
            "dt must be at most .* got an int of 1329 bits",
        ),
        (
            lambda: checks.check_mesh(torch.ones(2), torch.ones(1), torch.ones(1, 2), None),
            ValueError,
            "N and G must both be given or both be None, got N alone",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_passes():
    checks.check_tensor("c", X.half())
    checks.check_shape("c", X, "(3, 2)", (3, 2))
    checks.check_rank("c", X, "(..., n)", 1, batched=True)
    checks.check_positive_int("k", 1)
    checks.check_choice("of", "a", ("a", "b"))
    checks.check_mesh(torch.ones(3), torch.ones(3), None, None)


def test_numbers_become_tensors_of_the_same_kind():
    like = torch.zeros(1, dtype=torch.float64)
    for value in (2, 2.0, torch.tensor(2.0, dtype=torch.float64)):
        found = checks.as_scalar_tensor("dt", value, like)
        assert (found.dtype, found.shape, float(found)) == (torch.float64, (), 2.0)


def test_batches_become_one_dimension_and_back():
    flat = checks.as_batch(torch.arange(3.0), (2, 4), 3)
    assert flat.shape == (8, 3)
    assert checks.from_batch(flat, (2, 4)).shape == (2, 4, 3)
    one = torch.zeros(5, 3)
    assert checks.as_batch(one, (5,), 3) is one
    assert checks.from_batch(one, (5,)) is one


@pytest.mark.parametrize("name", ["field_flow", "flow_recurrence"])
def test_a_nested_divergence_scale_is_named(name):
    arguments = {
        **OPS[name].sample(4).arguments,
        "divergence_scale": torch.nested.as_nested_tensor([X[0]], layout=torch.jagged),
    }
    with pytest.raises(TypeError, match="divergence_scale must be a dense tensor, got a nested one"):
        OPS[name].function(**arguments)


def test_of_no_sample_no_exponential_is_asked(backend):
    arguments = OPS["field_flow"].sample(4, B=0).arguments
    arguments["v"] = torch.full_like(arguments["v"], 1e30)
    assert field_flow(**{**arguments, "substeps": 1}, backend=backend).shape == (0, 4)


@pytest.mark.parametrize("name", ["field_generator", "field_flow"])
def test_weights_whose_quotients_overflow_are_refused(name, backend):
    arguments = OPS[name].sample(4).arguments
    arguments["b"] = torch.full_like(arguments["b"], 1e-45)
    with pytest.raises(RuntimeError, match="b must be positive and finite, and no subnormal number"):
        OPS[name].function(**arguments, backend=backend)


def test_divergences_whose_mean_is_no_number_are_refused(backend):
    arguments = OPS["field_flow"].sample(33, B=2, m=1, d=1, substeps=1, volume_preserving=True).arguments
    arguments["v"] = torch.full_like(arguments["v"], -1e38)
    with pytest.raises(RuntimeError, match=r"its exponential overflows|exp overflows"):
        field_flow(**arguments, backend=backend)
