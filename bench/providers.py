"""What a provider is: ours or a peer, as callables that do the whole work once and return what they computed.

A provider is made when its turn comes; its results (outputs and gradients by name) are compared with float64 before
anything is timed. In every dictionary ours come first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfrnn_kernels.dispatch import BACKENDS, refusal

Results = dict[str, Tensor]
#: What a run does: the forward without a graph, or forward and backward.
FORWARD, STEP = "forward", "step"

#: Largest relative error (Frobenius) of what is timed. TensorFloat32 rounds to 11 bits, as float16 does; bfloat16 to 8.
LIMITS = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TF32_LIMIT = 5e-3


@dataclass(frozen=True)
class Provider:
    """`runs` by mode are timed if what they return is right: within `limit` (relative, Frobenius) of the case's float64
    results, or of its own, `exact`, where it computes something else."""

    runs: Mapping[str, Callable[[], Results]]
    limit: float
    exact: Callable[[], Results] | None = None


Providers = dict[str, Callable[[], Provider]]


@dataclass(frozen=True)
class Setting:
    """Where and in what a workload is computed.

    Attributes:
        name_backends: ours are called by their backend too, each of them; else the first of them is not.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    name_backends: bool = False

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)

    def exact(self, tensor: Tensor) -> Tensor:
        """What `place` gives, in float64."""
        return self.place(tensor).double()

    @property
    def limit(self) -> float:
        return LIMITS[self.dtype]


def our_backends(op: str, on: Setting) -> list[str]:
    """Our backends that serve `op` there; the reference only where it is alone."""
    found = [backend.name for backend in BACKENDS if refusal(backend, op, on.device, on.dtype) is None]
    return [name for name in found if name != "reference"] or found


def ours(name: str, op: str, on: Setting, make: Callable[[str], Provider]) -> Providers:
    """A provider of `make(backend)` for every backend of ours that serves `op`."""
    found: Providers = {}
    for backend in our_backends(op, on):
        title = f"{name} {backend}" if on.name_backends else f"{name} ({backend})" if found else name
        found[title] = functools.partial(make, backend)
    return found


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_provider(
    layer: nn.Module,
    x: Tensor,
    backward: Callable[[Tensor], None],
    limit: float,
    forward: Callable[[Tensor], Tensor] | None = None,
    update: bool = True,
) -> Provider:
    """The forward, and a training step.

    Args:
        backward: differentiates the output.
        forward: how the layer is called; its first result by default.
        update: the step ends with the optimizer's, SGD of rate 0.
    """
    parameters = dict(layer.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.0)
    call = forward or (lambda x: layer(x)[0])

    def infer() -> Results:
        with torch.inference_mode():
            return {"output": call(x)}

    def step() -> Results:
        optimizer.zero_grad(set_to_none=True)
        output = call(x)
        backward(output)
        if update:
            optimizer.step()
        grads = {f"grad {name}": p.grad for name, p in parameters.items() if p.grad is not None}
        return {"output": output.detach()} | grads

    return Provider({FORWARD: infer, STEP: step}, limit)


def along(grad: Tensor) -> Callable[[Tensor], None]:
    """Of an output with this incoming gradient."""
    return lambda output: output.backward(grad)


def of_squares(output: Tensor) -> None:
    """Of the mean of the output's squares."""
    output.float().square().mean().backward()


# ---- functions -------------------------------------------------------------------------------------------------------


def differentiated(
    function: Callable[..., Any],
    tensors: Mapping[str, Tensor],
    learned: Collection[str],
    grads: Mapping[str, Tensor],
    limit: float,
) -> Provider:
    """The function's forward, and with the gradients of the tensors in `learned`; `grads` names the outputs."""
    leaves = {name: tensor.detach().clone().requires_grad_(name in learned) for name, tensor in tensors.items()}
    wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]

    def called() -> tuple[Tensor, ...]:
        outputs = function(**leaves)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def infer() -> Results:
        with torch.inference_mode():
            return dict(zip(grads, called(), strict=True))

    def step() -> Results:
        for leaf in wanted:
            leaf.grad = None
        outputs = called()
        torch.autograd.backward(outputs, tuple(grads.values()))
        found = {f"grad {name}": leaves[name].grad for name in leaves if name in learned}
        return dict(zip(grads, (output.detach() for output in outputs), strict=True)) | found

    return Provider({FORWARD: infer, STEP: step}, limit)
