"""What is measured: each workload with its providers, its float64 results and the project's targets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from vfrnn_bench.exponential_providers import (
    exponential_exact,
    exponential_providers,
    mapped_exponential_providers,
    skew,
)
from vfrnn_bench.field_providers import Field, field_exact, field_providers
from vfrnn_bench.frame_providers import LARGEST_WHOLE, frame_exact, frame_providers
from vfrnn_bench.layer_providers import (
    activation_providers,
    gpu_peers,
    loop_providers,
    model_provider,
    recurrence_exact,
    recurrence_providers,
    training_step_providers,
)
from vfrnn_bench.providers import FORWARD, STEP, Provider, Providers, Results, Setting
from vfrnn_bench.workloads import (
    EXPONENTIALS,
    FRAMES,
    INPUT_FIELDS,
    IRREGULAR,
    MAPPED,
    MESHES,
    SEQUENCES,
    SMALL_EXPONENTIALS,
    SMALL_STATE,
    SYMBOLS,
    Exponential,
    Frame,
    Mesh,
    Sequence,
)

RECURRENCE, INFERENCE, ACTIVATION, TRAINING = "recurrence", "inference", "activation", "training step"
EXPONENTIAL, FRAME, FIELD = "exponential", "frame", "field"

#: In a target: each of ours.
OURS = "vfrnn"


@dataclass(frozen=True)
class Case:
    """One workload: who runs it, its flops and minimal bytes, and the largest ratio that (ours, peer) may have.

    Attributes:
        exact: the float64 results; None where every provider has its own.
        modes: what is timed, each in turns by itself.
        dtype: as it is called in reports.
        sizes: the workload's.
        steps: of time in one call.
        targets: (ours, or OURS for each of them, peer) -> ratio, in the last of the modes.
        shares: ours -> the least share of the flops of a large product, which then takes part in the turns.
        compared: what of the results is compared.
    """

    name: str
    group: str
    flops: float
    minimal_bytes: float
    providers: Callable[[], Providers]
    exact: Callable[[], Results] | None = None
    modes: tuple[str, ...] = (STEP,)
    dtype: str = "fp32"
    sizes: dict[str, float] = field(default_factory=dict)
    steps: int = 1
    targets: dict[tuple[str, str], float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    compared: Callable[[Results], Results] = lambda results: results

    @property
    def key(self) -> str:
        return f"{self.group} {self.name} {self.dtype}"

    def target(self, ours: str, peer: str) -> float | None:
        return self.targets.get((ours, peer), self.targets.get((OURS, peer)))


# ---- one workload ----------------------------------------------------------------------------------------------------

DTYPE_TITLES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SIZE_NAMES = ("T", "B", "n", "k", "m", "d", "i", "norm", "batch")


def _case(w: Any, group: str, on: Setting, providers: Callable[[], Providers], **more: Any) -> Case:
    sizes = {name: getattr(w, name) for name in SIZE_NAMES if hasattr(w, name)}
    about = {"dtype": DTYPE_TITLES[on.dtype], "sizes": sizes, "steps": sizes.get("T", 1)}
    return Case(w.name, group, w.flops, w.minimal_bytes, providers, **about | more)


def recurrence_case(w: Sequence, on: Setting, *more: Callable[..., Providers], update: bool = True) -> Case:
    """A tanh layer by ours, torch.nn.RNN and `more`; `update`: a step ends with the optimizer's."""

    def providers() -> Providers:
        found: Providers = {}
        for registry in (recurrence_providers, *more):
            found |= registry(w, on, update)
        return found

    return _case(w, RECURRENCE, on, providers, exact=functools.partial(recurrence_exact, w, on))


def inference_case(w: Sequence, on: Setting) -> Case:
    """The same layer's forward."""
    case = recurrence_case(w, on)
    return replace(
        case, name=f"{w.name} inference", group=INFERENCE, flops=w.forward_flops, minimal_bytes=w.forward_bytes,
        exact=functools.partial(recurrence_exact, w, on, FORWARD), modes=(FORWARD,),
    )  # fmt: skip


def activation_case(w: Sequence, on: Setting) -> Case:
    """Our modReLU beside our tanh."""
    case = _case(w, ACTIVATION, on, functools.partial(activation_providers, w, on))
    return replace(case, name=f"{w.name} activation")


def training_step_case(
    w: Sequence, on: Setting, models: Collection[str], provider: Callable[..., Provider] = model_provider
) -> Case:
    """A whole training step: R1 of the recurrences is S1."""
    case = _case(w, TRAINING, on, functools.partial(training_step_providers, w, on, models, provider))
    return replace(case, name=w.name.replace("R", "S"))


def exponential_case(e: Exponential, on: Setting) -> Case:
    """exp(S) and its gradient, whose skew-symmetric part is compared."""
    return _case(
        e, EXPONENTIAL, on, functools.partial(exponential_providers, e, on),
        exact=functools.partial(exponential_exact, e, on), compared=skew,
    )  # fmt: skip


def exponential_forward_case(e: Exponential, on: Setting) -> Case:
    """exp(S) alone."""
    return replace(
        exponential_case(e, on), name=f"{e.name} forward", flops=e.forward_flops, minimal_bytes=e.forward_bytes,
        modes=(FORWARD,),
    )  # fmt: skip


def mapped_exponential_case(e: Exponential, on: Setting) -> Case:
    """exp(S) and its gradient under torch.vmap, beside one call with the whole batch."""
    case = exponential_case(e, on)
    providers = functools.partial(mapped_exponential_providers, e, on)
    return replace(case, name=f"{e.name} vmap", providers=providers)


def frame_case(f: Frame, on: Setting) -> Case:
    """An orthogonal matrix n x k of its parameter, and the parameter's gradient."""
    return _case(f, FRAME, on, functools.partial(frame_providers, f, on), exact=functools.partial(frame_exact, f, on))


def field_case(w: Field, on: Setting) -> Case:
    """An op of fields beside its formulas in PyTorch."""
    return _case(w, FIELD, on, functools.partial(field_providers, w, on), exact=functools.partial(field_exact, w, on))


# ---- the suite -------------------------------------------------------------------------------------------------------


def cases(device: torch.device | str = "cpu") -> Iterator[Case]:
    """Everything that `vfrnn bench` measures on `device`; the targets are those of a CPU."""
    on = Setting(torch.device(device))
    recurrence = {"R1": 0.36, "R2": 0.36, "R3": 0.45, "R4": 0.1, "R5": 0.35, "R7": 0.35}
    share = {"R1": 0.85, "R2": 0.85, "R3": 0.75, "R5": 0.6, "R7": 0.6}
    step = {"R1": 0.36, "R2": 0.36, "R3": 0.25, "R5": 0.25}
    library, field_model, orthogonal = ("vfrnn.RNN", "torch.nn.RNN"), "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)"
    shares = {name: {"vfrnn.RNN": least} for name, least in share.items()}
    for w in (*SEQUENCES, SMALL_STATE):
        case = recurrence_case(w, on, loop_providers, gpu_peers)
        yield replace(case, targets={library: recurrence[w.name]}, shares=shares.get(w.name, {}))
    for w in (*SEQUENCES, SMALL_STATE):
        if w.name in share:
            yield replace(inference_case(w, on), targets={library: 0.6}, shares=shares[w.name])
    for w in SEQUENCES:
        yield replace(activation_case(w, on), targets={("vfrnn modrelu", "vfrnn tanh"): 1.05})
    for w in SEQUENCES:
        targets = {(field_model, "vfrnn.OrthogonalRNN"): 1.1}
        if w.name in step:
            targets |= {(model, orthogonal): step[w.name] for model in ("vfrnn.OrthogonalRNN", field_model)}
        models = ("vfrnn.OrthogonalRNN", field_model, orthogonal, "geotorch, cached")
        yield replace(training_step_case(w, on, models), targets=targets)
    static, moving = "vfrnn.VFRNN, mesh", "vfrnn.InputFieldRNN"
    yield replace(training_step_case(SYMBOLS, on, (static, moving)), targets={(moving, static): 6.0})
    for e in EXPONENTIALS:
        targets = {("vfrnn.skew_expm", "torch.matrix_exp"): exponential_target(e)}
        yield replace(exponential_case(e, on), targets=targets)
    for e in SMALL_EXPONENTIALS:
        for case in (exponential_forward_case(e, on), exponential_case(e, on)):
            yield replace(case, targets={("vfrnn.skew_expm", "torch.matrix_exp"): exponential_target(e)})
    targets = {("vfrnn.skew_expm, vmap", "vfrnn.skew_expm"): 3.0}  # PyTorch's map itself takes about 0.4 ms
    yield replace(mapped_exponential_case(MAPPED, on), targets=targets)
    for frame in FRAMES:
        yield replace(frame_case(frame, on), targets=frame_targets(frame))
    for f in (*MESHES, *INPUT_FIELDS, *IRREGULAR):
        yield replace(field_case(f, on), targets=field_targets(f))


def exponential_target(e: Exponential) -> float:
    """The largest ratio to torch.matrix_exp."""
    if e.n <= 4:
        return 0.1
    if e.batch > 1:
        return 0.25
    if e.norm > math.pi:
        return 0.4 if e.n < 128 else 0.2 if e.norm <= 10 else 0.3
    return next(target for most, target in ((63, 0.4), (127, 0.25), (189, 0.2), (511, 0.15), (e.n, 0.1)) if e.n <= most)


def frame_targets(f: Frame) -> dict[tuple[str, str], float]:
    """The largest ratios to what torch has; where its own parametrizations are no peers, to a QR decomposition."""
    if f.n <= LARGEST_WHOLE:
        return {(OURS, "torch orthogonal, matrix_exp"): 0.1, (OURS, "torch orthogonal, householder"): 0.5}
    return {(OURS, "torch.linalg.qr"): 4.0}


def field_targets(w: Field) -> dict[tuple[str, str], float]:
    """The largest ratios to the formulas in PyTorch."""
    if isinstance(w, Mesh):
        return {(OURS, "eager"): 0.5, (OURS, "compiled"): 1.0}
    return {(OURS, "eager loop"): 0.3 if w in INPUT_FIELDS else 0.1}


#: What the quick suite measures, and peers it leaves out: compiling them takes longer than all the rest.
QUICK = (
    "R1", "R4", "R5", "R1 inference", "R5 activation", "S1", "S5", "F1", "F2", "I1",
    *(Exponential(n, math.pi).name for n in (32, 64, 128, 256)), Exponential(64, 1.0, batch=64).name, FRAMES[0].name,
)  # fmt: skip
LEFT_OUT_OF_QUICK = ("loop, compiled step", "compiled")
