"""How an op's forward and hand-written backward become one differentiable function.

`KernelFunction` is the `torch.autograd.Function` of every op: its backward applies `KernelBackward`, a second Function
around the backward op, so that everything can be differentiated again. Derivatives of the *backward* have no kernel:
they come from differentiating the reference forward twice with `torch.func.vjp` (correct, not optimised). The vmap
rules run the op once per sample and stack. Both Functions find their kernels by name: that is what `torch.compile` can
trace.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from vfrnn_kernels.autocast import autocasts
from vfrnn_kernels.library import backward_fake, define_triton_ops
from vfrnn_kernels.loader import HAS_SCHEMAS

Tensors = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Kernels:
    """One backend's forward and backward of one op, and how their arguments are laid out.

    Attributes:
        forward: `(*tensors, *constants) -> outputs + saved`.
        backward: `(*grad_outputs, *tensors, *outputs, *saved, *constants, needs) -> one gradient per tensor`; bit k of
            `needs` asks for the k-th (the convention of csrc/ops.cpp).
        reference: the op in plain differentiable PyTorch, `(*tensors, *constants) -> outputs`.
        inputs: how many of the arguments are tensors (an optional one may be None).
        outputs: how many results are differentiable.
        saved: how many further results the forward returns for its backward.
    """

    forward: Callable[..., Tensors]
    backward: Callable[..., Gradients]
    reference: Callable[..., Tensors]
    inputs: int
    outputs: int
    saved: int


BACKENDS = ("cpu", "cuda", "triton", "reference")  # "cpu" and "cuda": one library op, two devices
_KERNELS: dict[str, Kernels] = {}  # "<op>:<backend>"


def differentiable(
    name: str,
    *,
    arguments: str,
    reference: Callable[..., Tensors],
    reference_backward: Callable[..., Gradients],
    fake: Callable[..., Any],
    inputs: int,
    outputs: int,
    saved: int = 0,
    triton_saved: int = 0,
    triton_fake: Callable[..., Any] | None = None,
) -> dict[str, Callable[..., Tensors]]:
    """The op as one differentiable function per backend, each `(*tensors, *constants) -> results`.

    Args:
        name: of the library op; its backward is `<name>_backward` (convention: csrc/ops.cpp).
        arguments: of the library op, as in its schema there.
        reference: the op in plain differentiable PyTorch, `(*tensors, *constants) -> outputs`.
        reference_backward: `(*grad_outputs, *tensors, *outputs, *constants) -> one gradient per tensor`.
        fake: shapes of the library op: the same call -> empty results, outputs and saved.
        inputs: how many of the arguments are tensors (an optional one may be None).
        outputs: how many results are differentiable.
        saved: how many further results the library op returns, kept for its backward.
        triton_saved, triton_fake: the same of the Triton kernels, where it differs.
    """
    if HAS_SCHEMAS:
        torch.library.register_fake(f"vfrnn_kernels::{name}")(fake)
        torch.library.register_fake(f"vfrnn_kernels::{name}_backward")(backward_fake(outputs, inputs))

    define_triton_ops(name, arguments, triton_fake or fake, inputs, outputs, triton_saved)

    def plain_backward(*args: Any) -> Gradients:
        return reference_backward(*args[:-1])

    for backend, op, kept in (("cpu", name, saved), ("cuda", name, saved), ("triton", f"{name}_triton", triton_saved)):
        forward, backward = _library(op), _library(f"{op}_backward")
        _KERNELS[f"{name}:{backend}"] = Kernels(forward, backward, reference, inputs, outputs, kept)
    _KERNELS[f"{name}:reference"] = Kernels(reference, plain_backward, reference, inputs, outputs, 0)
    return {backend: functools.partial(_apply, f"{name}:{backend}") for backend in BACKENDS}


def _library(op: str) -> Callable[..., Tensors]:
    def call(*args: Any) -> Tensors:
        result = getattr(torch.ops.vfrnn_kernels, op)(*args)
        return result if isinstance(result, tuple) else (result,)

    return call


def _apply(key: str, *args: Any) -> Tensors:
    # torch.compile traces a Function only where there is something to differentiate.
    if torch.compiler.is_compiling() and not (
        torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
    ):
        return _KERNELS[key].forward(*args)
    # What autocast asks for is done by the ops (autocast.py); the products inside them keep their dtype.
    device = args[0].device.type
    if autocasts(device):
        with torch.autocast(device, enabled=False):
            return KernelFunction.apply(key, *args)
    return KernelFunction.apply(key, *args)


class _AsGiven(inspect.Signature):
    """Of a function without defaults. `Function.apply` binds its arguments to the signature of `forward` on every call,
    to find them; the general way to do so takes longer than a small kernel."""

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return _Arguments(args, kwargs)


class _Arguments:
    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def apply_defaults(self) -> None:
        pass


class KernelFunction(Function):
    """(key, *tensors, *constants) -> results, of which the first `outputs` are differentiable."""

    @staticmethod
    def forward(key: str, *args: Any) -> Tensors:
        return _KERNELS[key].forward(*args)

    @staticmethod
    def setup_context(ctx: Any, args: tuple[Any, ...], results: Tensors) -> None:
        kernels = _KERNELS[args[0]]
        ctx.save_for_backward(*args[1 : 1 + kernels.inputs], *results)
        ctx.mark_non_differentiable(*results[kernels.outputs :])
        ctx.set_materialize_grads(False)  # not for `saved`; for the outputs in backward
        ctx.key, ctx.constants = args[0], args[1 + kernels.inputs :]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        kernels = _KERNELS[ctx.key]
        saved = ctx.saved_tensors  # read once: that is all a checkpoint allows
        results = saved[kernels.inputs :]
        grad_outputs = [torch.zeros_like(results[k]) if grads[k] is None else grads[k] for k in range(kernels.outputs)]
        needed = ctx.needs_input_grad[1 : 1 + kernels.inputs]
        needs = sum(1 << k for k in range(kernels.inputs) if needed[k])
        arguments = (ctx.key, *grad_outputs, *saved, *ctx.constants, needs)
        # Without a graph to record (a plain `.backward()`, and what torch.compile traces) the kernel runs directly.
        run = KernelBackward.apply if torch.is_grad_enabled() else KernelBackward.forward
        found = iter(run(*arguments))
        gradients = [next(found) if needed[k] else None for k in range(kernels.inputs)]
        return (None, *gradients, *[None for _ in ctx.constants])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int, ...]]:
        return _one_by_one(KernelFunction, info.batch_size, in_dims, args)


class KernelBackward(Function):
    """(key, *grad_outputs, *tensors, *results, *constants, needs) -> the gradients that `needs` asks for."""

    @staticmethod
    def forward(key: str, *args: Any) -> Tensors:
        grads = _KERNELS[key].backward(*args)
        return tuple(grad for k, grad in enumerate(grads) if grad is not None and args[-1] >> k & 1)

    @staticmethod
    def setup_context(ctx: Any, args: tuple[Any, ...], gradients: Tensors) -> None:
        kernels = _KERNELS[args[0]]
        first_constant = 1 + 2 * kernels.outputs + kernels.inputs + kernels.saved
        ctx.save_for_backward(*args[1 : 1 + kernels.outputs + kernels.inputs])
        ctx.key, ctx.constants, ctx.needs, ctx.arguments = args[0], args[first_constant:-1], args[-1], len(args)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Gradients:
        kernels = _KERNELS[ctx.key]
        saved = ctx.saved_tensors  # grad_outputs, tensors
        present = [k for k, tensor in enumerate(saved) if tensor is not None]
        wanted = [k for k in range(kernels.inputs) if ctx.needs >> k & 1]

        def gradients(*values: Tensor) -> Tensors:
            arguments = list(saved)
            for k, value in zip(present, values, strict=True):
                arguments[k] = value
            grad_outputs, tensors = arguments[: kernels.outputs], arguments[kernels.outputs :]

            def forward(*chosen: Tensor) -> Tensors:
                for k, value in zip(wanted, chosen, strict=True):
                    tensors[k] = value
                return kernels.reference(*tensors, *ctx.constants)

            return torch.func.vjp(forward, *(tensors[k] for k in wanted))[1](tuple(grad_outputs))

        second = torch.func.vjp(gradients, *(saved[k] for k in present))[1](tuple(cotangents))
        result: list[Tensor | None] = [None] * ctx.arguments
        for k, value in zip(present, second, strict=True):
            result[1 + k] = value
        return tuple(result)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int, ...]]:
        return _one_by_one(KernelBackward, info.batch_size, in_dims, args)


for _function in (KernelFunction, KernelBackward):
    _function.forward.__signature__ = _AsGiven()  # type: ignore[attr-defined]


def _one_by_one(
    function: type[Function], batch_size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> tuple[Tensors, tuple[int, ...]]:
    rows = [
        function.apply(*(arg if dim is None else arg.select(dim, k) for arg, dim in zip(args, in_dims, strict=True)))
        for k in range(batch_size)
    ]
    stacked = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return stacked, (0,) * len(stacked)
