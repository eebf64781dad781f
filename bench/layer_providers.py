"""Who computes recurrent layers: ours, torch.nn.RNN, tuned Python loops, and the peers that can be imported."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from vfrnn_bench.providers import (
    STEP,
    TF32_LIMIT,
    Provider,
    Providers,
    Results,
    Setting,
    along,
    layer_provider,
    of_squares,
    ours,
)
from vfrnn_bench.workloads import Sequence

import vfrnn


def cell(h: Tensor, z: Tensor, M: Tensor) -> Tensor:
    return torch.tanh(torch.addmm(z, h, M.mT))


def loop(x: Tensor, U: Tensor, c: Tensor, M: Tensor, cell: Callable[..., Tensor] = cell) -> Tensor:
    """A tuned Python loop: the input product hoisted, two operations a step."""
    z = nn.functional.linear(x, U, c).unbind(0)
    h, hs = z[0].new_zeros(z[0].shape), []
    for z_t in z:
        h = cell(h, z_t, M)
        hs.append(h)
    return torch.stack(hs)


def looped(layer: nn.RNN, x: Tensor, cell: Callable[..., Tensor] = cell) -> Tensor:
    """The loop with the weights of an nn.RNN."""
    return loop(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0, layer.weight_hh_l0, cell)


# ---- a tanh layer ----------------------------------------------------------------------------------------------------


def library_layer(w: Sequence, on: Setting) -> nn.RNN:
    """torch.nn.RNN, whose weights every provider gets."""
    torch.manual_seed(0)
    return nn.RNN(w.i, w.n).to(on.device, on.dtype)


def recurrence_exact(w: Sequence, on: Setting, mode: str = STEP) -> Results:
    x, grad = (on.exact(t) for t in w.inputs())
    return layer_provider(library_layer(w, on).double(), x, along(grad), 0.0).runs[mode]()


def recurrence_providers(w: Sequence, on: Setting, update: bool = True) -> Providers:
    """Ours and torch.nn.RNN; in float32 on a GPU that too without TensorFloat32, which is PyTorch's default there."""
    x, grad = (on.place(t) for t in w.inputs())
    float32_on_gpu = on.device.type == "cuda" and on.dtype == torch.float32

    def make(backend: str) -> Provider:
        layer = vfrnn.RNN(w.i, w.n, device=on.device, dtype=on.dtype, backend=backend)
        layer.load_state_dict(library_layer(w, on).state_dict())
        return layer_provider(layer, x, along(grad), on.limit, update=update)

    def library(tf32: bool) -> Provider:
        layer = library_layer(w, on)

        def forward(x: Tensor) -> Tensor:
            if on.device.type == "cuda":
                torch.backends.cudnn.allow_tf32 = tf32
            return layer(x)[0]

        limit = TF32_LIMIT if tf32 and float32_on_gpu else on.limit
        return layer_provider(layer, x, along(grad), limit, forward, update)

    found = ours("vfrnn.RNN", "recurrence", on, make)
    found["torch.nn.RNN"] = lambda: library(True)
    if float32_on_gpu:
        found["torch.nn.RNN without TF32"] = lambda: library(False)
    return found


def loop_providers(w: Sequence, on: Setting, update: bool = True) -> Providers:
    """The loop as it is, and with a compiled step: unrolled, T steps would take minutes to compile."""
    x, grad = (on.place(t) for t in w.inputs())

    def made(cell: Callable[..., Tensor]) -> Provider:
        layer = library_layer(w, on)
        return layer_provider(layer, x, along(grad), on.limit, lambda x: looped(layer, x, cell), update)

    return {"loop": lambda: made(cell), "loop, compiled step": lambda: made(torch.compile(cell, dynamic=False))}


# ---- models ----------------------------------------------------------------------------------------------------------


class _GeotorchRNN(nn.Module):
    """An orthogonal RNN as a Python loop, its matrix by geotorch."""

    def __init__(self, w: Sequence) -> None:
        super().__init__()
        geotorch: Any = importlib.import_module("geotorch")
        self.input, self.recurrent = nn.Linear(w.i, w.n), nn.Linear(w.n, w.n, bias=False)
        geotorch.orthogonal(self.recurrent, "weight")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with nn.utils.parametrize.cached():
            return (loop(x, self.input.weight, self.input.bias, self.recurrent.weight),)


class _LoopRNN(nn.Module):
    """An orthogonal RNN as a Python loop, its matrix the one-line parametrization of torch."""

    def __init__(self, w: Sequence) -> None:
        super().__init__()
        self.layer = orthogonal(nn.RNN(w.i, w.n), "weight_hh_l0")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with nn.utils.parametrize.cached():
            return (looped(self.layer, x),)


def _mesh(w: Sequence) -> vfrnn.LatentMesh:
    """Half as many cells as nodes, in the plane."""
    return vfrnn.LatentMesh.random(w.n, cells=w.n // 2, dim=2)


#: Whose training steps are measured: the orthogonal models, the general field on the complete mesh, and on a mesh with
#: fewer cells where it reads the input, beside the one that does not.
MODELS: dict[str, Callable[[Sequence], nn.Module]] = {
    "vfrnn.OrthogonalRNN": lambda w: vfrnn.OrthogonalRNN(w.i, w.n),
    "vfrnn.VFRNN": lambda w: vfrnn.VFRNN(w.i, w.n),
    "vfrnn.VFRNN, mesh": lambda w: vfrnn.VFRNN(w.i, w.n, mesh=_mesh(w)),
    "vfrnn.InputFieldRNN": lambda w: vfrnn.InputFieldRNN(w.i, w.n, mesh=_mesh(w)),
    "orthogonal(torch.nn.RNN)": lambda w: orthogonal(nn.RNN(w.i, w.n), "weight_hh_l0"),
    "geotorch, cached": _GeotorchRNN,
    "orthogonal loop": _LoopRNN,
}


def _model(make: Callable[[Sequence], nn.Module], w: Sequence, on: Setting, backend: str | None) -> nn.Module:
    torch.manual_seed(0)
    model: Any = make(w).to(on.device)
    if backend is not None:
        model.backend = backend
    return model


def model_provider(
    make: Callable[[Sequence], nn.Module], w: Sequence, on: Setting, backend: str | None = None
) -> Provider:
    """A model with float64 results of its own: those of our reference where it has a backend, else of itself."""
    x, grad = (on.place(t) for t in w.inputs())

    def exact() -> Results:
        reference = None if backend is None else "reference"
        model = _model(make, w, on, reference).double()
        return layer_provider(model, x.double(), along(grad.double()), 0.0).runs[STEP]()

    # An orthogonal step keeps rounding errors: they add up over hundreds of steps.
    return replace(layer_provider(_model(make, w, on, backend), x, along(grad), limit=2e-2), exact=exact)


def loss_provider(
    make: Callable[[Sequence], nn.Module],
    w: Sequence,
    on: Setting,
    backend: str | None = None,
    autocast: bool = False,
) -> Provider:
    """A model whose loss is the mean of its squares, under autocast to bfloat16 if asked; its outputs are compared."""
    x, _ = (on.place(t) for t in w.inputs())
    model = _model(make, w, on, backend)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(on.device.type, torch.bfloat16, enabled=autocast):
            return model(x)[0]

    def exact() -> Results:
        reference = _model(make, w, on, None if backend is None else "reference").double()
        with torch.no_grad():
            return {"output": reference(x.double())[0]}

    # 16 bits turn the rotation by about 2^-9 each step, and hundreds of steps add up: only nonsense is refused.
    provider = layer_provider(model, x, of_squares, 0.5 if autocast else 2e-2, forward)
    return replace(provider, exact=exact)


def training_step_providers(
    w: Sequence,
    on: Setting,
    names: Collection[str],
    provider: Callable[..., Provider] = model_provider,
) -> Providers:
    """The models of MODELS with these names, where they can be imported.

    Args:
        provider: of (make, w, on), and the backend where the model is ours.
    """
    found: Providers = {}
    for name in names:
        if name.startswith("geotorch") and importlib.util.find_spec("geotorch") is None:
            continue
        make = functools.partial(provider, MODELS[name], w, on)
        found |= ours(name, "recurrence", on, make) if name.startswith("vfrnn") else {name: make}
    return found


def activation_providers(w: Sequence, on: Setting) -> Providers:
    """Our modReLU beside our tanh."""
    found: Providers = {}
    for name in ("modrelu", "tanh"):

        def make(w: Sequence, name: Any = name) -> nn.Module:
            return vfrnn.OrthogonalRNN(w.i, w.n, nonlinearity=name)

        found |= ours(f"vfrnn {name}", "recurrence", on, functools.partial(model_provider, make, w, on))
    return found


# ---- peers that need a GPU -------------------------------------------------------------------------------------------


def gpu_peers(w: Sequence, on: Setting, update: bool = True) -> Providers:
    """FlashRNN's fused Elman cell and HASTE's GRU (it has no Elman cell), where they can be imported."""
    found: Providers = {}
    if on.device.type != "cuda":
        return found
    low = replace(on, dtype=torch.bfloat16)
    with contextlib.suppress(ImportError):
        flashrnn = importlib.import_module("flashrnn").flashrnn
        found["flashrnn elman, bfloat16"] = lambda: _flashrnn(flashrnn, w, low, update)
    with contextlib.suppress(ImportError):
        haste = importlib.import_module("haste_pytorch")
        found["haste GRU"] = lambda: _unchecked(haste.GRU(input_size=w.i, hidden_size=w.n), w, on, update)
    return found


def _flashrnn(flashrnn: Callable[..., Any], w: Sequence, on: Setting, update: bool) -> Provider:
    """One head of n units: x is projected outside, as its own layer does."""
    x, grad = (on.place(t) for t in w.inputs())
    layer = library_layer(w, on)

    def forward(x: Tensor) -> Tensor:
        Wx = nn.functional.linear(x, layer.weight_ih_l0).transpose(0, 1)[:, :, None, None]  # (B, T, gates, heads, n)
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0)[None, None]
        states, _ = flashrnn(Wx, layer.weight_hh_l0[None, None], bias, function="elman", backend="cuda_fused")
        return states[0, :, :, 0].transpose(0, 1)

    def step() -> Results:
        return {"output": made.runs[STEP]()["output"]}

    made = layer_provider(layer, x, along(grad), on.limit, forward, update)
    return Provider({STEP: step}, on.limit)


def _unchecked(model: nn.Module, w: Sequence, on: Setting, update: bool) -> Provider:
    """Of a cell that PyTorch does not have in float64."""
    x, grad = (on.place(t) for t in w.inputs())
    return replace(layer_provider(model.to(on.device), x, along(grad), 0.0, update=update), exact=dict)
