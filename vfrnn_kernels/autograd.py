"""How an op's forward and hand-written backward become one differentiable function.

`KernelFunction` is the `torch.autograd.Function` of every op: its backward applies `KernelBackward`, a second Function
around the backward op, so that everything can be differentiated again. Derivatives of the *backward*, and forward-mode
derivatives of both, have no kernel: they come from differentiating the reference forward with `torch.func.vjp`
(correct, not optimised). torch.vmap: batching.py.

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
from vfrnn_kernels.batching import map_op, map_per_sample
from vfrnn_kernels.declaration import Gradients, Op, T, Tensors
from vfrnn_kernels.flops import count
from vfrnn_kernels.library import define_ops, implement_ops, library, register_fakes, triton_kernels
from vfrnn_kernels.loader import CUDA_LIBRARY_MISSING, CUDA_SIMULATED, HAS_SCHEMAS


@dataclass(frozen=True)
class Kernels:
    """One backend's forward and backward of one op, and how their arguments are laid out.

    Attributes:
        op: its declaration.
        forward: `(*inputs, *constants) -> outputs + saved`.
        traced: the same, differentiable: what torch.compile and torch.export trace.
        backward: `(*grad_outputs, *inputs, *outputs, *saved, *constants, needs) -> one gradient per input`; bit k of
            `needs` asks for the k-th (the convention of csrc/ops.cpp).
        results: what the forward returns: outputs and saved tensors.
        inputs, outputs, saved: how many there are of each.
    """

    op: Op
    forward: Callable[..., Tensors]
    traced: Callable[..., Tensors]
    backward: Callable[..., Gradients]
    results: tuple[T, ...]
    inputs: int
    outputs: int
    saved: int


BACKENDS = ("cpu", "cuda", "triton", "reference")  # "cpu" and "cuda": one library op, two devices
_KERNELS: dict[str, Kernels] = {}  # "<op>:<backend>"


def differentiable(op: Op) -> dict[str, Callable[..., Tensors]]:
    """The op as one differentiable function per backend, each `(*inputs, *constants) -> results`."""
    name = op.name
    if op.composed is not None:
        define_ops(op, name, op.saved, lambda: op.composed)
    elif HAS_SCHEMAS:
        register_fakes(op, op.saved)
    if op.composed_on_cuda is not None and CUDA_LIBRARY_MISSING is None:
        implement_ops(op, op.saved, lambda: op.composed_on_cuda, "CPU" if CUDA_SIMULATED else "CUDA")
    define_ops(op, f"{name}_triton", op.saved_on("triton"), lambda: op.triton or triton_kernels(name))
    for library_name, backend in ((name, "cpu"), (f"{name}_triton", "triton")):
        count(op, library_name, op.saved_on(backend))

    def plain_backward(*args: Any) -> Gradients:
        return op.reference_backward(*args[:-1])

    inputs, outputs = len(op.inputs), len(op.outputs)
    for backend, library_name in (("cpu", name), ("cuda", name), ("triton", f"{name}_triton")):
        forward, traced = _below_autograd(library_name), _library(library_name)
        backward, saved = _below_autograd(f"{library_name}_backward"), op.saved_on(backend).tensors
        results = (*op.outputs, *saved)
        _KERNELS[f"{name}:{backend}"] = Kernels(op, forward, traced, backward, results, inputs, outputs, len(saved))
    reference = op.reference
    _KERNELS[f"{name}:reference"] = Kernels(op, reference, reference, plain_backward, op.outputs, inputs, outputs, 0)
    if HAS_SCHEMAS:
        _register_derivatives(name, f"{name}:cpu")
    _register_derivatives(f"{name}_triton", f"{name}:triton")
    return {backend: functools.partial(_apply, f"{name}:{backend}") for backend in BACKENDS}


def kernels_of(op: Op, backend: str) -> Kernels:
    """Of an op on a backend."""
    return _KERNELS[f"{op.name}:{backend}"]


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
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _KERNELS[key].traced(*args)
    if not (torch.is_grad_enabled() or _transformed() or forward_ad._current_level >= 0):
        return _KERNELS[key].forward(*unwrap_dead_wrappers(args))  # what nobody differentiates is not prepared for it
    return KernelFunction.apply(key, *args)


#: Whether torch.func's transforms are at work.
_transformed = torch._C._are_functorch_transforms_active


class DirectFunction(Function):
    """A Function without default arguments. `Function.apply` binds what it is given to the signature of `forward` on
    every call, to find them, which takes longer than a small kernel."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if _transformed():
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
        needs = kernels.op.needs(needed)
        arguments = (ctx.key, *grad_outputs, *saved, *ctx.constants, needs)
        # Without a graph to record or anything to map (a plain `.backward()`) the kernel runs directly.
        recorded = torch.is_grad_enabled() or forward_ad._current_level >= 0 or _transformed()
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
        kernels = _KERNELS[args[0]]
        run, op = functools.partial(KernelFunction.apply, args[0]), kernels.op
        return map_op(run, op.inputs, kernels.results, op.samples, info.batch_size, in_dims[1:], args[1:])


class KernelBackward(DirectFunction):
    """(key, *grad_outputs, *tensors, *results, *constants, needs) -> the gradients that `needs` asks for."""

    @staticmethod
    def forward(key: str, *args: Any) -> Tensors:
        kernels = _KERNELS[key]
        grads = kernels.backward(*args)
        found = [grads[k] for k in kernels.op.places(args[-1])]
        return tuple([grad for grad in found if grad is not None])

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
        kernels = _KERNELS[args[0]]
        run, op = functools.partial(KernelBackward.apply, args[0]), kernels.op
        given = (*op.outputs, *op.inputs, *kernels.results)
        wanted = [op.inputs[k] for k in op.places(args[-1])]
        found = map_per_sample(op, run, given, wanted, info.batch_size, in_dims[1:], args[1:])
        return found or map_op(run, given, wanted, op.samples, info.batch_size, in_dims[1:], args[1:])


def _reference(ctx: Any) -> Callable[..., Tensors]:
    return lambda *tensors: _KERNELS[ctx.key].op.reference(*tensors, *ctx.constants)


def _gradients(ctx: Any) -> Callable[..., Tensors]:
    """`(*grad_outputs, *tensors) -> the gradients that ctx.needs asks for`, by differentiating the reference."""
    kernels = _KERNELS[ctx.key]
    wanted = kernels.op.places(ctx.needs)

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
