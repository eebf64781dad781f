"""Library ops that are made in Python: schemas, fakes, what a backward returns, and what is off while one runs."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vfrnn_kernels import library
from vfrnn_kernels.declaration import OPS, Constant, Flops, Op, Sample, Saved, T

seen = {}


def scaled(*, x, bias, factor):
    seen["grad enabled"], seen["autocast"] = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    return (factor * x if bias is None else factor * x + bias,)


def scaled_backward(*, grad_y, x, bias, y, factor, wanted):
    seen["wanted"] = wanted
    return {"x": factor * grad_y, "bias": grad_y}


@pytest.fixture(scope="module")
def ops():
    """`test_scaled`: x times a number plus an optional bias."""
    op = Op(
        "test_scaled",
        inputs=(T("x", "n"), T("bias", "n", optional=True)),
        constants=(Constant("factor", "int"),),
        outputs=(T("y", "n"),),
        reference=lambda x, bias, factor: (factor * x,),
        reference_backward=lambda *args: (None, None),
        flops=Flops(lambda sizes, named: 0, lambda sizes, named, wanted: 0),
        serves=dict.fromkeys(("cpu", "cuda", "triton"), (torch.float32,)),
        sample=lambda n: Sample({}),
    )
    module = SimpleNamespace(test_scaled=scaled, test_scaled_backward=scaled_backward)
    library.define_ops(op, "test_scaled", Saved(), lambda: module)
    return torch.ops.vfrnn_kernels


def test_the_schemas_follow_the_convention(ops):
    assert str(ops.test_scaled.default._schema) == (
        "vfrnn_kernels::test_scaled(Tensor x, Tensor? bias, int factor) -> Tensor"
    )
    assert str(ops.test_scaled_backward.default._schema) == (
        "vfrnn_kernels::test_scaled_backward(Tensor grad_y, Tensor x, Tensor? bias, Tensor y, int factor, int needs)"
        " -> (Tensor grad_x, Tensor grad_bias)"
    )


def test_an_op_runs_without_autograd_and_autocast(ops):
    x = torch.ones(2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = ops.test_scaled(x, None, 3)
    assert result.tolist() == [3, 3]
    assert (seen["grad enabled"], seen["autocast"]) == (False, False)


@pytest.mark.parametrize(("needs", "sizes"), [(0b11, [2, 2]), (0b01, [2, 0]), (0b10, [0, 2]), (0, [0, 0])])
def test_a_backward_returns_nothing_for_what_is_not_needed(ops, needs, sizes):
    grad, x, bias = torch.ones(2), torch.ones(2), torch.ones(2)
    real = ops.test_scaled_backward(grad, x, bias, x, 3, needs)
    assert [gradient.numel() for gradient in real] == sizes
    assert seen["wanted"] == {name for name, size in zip(("x", "bias"), sizes, strict=True) if size}
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (grad, x, bias, x)]
        assert [gradient.numel() for gradient in ops.test_scaled_backward(*fakes, 3, needs)] == sizes


def test_an_argument_that_is_none_has_no_gradient(ops):
    x = torch.ones(2)
    assert [t.numel() for t in ops.test_scaled_backward(x, x, None, x, 3, 0b11)] == [2, 0]


def test_every_op_has_triton_kernels_beside_it():
    pytest.importorskip("triton", reason="needs Triton")
    for op in OPS:
        module = library.triton_kernels(op)
        assert callable(getattr(module, op))
        assert callable(getattr(module, f"{op}_backward"))
