"""How an op's forward and hand-written backward become one differentiable function.

`KernelFunction` is the `torch.autograd.Function` of every op: its backward applies `KernelBackward`, a second Function
around the backward op, so that everything can be differentiated again. Derivatives of the *backward*, and forward-mode
derivatives of both, have no kernel: they come from differentiating the reference forward with `torch.func.vjp`
(correct, not optimised). The vmap rules run the op once per sample and stack.

torch.compile and torch.export cannot trace a Function that has a `jvp`. They see the library op, which is opaque to
them and differentiable by itself: its kernel for the Autograd keys applies the same `KernelFunction`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad

from vfrnn_kernels.autocast import autocasts
from vfrnn_kernels.library import backward_fake, define_ops, library, triton_kernels
from vfrnn_kernels.loader import HAS_SCHEMAS

Tensors = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Kernels:
    """One backend's forward and backward of one op, and how their arguments are laid out.

    Attributes:
        forward: `(*tensors, *constants) -> outputs + saved`.
        traced: the same, differentiable: what torch.compile and torch.export trace.
        backward: `(*grad_outputs, *tensors, *outputs, *saved, *constants, needs) -> one gradient per tensor`; bit k of
            `needs` asks for the k-th (the convention of csrc/ops.cpp).
        reference: the op in plain differentiable PyTorch, `(*tensors, *constants) -> outputs`.
        inputs: how many of the arguments are tensors (an optional one may be None).
        outputs: how many results are differentiable.
        saved: how many further results the forward returns for its backward.
    """

    forward: Callable[..., Tensors]
    traced: Callable[..., Tensors]
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
    composition: Any = None,
    triton_composition: Any = None,
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
        composition: what has the functions `<name>` and `<name>_backward`, where the library op is put together in
            Python; None: csrc/ops.cpp has it.
        triton_composition: the same of the Triton kernels; None: the module `<name>/triton_kernels.py`.
    """
    if composition is not None:
        define_ops(name, name, lambda: composition, arguments, fake, inputs, outputs, saved)
    elif HAS_SCHEMAS:
        torch.library.register_fake(f"vfrnn_kernels::{name}")(fake)
        torch.library.register_fake(f"vfrnn_kernels::{name}_backward")(backward_fake(outputs, inputs))

    triton = (arguments, triton_fake or fake, inputs, outputs, triton_saved)
    define_ops(f"{name}_triton", name, lambda: triton_composition or triton_kernels(name), *triton)

    def plain_backward(*args: Any) -> Gradients:
        return reference_backward(*args[:-1])

    for backend, op, kept in (("cpu", name, saved), ("cuda", name, saved), ("triton", f"{name}_triton", triton_saved)):
        forward, traced, backward = _below_autograd(op), _library(op), _library(f"{op}_backward")
        _KERNELS[f"{name}:{backend}"] = Kernels(forward, traced, backward, reference, inputs, outputs, kept)
    _KERNELS[f"{name}:reference"] = Kernels(reference, reference, plain_backward, reference, inputs, outputs, 0)
    if HAS_SCHEMAS:
        _register_derivatives(name, f"{name}:cpu")
    _register_derivatives(f"{name}_triton", f"{name}:triton")
    return {backend: functools.partial(_apply, f"{name}:{backend}") for backend in BACKENDS}


def kernels_of(key: str) -> Kernels:
    """Of an op on a backend, "<op>:<backend>"."""
    return _KERNELS[key]


def _library(op: str) -> Callable[..., Tensors]:
    def call(*args: Any) -> Tensors:
        result = getattr(torch.ops.vfrnn_kernels, op)(*args)
        return result if isinstance(result, tuple) else (result,)

    return call


def _below_autograd(op: str) -> Callable[..., Tensors]:
    """The library op without what `_register_derivatives` adds."""

    def call(*args: Any) -> Tensors:
        with torch._C._AutoDispatchBelowAutograd():
            result = getattr(torch.ops.vfrnn_kernels, op)(*args)
        return result if isinstance(result, tuple) else (result,)

    return call


def _register_derivatives(op: str, key: str) -> None:
    """Makes the library op differentiable; the second key is the one that torch.func's transforms are handled at."""

    def differentiate(*args: Any) -> Any:
        results = KernelFunction.apply(key, *args)
        return results if len(results) > 1 else results[0]

    for dispatch_key in ("Autograd", "FuncTorchDynamicLayerFrontMode"):
        library.impl(op, differentiate, dispatch_key)


def _apply(key: str, *args: Any) -> Tensors:
    # What autocast asks for is done by the ops (autocast.py); the products inside them keep their dtype.
    device = args[0].device.type
    if autocasts(device):
        with torch.autocast(device, enabled=False):
            return _apply(key, *args)
    if torch.compiler.is_compiling():
        return _KERNELS[key].traced(*args)
    return KernelFunction.apply(key, *args)


class DirectFunction(Function):
    """A Function without default arguments. `Function.apply` binds what it is given to the signature of `forward` on
    every call, to find them, which takes longer than a small kernel."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(Function, cls).apply(*unwrap_dead_wrappers(args))  # type: ignore[misc]


class KernelFunction(DirectFunction):
    """(key, *tensors, *constants) -> results, of which the first `outputs` are differentiable."""

    @staticmethod
    def forward(key: str, *args: Any) -> Tensors:
        return _KERNELS[key].forward(*args)

    @staticmethod
    def setup_context(ctx: Any, args: tuple[Any, ...], results: Tensors) -> None:
        kernels = _KERNELS[args[0]]
        tensors = args[1 : 1 + kernels.inputs]
        ctx.save_for_backward(*tensors, *results)
        ctx.save_for_forward(*tensors)
        if kernels.saved:
            ctx.mark_non_differentiable(*results[kernels.outputs :])
        ctx.set_materialize_grads(False)  # not for `saved`; for the outputs in backward
        ctx.key, ctx.constants = args[0], args[1 + kernels.inputs :]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        kernels = _KERNELS[ctx.key]
        saved = ctx.saved_tensors  # read once: torch.utils.checkpoint recomputes them at the first time
        results = saved[kernels.inputs :]
        grad_outputs = [torch.zeros_like(results[k]) if grads[k] is None else grads[k] for k in range(kernels.outputs)]
        needed = ctx.needs_input_grad[1 : 1 + kernels.inputs]
        needs = sum(1 << k for k in range(kernels.inputs) if needed[k])
        arguments = (ctx.key, *grad_outputs, *saved, *ctx.constants, needs)
        # Without a graph to record (a plain `.backward()`) the kernel runs directly.
        recorded = torch.is_grad_enabled() or forward_ad._current_level >= 0
        run = KernelBackward.apply if recorded else KernelBackward.forward
        found = iter(run(*arguments))
        gradients = [next(found) if needed[k] else None for k in range(kernels.inputs)]
        return (None, *gradients, *[None for _ in ctx.constants])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Gradients:
        kernels = _KERNELS[ctx.key]
        found = _tangents(_reference(ctx), ctx.saved_tensors, tangents[: kernels.inputs])
        return (*found, *[None for _ in range(kernels.saved)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int, ...]]:
        return _one_by_one(KernelFunction, info.batch_size, in_dims, args)


class KernelBackward(DirectFunction):
    """(key, *grad_outputs, *tensors, *results, *constants, needs) -> the gradients that `needs` asks for."""

    @staticmethod
    def forward(key: str, *args: Any) -> Tensors:
        grads = _KERNELS[key].backward(*args)
        return tuple(grad for k, grad in enumerate(grads) if grad is not None and args[-1] >> k & 1)

    @staticmethod
    def setup_context(ctx: Any, args: tuple[Any, ...], gradients: Tensors) -> None:
        kernels = _KERNELS[args[0]]
        first_constant = 1 + 2 * kernels.outputs + kernels.inputs + kernels.saved
        tensors = args[1 : 1 + kernels.outputs + kernels.inputs]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.key, ctx.constants, ctx.needs, ctx.arguments = args[0], args[first_constant:-1], args[-1], len(args)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Gradients:
        second = _cotangents(_gradients(ctx), ctx.saved_tensors, cotangents)
        return (None, *second, *[None for _ in range(ctx.arguments - 1 - len(second))])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Gradients:
        saved = ctx.saved_tensors
        return _tangents(_gradients(ctx), saved, tangents[: len(saved)])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int, ...]]:
        return _one_by_one(KernelBackward, info.batch_size, in_dims, args)


def _reference(ctx: Any) -> Callable[..., Tensors]:
    return lambda *tensors: _KERNELS[ctx.key].reference(*tensors, *ctx.constants)


def _gradients(ctx: Any) -> Callable[..., Tensors]:
    """`(*grad_outputs, *tensors) -> the gradients that ctx.needs asks for`, by differentiating the reference."""
    kernels = _KERNELS[ctx.key]
    wanted = [k for k in range(kernels.inputs) if ctx.needs >> k & 1]

    def gradients(*arguments: Tensor | None) -> Tensors:
        tensors = arguments[kernels.outputs :]
        forward = _of_some(_reference(ctx), tensors, wanted)
        return _vjp(forward, *(tensors[k] for k in wanted))[1](arguments[: kernels.outputs])

    return gradients


def _cotangents(
    function: Callable[..., Tensors], arguments: tuple[Tensor | None, ...], cotangents: tuple[Tensor | None, ...]
) -> Gradients:
    """The gradients of a function's arguments, None where the argument is."""
    present = [k for k, argument in enumerate(arguments) if argument is not None]
    results, pull_back = _vjp(_of_some(function, arguments, present), *(arguments[k] for k in present))
    given = zip(results, cotangents, strict=True)
    found = iter(pull_back(tuple(torch.zeros_like(r) if c is None else c for r, c in given)))
    return tuple(None if argument is None else next(found) for argument in arguments)


def _tangents(
    function: Callable[..., Tensors], arguments: tuple[Tensor | None, ...], tangents: tuple[Tensor | None, ...]
) -> Tensors:
    """The tangents of a function's results. `pull_back` is linear, and their map is its transpose: `torch.func.jvp`,
    which would give them in one pass, cannot be called inside the jvp of a Function."""
    moved = [k for k, tangent in enumerate(tangents) if tangent is not None]
    results, pull_back = _vjp(_of_some(function, arguments, moved), *(arguments[k] for k in moved))
    _, push_forward = _vjp(pull_back, tuple(torch.zeros_like(result) for result in results))
    return push_forward(tuple(tangents[k] for k in moved))[0]


def _vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[..., Any]]:
    results, pull_back = torch.func.vjp(function, *arguments)[:2]
    return results, pull_back


def _of_some(
    function: Callable[..., Tensors], arguments: tuple[Tensor | None, ...], chosen: list[int]
) -> Callable[..., Tensors]:
    """The function of the chosen arguments, with the others as given."""

    def call(*values: Tensor) -> Tensors:
        replaced = list(arguments)
        for k, value in zip(chosen, values, strict=True):
            replaced[k] = value
        return function(*replaced)

    return call


def _one_by_one(
    function: type[Function], batch_size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> tuple[Tensors, tuple[int, ...]]:
    rows = [
        function.apply(*(arg if dim is None else arg.select(dim, k) for arg, dim in zip(args, in_dims, strict=True)))
        for k in range(batch_size)
    ]
    stacked = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return stacked, (0,) * len(stacked)
