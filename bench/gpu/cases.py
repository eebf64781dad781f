"""What is measured on a GPU: every case with its providers (ours and the peers) and the float64 results they must give.

A provider is made only when its turn comes, in a `try` of its own. It is timed only if its results are right.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from vfrnn_bench.gpu.timing import Run, graphed
from vfrnn_bench.workloads import SEQUENCES, Sequence

import vfrnn
import vfrnn_kernels
from vfrnn_kernels.dispatch import BACKENDS, refusal

Results = dict[str, Tensor]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Largest relative error (Frobenius) of a provider that is timed. TensorFloat32 rounds to 11 bits, bf16 to 8.
LIMITS = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 1e-2, "bf16": 5e-2}


@dataclass
class Provider:
    """`runs` by mode ("forward", "step": with the backward); `results` computes what must be within `limit` of the
    float64 results: the case's, or where it computes something else its own, `exact`."""

    runs: dict[str, Run]
    results: Callable[[], Results]
    limit: float
    exact: Callable[[], Results] | None = None


@dataclass(frozen=True)
class Case:
    """One workload: its float64 results, its providers, and the largest ratio ours may have to a peer, by mode.

    Attributes:
        part: of PARTS (parts.py).
        steps: of time in one call: times are also given per step.
        targets: (mode, peer) -> ratio.
    """

    part: str
    name: str
    dtype: str
    sizes: dict[str, float]
    exact: Callable[[], Results]
    providers: Callable[[], dict[str, Callable[[], Provider]]]
    steps: int = 1
    targets: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.part} {self.name} {self.dtype}"


def backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Our compiled backends that serve this device; the reference too in a dry run on the CPU."""
    found = [b.name for b in BACKENDS if refusal(b, "recurrence", device, dtype) is None]
    return [name for name in found if name != "reference"] or found


def normal(seed: int, *shape: int) -> Tensor:
    """The same random numbers every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the recurrence: R1 to R6 ----------------------------------------------------------------------------------------


def long_sequences() -> list[Sequence]:
    """R6; an input of 128, which cuDNN's persistent kernels want to be a multiple of."""
    return [Sequence("R6", "long", T=4096, B=64, n=n, i=128) for n in (512, 128, 256, 768, 960)]


def short_sequences() -> list[Sequence]:
    """R1 to R5."""
    return [w for w in SEQUENCES if w.name != "R6"]


def layer_run(layer: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Provider:
    """Forward without a graph, and forward + backward; results are hs and the gradients of the parameters."""

    def infer() -> Tensor:
        with torch.no_grad():
            return forward(x)

    def step() -> Tensor:
        for parameter in layer.parameters():
            parameter.grad = None
        hs = forward(x)
        hs.backward(grad)
        return hs.detach()

    def results() -> Results:
        return {"hs": step()} | {f"grad {k}": p.grad for k, p in layer.named_parameters() if p.grad is not None}

    return Provider({"forward": infer, "step": step}, results, 0.0)


def cell(h: Tensor, z: Tensor, M: Tensor) -> Tensor:
    return torch.tanh(torch.addmm(z, h, M.mT))


def loop(x: Tensor, layer: nn.RNN, step: Callable[..., Tensor]) -> Tensor:
    """A tuned Python loop: the input product hoisted, two operations a step."""
    z = nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0).unbind(0)
    h, hs = z[0].new_zeros(z[0].shape), []
    for z_t in z:
        h = step(h, z_t, layer.weight_hh_l0)
        hs.append(h)
    return torch.stack(hs)


def recurrence_case(part: str, w: Sequence, dtype: str, device: torch.device, targets: dict) -> Case:
    """tanh layers with the weights of one nn.RNN. The compiled loop compiles a step: unrolled, T steps take minutes."""
    kind = DTYPES[dtype]

    @functools.cache
    def tensors() -> tuple[nn.RNN, Tensor, Tensor]:
        torch.manual_seed(0)
        x, grad = normal(1, w.T, w.B, w.i), normal(2, w.T, w.B, w.n) / math.sqrt(w.T * w.B)
        return nn.RNN(w.i, w.n).to(device, kind), x.to(device, kind), grad.to(device, kind)

    def peer(x_dtype: torch.dtype = kind) -> nn.RNN:
        layer = copy.deepcopy(tensors()[0]).to(x_dtype)
        layer.flatten_parameters()
        return layer

    def exact() -> Results:
        _, x, grad = tensors()
        layer = peer(torch.float64)
        return layer_run(layer, lambda t: layer(t)[0], x.double(), grad.double()).results()

    def ours(backend: str) -> Provider:
        _, x, grad = tensors()
        layer = vfrnn.RNN(w.i, w.n, device=device, dtype=kind, backend=backend)
        layer.load_state_dict(tensors()[0].state_dict())
        return _limited(layer_run(layer, lambda t: layer(t)[0], x, grad), LIMITS[dtype])

    def library(tf32: bool) -> Provider:
        _, x, grad = tensors()
        layer = peer()

        def forward(t: Tensor) -> Tensor:
            torch.backends.cudnn.allow_tf32 = tf32
            return layer(t)[0]

        return _limited(layer_run(layer, forward, x, grad), LIMITS["tf32" if tf32 and dtype == "fp32" else dtype])

    def python_loop(step: Callable[..., Tensor], graph: bool = False) -> Provider:
        _, x, grad = tensors()
        layer = peer()
        made = layer_run(layer, lambda t: loop(t, layer, step), x, grad)
        if graph:
            whole = made.runs["step"]
            replay = graphed(lambda: (whole(), {k: p.grad for k, p in layer.named_parameters()}))

            def results() -> Results:
                hs, grads = replay()
                return {"hs": hs} | {f"grad {k}": g for k, g in grads.items()}

            made = Provider({"step": replay}, results, 0.0)
        return _limited(made, LIMITS[dtype])

    def providers() -> dict[str, Callable[[], Provider]]:
        found: dict[str, Callable[[], Provider]] = {
            f"vfrnn {b}": functools.partial(ours, b) for b in backends(device, kind)
        }
        found["torch.nn.RNN"] = lambda: library(True)  # TensorFloat32 in float32: what PyTorch does by default
        if dtype == "fp32":
            found["torch.nn.RNN without TF32"] = lambda: library(False)
        if part == "loops":
            found["loop"] = lambda: python_loop(cell)
            found["loop, compiled step"] = lambda: python_loop(torch.compile(cell, dynamic=False))
            if device.type == "cuda":
                found["loop, CUDA graph"] = lambda: python_loop(cell, graph=True)
        return found

    sizes = {"T": w.T, "B": w.B, "n": w.n, "i": w.i}
    name = f"{w.name} n={w.n}" if w.name == "R6" else w.name
    return Case(part, name, dtype, sizes, exact, providers, w.T, targets)


def _limited(provider: Provider, limit: float) -> Provider:
    provider.limit = limit
    return provider


def recurrences(device: torch.device, quick: bool) -> Iterator[Case]:
    if quick:
        for dtype in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
            yield recurrence_case("recurrence", Sequence("R6", "", 20, 3, 33, 5), dtype, device, {})
        return
    long, short = long_sequences(), short_sequences()

    def case(w: Sequence, dtype: str) -> Case:
        limit = 0.4 if w.name == "R6" and w.n > 384 else 0.8
        return recurrence_case("recurrence", w, dtype, device, {("step", "torch.nn.RNN"): limit})

    for w in (long[0], *short[:2], *long[1:], *short[2:]):
        for dtype in ("bf16", "fp32"):
            yield case(w, dtype)
    for w in long:
        yield case(w, "fp16")


def loops(device: torch.device, quick: bool) -> Iterator[Case]:
    if quick:
        yield recurrence_case("loops", Sequence("R1", "", 12, 3, 20, 5), "fp32", device, {})
        return
    short = short_sequences()
    for w in (*short[:2], long_sequences()[0], *short[2:]):
        for dtype in ("fp32", "bf16"):
            yield recurrence_case("loops", w, dtype, device, {})


# ---- the exponential: E(n) -------------------------------------------------------------------------------------------


def spectral_norms(S: Tensor) -> Tensor:
    """To a percent, (batch, 1, 1), by powers of S: singular values of a large batch would take longer than the rest."""
    v = torch.ones_like(S[..., :1])
    for _ in range(100):
        v = S @ v
        size = torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True)
        v = v / size
    return size


def exponential_case(n: int, norm: float, batch: int, device: torch.device) -> Case:
    """exp(S) and the gradient of <grad, exp(S)>, skew-symmetric part; grad is random of unit scale."""

    @functools.cache
    def tensors() -> tuple[Tensor, Tensor]:
        generator = torch.Generator(device).manual_seed(0)
        A, grad = (torch.randn(batch, n, n, generator=generator, device=device) for _ in range(2))
        S = A - A.mT
        return S * (norm / spectral_norms(S)), grad

    def run_of(function: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> Provider:
        S, grad = (t.to(dtype) for t in tensors())
        S.requires_grad_()

        def forward() -> Tensor:
            with torch.no_grad():
                return function(S)

        def step() -> tuple[Tensor, Tensor]:
            Q = function(S)
            (gradient,) = torch.autograd.grad(Q, S, grad)
            return Q.detach(), gradient

        def results() -> Results:
            Q, gradient = step()
            return {"Q": Q, "grad S": (gradient - gradient.mT) / 2}

        return Provider({"forward": forward, "step": step}, results, LIMITS["fp32"])

    def ours(backend: str, graph: bool) -> Provider:
        made = run_of(lambda S: vfrnn_kernels.skew_expm(S, backend=backend))
        if graph:
            made.runs = {mode: graphed(run) for mode, run in made.runs.items()}
            replay = made.runs["step"]
            made.results = lambda: dict(zip(("Q", "grad S"), replay(), strict=True))
        return made

    def peer() -> Provider:
        # Its gradient loses digits at large norms (up to 8e-3 was seen): reported, and no reason not to time it.
        return _limited(run_of(torch.matrix_exp), 3e-2)

    def providers() -> dict[str, Callable[[], Provider]]:
        found: dict[str, Callable[[], Provider]] = {}
        for backend in backends(device, torch.float32):
            found[f"vfrnn {backend}"] = lambda b=backend: ours(b, False)
            if device.type == "cuda":
                found[f"vfrnn {backend}, CUDA graph"] = lambda b=backend: ours(b, True)
        return found | {"torch.matrix_exp": peer}

    name = f"E({n}) norm {norm:.3g}" + ("" if batch == 1 else f" x{batch}")
    return Case(
        "exponential",
        name,
        "fp32",
        {"n": n, "norm": norm, "batch": batch},
        lambda: run_of(torch.matrix_exp, torch.float64).results(),
        providers,
        targets={("step", "torch.matrix_exp"): 0.05} if 64 <= n <= 512 else {},
    )


def exponentials(device: torch.device, quick: bool) -> Iterator[Case]:
    if quick:
        for batch in (1, 3):
            for n in (8, 20):
                yield exponential_case(n, math.pi, batch, device)
        return
    for batch, norm in ((1, math.pi), (64, math.pi), (1, 10.0), (1, 1.0), (1, 50.0), (64, 10.0), (64, 1.0), (64, 50.0)):
        for n in (64, 128, 190, 256, 512, 32, 1024):
            yield exponential_case(n, norm, batch, device)


# ---- whole training steps: S1, S2, S3, S5 ----------------------------------------------------------------------------


class LoopRNN(nn.Module):
    """An orthogonal RNN as a Python loop, its matrix the one-line parametrization of torch."""

    def __init__(self, i: int, n: int) -> None:
        super().__init__()
        self.layer = orthogonal(nn.RNN(i, n), "weight_hh_l0")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with nn.utils.parametrize.cached():
            return (loop(x, self.layer, cell),)


def step_case(w: Sequence, dtype: str, device: torch.device) -> Case:
    """Forward, loss, backward and optimizer. The models differ: each is compared with its own in float64."""
    models: dict[str, Callable[[], nn.Module]] = {
        "vfrnn.OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(w.i, w.n),
        "vfrnn.VFRNN": lambda: vfrnn.VFRNN(w.i, w.n),
        "orthogonal(torch.nn.RNN)": lambda: orthogonal(nn.RNN(w.i, w.n), "weight_hh_l0"),
        "orthogonal loop": lambda: LoopRNN(w.i, w.n),
    }
    x = functools.cache(lambda: normal(1, w.T, w.B, w.i).to(device))
    autocast = {"device_type": device.type, "dtype": torch.bfloat16, "enabled": dtype != "fp32"}

    def made(name: str) -> nn.Module:
        torch.manual_seed(0)
        return models[name]().to(device)

    def model_run(model: nn.Module, graph: bool = False) -> Provider:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

        def step() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(**autocast):
                hs = model(x())[0]
            hs.float().square().mean().backward()
            optimizer.step()
            return hs.detach()

        run = graphed(step) if graph else step
        # 16 bits turn the rotation by about 2^-9 each step, and hundreds of steps add up: only nonsense is refused.
        return Provider({"step": run}, lambda: {"hs": run()}, 0.5 if autocast["enabled"] else 2e-2)

    def exact(name: str) -> Results:
        model: Any = made(name).double()
        if name.startswith("vfrnn"):
            model.backend = "reference"
        with torch.no_grad():
            return {"hs": model(x().double())[0]}

    def checked(name: str, provider: Provider) -> Provider:
        provider.exact = lambda: exact(name)
        return provider

    def ours(name: str, backend: str, graph: bool) -> Provider:
        model: Any = made(name)
        model.backend = backend
        return checked(name, model_run(model, graph))

    def providers() -> dict[str, Callable[[], Provider]]:
        found: dict[str, Callable[[], Provider]] = {}
        for name in models:
            if not name.startswith("vfrnn"):
                found[name] = lambda k=name: checked(k, model_run(made(k)))
                continue
            for backend in backends(device, torch.float32):
                found[f"{name} {backend}"] = lambda k=name, b=backend: ours(k, b, False)
                if device.type == "cuda":
                    found[f"{name} {backend}, CUDA graph"] = lambda k=name, b=backend: ours(k, b, True)
        return found

    targets = {("step", "orthogonal loop"): 0.03} if w.name in ("R1", "R2") else {}
    sizes = {"T": w.T, "B": w.B, "n": w.n, "i": w.i}
    return Case("steps", w.name.replace("R", "S"), dtype, sizes, dict, providers, w.T, targets)


def steps(device: torch.device, quick: bool) -> Iterator[Case]:
    if quick:
        for dtype in ("fp32", "bf16 autocast"):
            yield step_case(Sequence("R1", "", 12, 3, 20, 5), dtype, device)
        return
    for dtype in ("fp32", "bf16 autocast"):
        for w in SEQUENCES:
            if w.name in ("R1", "R2", "R3", "R5"):
                yield step_case(w, dtype, device)
