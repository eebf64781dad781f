"""The registry of providers: ours and the peers, each as one callable that does the whole work once.

In every dictionary ours come first. A provider is made when its turn comes; it also gives its results (outputs and
gradients by name), which are compared with float64 before anything is timed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from vfrnn_bench.workloads import Exponential, Sequence

import vfrnn
from vfrnn_kernels.dispatch import BACKENDS, refusal

Run = Callable[[], Any]
Results = dict[str, Tensor]
FORWARD, STEP = "forward", "step"


@dataclass(frozen=True)
class Provider:
    """`run` is timed if `results`, which runs it and returns what it computed, is right: within `limit` (relative,
    Frobenius) of the case's float64 results, or of its own, `exact`, where it computes something else."""

    run: Run
    results: Callable[[], Results]
    exact: Callable[[], Results] | None = None
    limit: float = 1e-3


Providers = dict[str, Callable[[], Provider]]


def our_backends(op: str, device: torch.device, every: bool = False) -> list[str]:
    """Our backends that serve `op` in float32 on this device; the reference only if `every` or if alone."""
    found = [backend.name for backend in BACKENDS if refusal(backend, op, device, torch.float32) is None]
    fast = [name for name in found if name != "reference"]
    return found if every else fast or found


def title(name: str, backend: str, backends: list[str]) -> str:
    return name if backend == backends[0] else f"{name} ({backend})"


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_provider(
    layer: nn.Module, x: Tensor, grad: Tensor, forward: Callable[[Tensor], Tensor] | None = None, mode: str = STEP
) -> Provider:
    """A training step with SGD of rate 0, or the forward without a graph."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    call = forward or (lambda x: layer(x)[0])

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        output = call(x)
        output.backward(grad)
        optimizer.step()
        return output.detach()

    def infer() -> Tensor:
        with torch.inference_mode():
            return call(x)

    def results() -> Results:
        if mode == FORWARD:
            return {"output": infer()}
        output = step()
        grads = {f"grad {name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
        return {"output": output} | grads

    return Provider(infer if mode == FORWARD else step, results)


def _cell(h: Tensor, z: Tensor, M: Tensor) -> Tensor:
    return torch.tanh(torch.addmm(z, h, M.mT))


def _loop(x: Tensor, U: Tensor, c: Tensor, M: Tensor, cell: Callable[..., Tensor]) -> Tensor:
    """A tuned Python loop: the input product hoisted, two operations a step."""
    z = nn.functional.linear(x, U, c).unbind(0)
    h, hs = z[0].new_zeros(z[0].shape), []
    for z_t in z:
        h = cell(h, z_t, M)
        hs.append(h)
    return torch.stack(hs)


def _peer_layer(w: Sequence) -> nn.RNN:
    torch.manual_seed(0)
    peer = nn.RNN(w.i, w.n)
    nn.init.zeros_(peer.bias_hh_l0)  # the loop has one bias
    return peer


def recurrence_providers(w: Sequence, device: torch.device, mode: str = STEP) -> Providers:
    """A tanh layer. The compiled loop compiles a step: unrolled, T steps take minutes."""
    x, grad = (t.to(device) for t in w.inputs())
    backends = our_backends("recurrence", device)

    def ours(backend: str) -> Provider:
        layer = vfrnn.RNN(w.i, w.n, backend=backend)
        layer.load_state_dict(_peer_layer(w).state_dict())
        return layer_provider(layer.to(device), x, grad, mode=mode)

    def loop(cell: Callable[..., Tensor]) -> Provider:
        layer = _peer_layer(w).to(device)
        U, M, c = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0
        return layer_provider(layer, x, grad, lambda x: _loop(x, U, c, M, cell), mode)

    found: Providers = {title("vfrnn.RNN", b, backends): functools.partial(ours, b) for b in backends}
    found["torch.nn.RNN"] = lambda: layer_provider(_peer_layer(w).to(device), x, grad, mode=mode)
    if mode == STEP:
        found["loop"] = lambda: loop(_cell)
        found["loop, compiled step"] = lambda: loop(torch.compile(_cell, dynamic=False))
    return found


def recurrence_exact(w: Sequence, device: torch.device, mode: str = STEP) -> Results:
    x, grad = (t.to(device).double() for t in w.inputs())
    return layer_provider(_peer_layer(w).to(device).double(), x, grad, mode=mode).results()


def _model_provider(make: Callable[[], nn.Module], w: Sequence, device: torch.device) -> Provider:
    """A model with float64 results of its own: those of our reference, or of the peer itself."""
    x, grad = (t.to(device) for t in w.inputs())

    def made() -> nn.Module:
        torch.manual_seed(0)
        return make().to(device)

    def exact() -> Results:
        model: Any = made().double()
        if hasattr(model, "backend"):
            model.backend = "reference"
        return layer_provider(model, x.double(), grad.double()).results()

    provider = layer_provider(made(), x, grad)
    # An orthogonal step keeps rounding errors: they add up over hundreds of steps.
    return Provider(provider.run, provider.results, exact, limit=2e-2)


def activation_providers(w: Sequence, device: torch.device) -> Providers:
    """Our modReLU beside our tanh."""

    def ours(name: Any) -> Provider:
        return _model_provider(lambda: vfrnn.OrthogonalRNN(w.i, w.n, nonlinearity=name), w, device)

    return {f"vfrnn {name}": functools.partial(ours, name) for name in ("modrelu", "tanh")}


class _GeotorchRNN(nn.Module):
    def __init__(self, w: Sequence) -> None:
        super().__init__()
        geotorch: Any = importlib.import_module("geotorch")
        self.input, self.recurrent = nn.Linear(w.i, w.n), nn.Linear(w.n, w.n, bias=False)
        geotorch.orthogonal(self.recurrent, "weight")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with nn.utils.parametrize.cached():
            return (_loop(x, self.input.weight, self.input.bias, self.recurrent.weight, _cell),)


def training_step_providers(w: Sequence, device: torch.device) -> Providers:
    """A whole training step of the orthogonal models and of the general field on the complete mesh."""
    models: dict[str, Callable[[], nn.Module]] = {
        "vfrnn.OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(w.i, w.n),
        "vfrnn.VFRNN": lambda: vfrnn.VFRNN(w.i, w.n),
        "orthogonal(torch.nn.RNN)": lambda: nn.utils.parametrizations.orthogonal(nn.RNN(w.i, w.n), "weight_hh_l0"),
    }
    if importlib.util.find_spec("geotorch") is not None:
        models["geotorch, cached"] = lambda: _GeotorchRNN(w)
    return {name: functools.partial(_model_provider, make, w, device) for name, make in models.items()}


# ---- functions -------------------------------------------------------------------------------------------------------


def differentiated(
    function: Callable[..., Any], tensors: dict[str, Tensor], learned: Collection[str], grads: Any
) -> Provider:
    leaves = {name: tensor.detach().clone().requires_grad_(name in learned) for name, tensor in tensors.items()}

    def run() -> tuple[Tensor, ...]:
        for leaf in leaves.values():
            leaf.grad = None
        outputs = function(**leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.backward(outputs, grads)
        return tuple(output.detach() for output in outputs)

    def results() -> Results:
        outputs = {f"output {k}": output for k, output in enumerate(run())}
        return outputs | {f"grad {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    return Provider(run, results)


def _skew(results: Results) -> Results:
    """The gradient of a skew-symmetric matrix is defined up to its symmetric part."""
    grad = results["grad S"]
    return results | {"grad S": (grad - grad.mT) / 2}


def exponential_provider(function: Callable[[Tensor], Tensor], S: Tensor, grad: Tensor) -> Provider:
    made = differentiated(lambda S: function(S), {"S": S}, "S", (grad,))
    # torch.matrix_exp's gradient loses digits at large norms, which is reported and no reason not to time it.
    return Provider(made.run, lambda: _skew(made.results()), limit=3e-2)


def scipy_expm(S: Tensor) -> Tensor:
    """scipy.linalg.expm in the dtype given: forward only."""
    linalg: Any = importlib.import_module("scipy.linalg")
    return torch.from_numpy(linalg.expm(S.numpy()))


def exponential_providers(e: Exponential, device: torch.device) -> Providers:
    """Ours and torch.matrix_exp, forward and backward."""
    S, grad = (t.to(device) for t in e.inputs())
    backends = our_backends("skew_expm", device)

    def ours(backend: str) -> Provider:
        return exponential_provider(functools.partial(vfrnn.skew_expm, backend=backend), S, grad)

    found: Providers = {title("vfrnn.skew_expm", b, backends): functools.partial(ours, b) for b in backends}
    found["torch.matrix_exp"] = lambda: exponential_provider(torch.matrix_exp, S, grad)
    return found


def exponential_exact(e: Exponential, device: torch.device) -> Results:
    S, grad = (t.to(device).double() for t in e.inputs())
    return exponential_provider(torch.matrix_exp, S, grad).results()


# ---- peers that need a GPU -------------------------------------------------------------------------------------------


def gpu_peers(w: Sequence, device: torch.device) -> Providers:
    """FlashRNN's fused Elman cell and HASTE's GRU (it has no Elman cell), where they can be imported."""
    found: Providers = {}
    if device.type != "cuda":
        return found
    with contextlib.suppress(ImportError):
        flashrnn = importlib.import_module("flashrnn").flashrnn
        found["flashrnn elman, bfloat16"] = lambda: _flashrnn(flashrnn, w, device)
    with contextlib.suppress(ImportError):
        haste = importlib.import_module("haste_pytorch")
        found["haste GRU"] = lambda: _unchecked(haste.GRU(input_size=w.i, hidden_size=w.n), w, device)
    return found


def _flashrnn(flashrnn: Callable[..., Any], w: Sequence, device: torch.device) -> Provider:
    """One head of n units: x is projected outside, as its own layer does."""
    torch.manual_seed(0)
    x, grad = (t.to(device, torch.bfloat16) for t in w.inputs())
    layer = copy.deepcopy(_peer_layer(w)).to(device, torch.bfloat16)

    def forward(x: Tensor) -> Tensor:
        Wx = nn.functional.linear(x, layer.weight_ih_l0).transpose(0, 1)[:, :, None, None]  # (B, T, gates, heads, n)
        states, _ = flashrnn(
            Wx, layer.weight_hh_l0[None, None], layer.bias_ih_l0[None, None], function="elman", backend="cuda_fused"
        )
        return states[0, :, :, 0].transpose(0, 1)

    made = layer_provider(layer, x, grad, forward)
    return Provider(made.run, lambda: {"output": made.results()["output"]}, limit=5e-2)


def _unchecked(model: nn.Module, w: Sequence, device: torch.device) -> Provider:
    """Of a cell that PyTorch does not have in float64."""
    x, grad = (t.to(device) for t in w.inputs())
    made = layer_provider(model.to(device), x, grad)
    return Provider(made.run, dict, dict)
